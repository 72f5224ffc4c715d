"""What the user has chosen: plain values, and the options of the library that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Choices:
    """How to upscale.

    Attributes
    ----------
    model
        File of the model.
    scale
        Upscaling factor; None for the model's.
    noise, seed, device, precision, tile, overlap, window
        As `upscale` has them; None for its defaults.
    value_range
        As `upscale` has it; None for what the image says.
    axes
        One letter an axis; empty for what the image says.
    """

    model: Path
    scale: int | None = None
    noise: float = 0.0
    seed: int = 0
    device: str | None = None
    precision: str | None = None
    tile: int | None = None
    overlap: int | None = None
    window: str = "hamming"
    value_range: tuple[float, float] | None = None
    axes: str = ""

    def options(self, axes: str | None = None, value_range: tuple[float, float] | None = None) -> dict[str, Any]:
        """Return the options of `upscale`, without scale and model.

        Parameters
        ----------
        axes, value_range
            What the image says, where nothing else is chosen; None where it says nothing.
        """
        return {
            "axes": self.axes or axes,
            "noise": self.noise,
            "seed": self.seed,
            "tile": self.tile,
            "overlap": self.overlap,
            "window": self.window,
            "value_range": self.value_range or value_range,
            "device": self.device,
            "precision": self.precision,
        }
