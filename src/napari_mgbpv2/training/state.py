"""Save and load the state of a run, atomically and bit for bit."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_mgbpv2.errors import TrainingError
from napari_mgbpv2.paths import write_atomically

STATE_FILE = "last.state"


def save_state(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write a state. If that fails, the previous one is kept.

    Parameters
    ----------
    folder
        Folder of the run.
    state
        Tensors, numbers, strings, and dicts and lists of them.

    Raises
    ------
    TrainingError
        The file cannot be written.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_file(folder / STATE_FILE, content.getvalue())
    return folder / STATE_FILE


def load_state(folder: Path) -> dict[str, Any]:
    """Read the last state of a run.

    Raises
    ------
    TrainingError
        No state exists, or it is damaged.
    """
    path = folder / STATE_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{folder}: there is no run to resume; leave out --resume to start one.") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path}: is damaged ({error}); begin the run again.") from error
    if not isinstance(state, dict) or "step" not in state:
        raise TrainingError(f"{path}: is not the state of a run; begin the run again.")
    return state


def write_file(path: Path, content: bytes) -> None:
    """Replace a file of a run atomically, or leave it unchanged.

    Raises
    ------
    TrainingError
        The file cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        kept = "; what was there before is kept" if path.exists() else ""
        raise TrainingError(f"{path}: cannot be written ({error.strerror}){kept}.") from error
