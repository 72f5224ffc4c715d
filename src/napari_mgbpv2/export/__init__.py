"""Export models for other programs: only weights, or graphs that upscale an image without this package."""

from napari_mgbpv2.export.forms import FORMS, export
from napari_mgbpv2.export.graph import UpscalingGraph

__all__ = ["FORMS", "UpscalingGraph", "export"]
