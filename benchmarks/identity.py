"""A network that does nothing, for what conversions cost beside theirs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import napari_mgbpv2 as mgbp
from napari_mgbpv2.conversion import ConversionJob, ConversionPlan, prepare
from napari_mgbpv2.upscaling.options import UpscaleOptions

GUARD = 56  # as the packaged model x2 has it, so that the tiles are those of a real conversion


@dataclass
class Identity:
    """Computes a tile as an identity network would, at no cost."""

    inner: Any
    keep_on_device: bool = False  # it computes nothing on any device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> npt.NDArray[np.float32]:
        grid, samples = self.inner.layout.grid, self.inner.layout.groups[group]
        core = grid.rows.core(row), grid.columns.core(column)
        pixels = self.inner.read(plane, samples, *(slice(*span) for span in core))
        return np.ascontiguousarray(self.inner.values.to_unit(pixels))


def prepared_identity(source: Any, axes: str, destination: Path, **options: Any) -> ConversionPlan:
    """Prepare a conversion of scale 1 that gives its source."""
    network = mgbp.MGBPv2(replace(mgbp.load_model("x2").config, channels=3 if "s" in axes else 1))
    network.guard = GUARD
    prepared = prepare(
        ConversionJob(source, destination, UpscaleOptions(scale=1, model=network, axes=axes), overwrite=True, **options)
    )
    return replace(prepared, plan=replace(prepared.plan, compute_tile=Identity(prepared.plan.compute_tile)))
