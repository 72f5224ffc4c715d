"""What is chosen and checked: the image and its axes, the scale, the model, and which samples go together."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.imaging.axes import axes_from_names, check_axes, dimension_names, guess_axes
from napari_mgbpv2.model.zoo import ModelCard, default_model
from napari_mgbpv2.tiling.grid import Span

if TYPE_CHECKING:
    from napari_mgbpv2.model.network import Network
    from napari_mgbpv2.runtime import ModelFile
    from napari_mgbpv2.upscaling.options import Model


def image_and_axes(image: Any, axes: str | None) -> tuple[Any, str]:
    """Return an array-like whose shape has been checked, and its axes: as given, as it names them, or guessed.

    Parameters
    ----------
    image
        An array of NumPy, Dask, Zarr or xarray, a Zarr store, a Pillow image, a torch tensor, lists of numbers, or
        any object with ``shape`` and ``dtype`` or with ``__array__``.
    axes
        One letter per axis, or None.

    Raises
    ------
    ImageError
        It cannot be made an array, has too few axes or sizes that are not known, or its axes are not.
    SourceError
        It is not one of these.
    """
    image, own_axes = _as_array(image)
    shape = tuple(image.shape)
    if len(shape) < 2:
        raise ImageError(f"the image has {len(shape)} axes, shape {shape}; it must have at least y and x.")
    # Dask's unknown sizes are NaN, which is not greater than anything
    if not all(size > 0 for size in shape):
        raise ImageError(f"the image has the shape {shape}; every axis must have a known size of at least 1.")
    if axes is not None:
        axes = check_axes(axes, shape)
    elif own_axes is not None:
        axes = own_axes
    else:
        names = dimension_names(image)
        axes = guess_axes(shape) if names is None else axes_from_names(names, shape)
    return _with_missing(image), axes


def _with_missing(image: Any) -> Any:
    """Return an array that marks the missing pixels that its attributes declare; itself if they declare none."""
    if not hasattr(image, "attrs") or np.dtype(image.dtype).kind not in "uif":
        return image
    from napari_mgbpv2.io.cf import MaskedMissingArray
    from napari_mgbpv2.io.readers import find_missing_value
    from napari_mgbpv2.upscaling.lazy import lazy_source

    missing = find_missing_value(image)
    return image if missing is None else MaskedMissingArray(lazy_source(image), missing)


def _as_array(image: Any) -> tuple[Any, str | None]:
    """Return an array-like with NumPy's types for anything that holds an image, and its axes where those are known."""
    what = f"this {type(image).__name__}"
    if isinstance(getattr(image, "shape", None), tuple) and isinstance(getattr(image, "dtype", None), np.dtype):
        return image, None
    if isinstance(getattr(image, "mode", None), str) and hasattr(image, "getbands"):
        from napari_mgbpv2.io.readers.pictures import image_pixels

        return image_pixels(image)
    if all(hasattr(image, name) for name in ("detach", "cpu", "numpy")):  # a torch tensor, perhaps on a device
        return _converted(what, lambda: image.detach().cpu().numpy()), None
    if isinstance(image, (list, tuple)) or hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return _converted(what, lambda: np.asarray(image)), None
    if hasattr(image, "shape") and hasattr(image, "dtype"):
        return image, None
    from napari_mgbpv2.io.readers import as_array

    return as_array(image), None


def _converted(what: str, convert: Callable[[], Any]) -> Any:
    """Return what a conversion to a NumPy array gives; raises `ImageError` where it fails."""
    try:
        return convert()
    except MemoryError:
        raise
    except Exception as error:  # each library raises its own
        raise ImageError(f"{what} cannot be made a NumPy array ({error}); convert it yourself.") from error


def preferred_channels(axes: str, dtype: np.dtype[Any]) -> int:
    """Return the channels of the network that an image gets where nobody names one: 3 for photographs, 1 for others.

    Photographs have colours, or 8 bits and a single channel; everything else is taken for microscopy.
    """
    photograph = "s" in axes or (np.dtype(dtype).itemsize == 1 and "c" not in axes)
    return 3 if photograph else 1


def open_model(model: Model | None, scale: int | None, channels: int) -> tuple[str, Network, ModelFile | None]:
    """Return a model's name, its network, and its file where it has one; None is the default for those channels."""
    from napari_mgbpv2.model.checkpoints import find_model_file, load_model
    from napari_mgbpv2.model.network import Ensemble, MGBPv2
    from napari_mgbpv2.runtime import ModelFile

    if model is None:
        model = default_model(scale, channels)
    if isinstance(model, ModelCard):
        model = model.path
    if isinstance(model, (str, os.PathLike)):
        path = find_model_file(model).resolve()
        return path.stem, load_model(path), ModelFile.of(path)
    if not isinstance(model, (MGBPv2, Ensemble)):
        raise ModelError(f"model is {model!r}; give a model's name, a file, or a network that load_model has given.")
    return type(model).__name__, model, None


def fitting_scale(name: str, trained: int | None, wanted: int | None) -> int:
    """Return the scale of a model that was trained for one, and is asked for one, if they agree."""
    if wanted is None and trained is None:
        raise ModelError(f"the model {name} does not say its scale; give one.")
    if None not in (wanted, trained) and wanted != trained:
        raise ModelError(f"the model {name} upscales {trained} times, not {wanted}; choose another model or scale.")
    return int(wanted or trained or 0)


def sample_groups(name: str, channels: int, samples: int) -> tuple[Span, ...]:
    """Divide the samples of a pixel into what goes through the network together.

    A network of several channels takes that many samples at once; a further one (alpha), or a single one (grey),
    goes through it folded to one channel.
    """
    if channels == 1 or samples <= 2:
        if channels not in (1, 3) and samples != channels:
            raise ModelError(_channel_mismatch(name, channels, samples))
        together = samples if samples == channels else 1
    elif channels == samples or (channels, samples) == (3, 4):
        together = channels
    else:
        raise ModelError(_channel_mismatch(name, channels, samples))
    starts = range(0, samples, together)
    return tuple(Span(start, min(start + together, samples)) for start in starts)


def _channel_mismatch(name: str, channels: int, samples: int) -> str:
    return (
        f"the model {name} takes {channels} channels and a pixel of the image has {samples}; "
        'choose a model of as many, or, if they are independent, name their axis "c".'
    )
