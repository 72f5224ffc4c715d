"""Inspect a network and its results: filters at a pixel, hallucination and consistency maps, noise sweeps.

The package owns the analysis. `napari_mgbpv2.plugin.inspecting` shows it, `napari_mgbpv2.cli.sweep` prints it.
"""

from __future__ import annotations

import warnings
from typing import Any

from napari_mgbpv2.inspection.filters import DeepFilter, deep_filter, filter_of_plan
from napari_mgbpv2.inspection.maps import (
    HallucinationMap,
    consistency_image,
    consistency_map,
    hallucination_images,
    hallucination_map,
)
from napari_mgbpv2.inspection.plotting import plot_sweep
from napari_mgbpv2.inspection.sweep import SweepRow, as_csv, noise_sweep

__all__ = [
    "DeepFilter",
    "HallucinationMap",
    "SweepRow",
    "as_csv",
    "consistency_image",
    "consistency_map",
    "deep_filter",
    "filter_of_plan",
    "hallucination_images",
    "hallucination_map",
    "noise_sweep",
    "plot_sweep",
]


def invention_map(*args: Any, **kwargs: Any) -> HallucinationMap:
    """Call `hallucination_map` by its former name, for one release."""
    warnings.warn("invention_map is now hallucination_map", DeprecationWarning, stacklevel=2)
    return hallucination_map(*args, **kwargs)


def __getattr__(name: str) -> object:
    """Return `HallucinationMap` by its former name, ``InventionMap``, for one release."""
    if name == "InventionMap":
        warnings.warn("InventionMap is now HallucinationMap", DeprecationWarning, stacklevel=2)
        return HallucinationMap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
