"""What all tests of faults have: a user's folder, and the row of the table that they show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the examples that all tests share

from folder import Folder
from table import FAULTS, Row

from examples import a_network
from napari_mgbpv2.model.checkpoints import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model's file."""
    return save_model(a_network(), tmp_path_factory.mktemp("model") / "small.safetensors").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, model: bytes, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A user's folder."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "small.safetensors").write_bytes(model)
    return Folder(path, path / "small.safetensors", capfd)


@pytest.fixture
def row(request: pytest.FixtureRequest, folder: Folder) -> Iterator[Row]:
    """The row of the table that has the test's name; the test has to show it."""
    found = Row(FAULTS[request.function.__name__.removeprefix("test_")], folder.path)
    yield found
    assert found.shown
