"""Looking inside: what the network does to a pixel, what it invents, where it leaves the data, what noise costs."""

from napari_mgbpv2.inspection.filters import DeepFilter, deep_filter, filter_of_plan
from napari_mgbpv2.inspection.maps import (
    InventionMap,
    consistency_image,
    consistency_map,
    invention_images,
    invention_map,
)
from napari_mgbpv2.inspection.plotting import plot_sweep
from napari_mgbpv2.inspection.sweep import SweepRow, as_csv, noise_sweep

__all__ = [
    "DeepFilter",
    "InventionMap",
    "SweepRow",
    "as_csv",
    "consistency_image",
    "consistency_map",
    "deep_filter",
    "filter_of_plan",
    "invention_images",
    "invention_map",
    "noise_sweep",
    "plot_sweep",
]
