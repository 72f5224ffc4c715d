"""Upscale images larger than memory with the MGBPv2 super-resolution network.

>>> import napari_mgbpv2 as mgbp
>>> larger = mgbp.upscale(image, 4)  # a lazy Dask array, four times larger in y and x
>>> mgbp.convert("slide.tif", "slide.ome.zarr", scale=4)  # the same into an OME-Zarr on disk

Importing the package loads neither torch nor Dask nor NumPy: a name brings its room along when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from napari_mgbpv2._version import __version__

if TYPE_CHECKING:
    from napari_mgbpv2.checkpoints import load_model
    from napari_mgbpv2.config import ModelConfig
    from napari_mgbpv2.conversion import convert
    from napari_mgbpv2.inspection import deep_filter, invention_map, noise_sweep
    from napari_mgbpv2.model_zoo import list_models
    from napari_mgbpv2.network import MGBPv2
    from napari_mgbpv2.upscaling import upscale

__all__ = [
    "MGBPv2",
    "ModelConfig",
    "__version__",
    "convert",
    "deep_filter",
    "invention_map",
    "list_models",
    "load_model",
    "noise_sweep",
    "upscale",
]

_ROOMS = {
    "MGBPv2": "network",
    "ModelConfig": "config",
    "convert": "conversion",
    "deep_filter": "inspection",
    "invention_map": "inspection",
    "list_models": "model_zoo",
    "load_model": "checkpoints",
    "noise_sweep": "inspection",
    "upscale": "upscaling",
}

if not TYPE_CHECKING:  # a type checker would take any name for an attribute

    def __getattr__(name: str) -> object:
        """Import the room of a public name when it is first used."""
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, used or not yet."""
    return sorted(__all__)
