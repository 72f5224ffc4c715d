"""What the user has chosen: plain values, and the options of the library that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from napari_mgbpv2.upscaling import UpscaleOptions


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

    def options(self, axes: str | None = None, value_range: tuple[float, float] | None = None) -> UpscaleOptions:
        """Return the options of upscaling.

        Parameters
        ----------
        axes, value_range
            Those of the image, used where none are chosen; None if the image has none.
        """
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        chosen |= {"axes": self.axes or axes, "value_range": self.value_range or value_range}
        return UpscaleOptions(**chosen)
