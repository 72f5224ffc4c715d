"""Tests of the plugin; left out as a whole where napari or a Qt binding is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from machine import Machine
    from user import User

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the examples that all tests share

HAS_GUI = all(map(find_spec, ("napari", "pytestqt"))) and any(map(find_spec, ("PyQt6", "PySide6")))

collect_ignore_glob = [] if HAS_GUI else ["test_*.py"]

if HAS_GUI:
    # a layer that a worker thread touches is a defect, and a private name of the viewer a promise that nobody gave
    os.environ["NAPARI_ENSURE_PLUGIN_MAIN_THREAD"] = "1"


@pytest.fixture(autouse=True, scope="session")
def one_thread_for_torch() -> None:
    """Leave processor time to the thread that is tested for its responsiveness."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    """A viewer as plugins see it."""
    return make_napari_viewer_proxy()


@pytest.fixture
def user(viewer: Any, qtbot: Any) -> User:
    """Somebody at the viewer, with the widget "Upscale" at hand."""
    from user import User

    return User(viewer, qtbot)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What saving runs on; as patient as ever, until it is told otherwise."""
    from machine import Machine

    import napari_mgbpv2.plugin.upscaling.saving as saving

    machine = Machine()
    monkeypatch.setattr(saving, "run", machine.run)
    return machine
