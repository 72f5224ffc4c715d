"""Models for other programs: weights alone, or graphs that upscale an image without this package."""

from napari_mgbpv2.exporting.forms import FORMS, export
from napari_mgbpv2.exporting.graph import UpscalingGraph

__all__ = ["FORMS", "UpscalingGraph", "export"]
