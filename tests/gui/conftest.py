"""Tests of the plugin; left out as a whole where napari or a Qt binding is missing."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
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


def start_screen() -> None:
    """Start a virtual screen for this process, and stop it at exit: windows of two would take each other's focus."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    screen = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    atexit.register(screen.wait)
    atexit.register(screen.terminate)  # runs first
    os.close(writer)
    with os.fdopen(reader) as file:
        number = file.readline().strip()  # empty if it did not start
    if not number:
        raise RuntimeError("Xvfb did not start; run the tests of the plugin in one process (-n 0)")
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)
    os.environ.pop("XAUTHORITY", None)


if HAS_GUI and "PYTEST_XDIST_WORKER" in os.environ and shutil.which("Xvfb"):
    start_screen()

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
