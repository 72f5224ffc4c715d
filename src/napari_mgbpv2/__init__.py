"""Upscale images larger than memory with the MGBPv2 super-resolution network.

>>> import napari_mgbpv2 as mgbp
>>> larger = mgbp.upscale(image, 4)  # a lazy Dask array, four times larger in y and x
>>> mgbp.convert("slide.tif", "slide.ome.zarr", scale=4)  # the same into an OME-Zarr on disk

Importing the package loads neither torch nor Dask nor NumPy. A public name imports its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from napari_mgbpv2 import _moved
from napari_mgbpv2._version import __version__

if TYPE_CHECKING:
    from napari_mgbpv2.conversion import convert
    from napari_mgbpv2.inspection import deep_filter, hallucination_map, noise_sweep
    from napari_mgbpv2.inspection import invention_map as invention_map  # deprecated
    from napari_mgbpv2.model.checkpoints import load_model
    from napari_mgbpv2.model.config import ModelConfig
    from napari_mgbpv2.model.network import MGBPv2
    from napari_mgbpv2.model.zoo import list_models
    from napari_mgbpv2.upscaling import upscale

_moved.install()

__all__ = [
    "MGBPv2",
    "ModelConfig",
    "__version__",
    "convert",
    "deep_filter",
    "hallucination_map",
    "list_models",
    "load_model",
    "noise_sweep",
    "upscale",
]

_MODULES = {
    "MGBPv2": "model.network",
    "ModelConfig": "model.config",
    "convert": "conversion",
    "deep_filter": "inspection",
    "hallucination_map": "inspection",
    "invention_map": "inspection",  # deprecated name of hallucination_map
    "list_models": "model.zoo",
    "load_model": "model.checkpoints",
    "noise_sweep": "inspection",
    "upscale": "upscaling",
}

if not TYPE_CHECKING:  # a type checker would take any name for an attribute

    def __getattr__(name: str) -> object:
        """Import the module of a public name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, used or not yet."""
    return sorted(__all__)
