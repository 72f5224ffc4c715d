"""Log a run: scores as CSV and for TensorBoard, and a contact sheet per validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from napari_mgbpv2.io.results import MARKER
from napari_mgbpv2.training.state import write_file

SCORES_FILE = "scores.csv"
_SHEET_SIDE = 192  # pixels of each picture on a contact sheet
_SHEET_ROWS = 4


class RunLogger:
    """Log of the scores of a run by step.

    Parameters
    ----------
    folder
        Folder of the run.
    step
        First step of this part of the run. Later rows of an interrupted run are discarded.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._rows: list[dict[str, Any]] = []
        if step and (folder / SCORES_FILE).exists():
            with (folder / SCORES_FILE).open(newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self._board = _tensorboard(folder, step)

    def add(self, step: int, scores: Mapping[str, float]) -> None:
        """Append the scores of a step and write them to disk."""
        self._rows.append({"step": step} | {name: f"{value:.6g}" for name, value in scores.items()})
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_file(self.folder / SCORES_FILE, text.getvalue().encode())
        if self._board is not None:
            for name, value in scores.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def add_sheet(self, step: int, rows: Sequence[Sequence[Tensor]]) -> Path:
        """Write a contact sheet.

        Parameters
        ----------
        step
            Step of the run.
        rows
            One per validation image: (C, h, w) pictures in [0, 1], side by side: source, bicubic, W = 0, W = 1 (with a
            noise input), and target. The same central part of each is shown.
        """
        sheet = np.concatenate([np.concatenate([_tile(each) for each in row], axis=1) for row in rows[:_SHEET_ROWS]])
        content = io.BytesIO()
        made = PngInfo()
        made.add_text(MARKER, "contact sheet")  # excludes it from training images
        Image.fromarray(sheet).save(content, format="PNG", pnginfo=made)
        path = self.folder / f"sheet_{step:07d}.png"
        write_file(path, content.getvalue())
        return path

    def close(self) -> None:
        """Close the TensorBoard writer."""
        if self._board is not None:
            self._board.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """Return TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _tile(picture: Tensor) -> npt.NDArray[np.uint8]:
    """Return the centre of a picture as (side, side, 3) uint8 pixels, enlarged by pixel repetition if smaller."""
    channels, height, width = picture.shape
    if channels not in (1, 3):
        picture = picture[:1]
    side = min(_SHEET_SIDE, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[:, top : top + side, left : left + side]
    shown = (middle.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).contiguous()
    image = Image.fromarray(shown.numpy()).resize((_SHEET_SIDE, _SHEET_SIDE), Image.Resampling.NEAREST)
    return np.asarray(image)
