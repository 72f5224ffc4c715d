"""Images of other formats, by the readers that are installed beside bioio."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import (
    FileArray,
    ImageSource,
    Pixels,
    UnknownFormat,
    Window,
    axes_with_override,
    guess_axes,
    is_default_channel_name,
    pick,
    source_without_metadata,
)
from napari_mgbpv2.io.units import long_unit

if TYPE_CHECKING:
    from bioio import BioImage

_DROPPED = "tcz"  # readers give all of them, whether the image has them or not


def open_bioimage(path: str, series: int, level: int, axes_override: str | None) -> ImageSource:
    """Open an image by the reader of its format, which its suffix tells.

    Raises
    ------
    UnknownFormat
        bioio is not installed, or has no reader for it.
    SourceError
        The reader cannot open it, or it has no such scene or level.
    """
    image = _open(path, series, level)
    data = BioArray(path, series, level, image)
    axes = axes_with_override(axes_override, data.shape, lambda: data.axes or guess_axes(path, data.shape))
    kind = type(image.reader).__module__.partition(".")[0].removeprefix("bioio_").upper()
    return replace(source_without_metadata(data, axes, path, kind), **_described(image, axes, data))


def _open(path: str, series: int, level: int) -> BioImage:
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise UnknownFormat(f"{path}: bioio is not installed.") from None
    try:
        image = BioImage(path)
    except UnsupportedFileFormatError:
        raise UnknownFormat(f"{path}: bioio has no reader for it.") from None
    except Exception as error:  # each reader has its own
        raise _unreadable(path, error) from error
    image.set_scene(pick(path, "image", "series", image.scenes, series))
    image.set_resolution_level(pick(path, "image", "level", image.resolution_levels, level))
    return image


def _unreadable(path: str, error: Exception) -> SourceError:
    return SourceError(f"{path}: its reader fails ({type(error).__name__}: {error}); check the file and the reader.")


class BioArray(FileArray):
    """Pixels as a reader of bioio gives them.

    Parameters
    ----------
    path, series, level
        As `open_bioimage` has them.
    image
        The open image.

    Attributes
    ----------
    axes
        Letters of the axes, None where the reader has names for them that are unknown here.
    """

    def __init__(self, path: str, series: int, level: int, image: BioImage) -> None:
        try:
            # BioImage itself puts mosaics together, and gives every image a channel, for which it needs a name
            named = image.xarray_dask_data if "M" in image.reader.dims.order else image.reader.xarray_dask_data
        except Exception as error:  # each reader has its own
            raise _unreadable(path, error) from error
        names = [str(name).lower() for name in named.dims]
        kept = [not (name in _DROPPED and size == 1) for name, size in zip(names, named.shape, strict=True)]
        self._lazy: Any = named.data[tuple(slice(None) if keep else 0 for keep in kept)]
        letters = [name for name, keep in zip(names, kept, strict=True) if keep]
        self.axes = "".join(letters) if {"y", "x"} <= set(letters) <= set("tczyxs") else None
        super().__init__(path, self._lazy.shape, self._lazy.dtype, (_reopen, (path, series, level)))
        self._lock = threading.Lock()  # readers open and close one file

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Pixels of the largest chunk."""
        return tuple(self._lazy.chunksize)

    def _read(self, window: Window) -> Pixels:
        try:
            with self._lock:  # not by a cluster's scheduler, which may be what waits for these pixels
                return np.array(self._lazy[window].compute(scheduler="threads"), dtype=self.dtype)
        except Exception as error:  # each reader has its own
            raise _unreadable(self.path, error) from error


def _reopen(path: str, series: int, level: int) -> BioArray:
    return BioArray(path, series, level, _open(path, series, level))


def _described(image: BioImage, axes: str, data: BioArray) -> dict[str, Any]:
    """Return pixel sizes, units and channel names."""
    sizes = _read_or_default(lambda: image.physical_pixel_sizes._asdict(), {})
    about = _read_or_default(lambda: image.dimension_properties._asdict(), {})
    interval = _read_or_default(lambda: image.time_interval, None)
    names = _read_or_default(
        lambda: [str(name) for name in image.channel_names or () if not is_default_channel_name(str(name))], []
    )
    steps = {axis.lower(): step for axis, step in sizes.items()}
    units = {axis.lower(): long_unit(str(each.unit)) for axis, each in about.items()}
    if interval:
        steps["t"], units["t"] = interval.total_seconds(), "second"
    placed = [axis for axis in axes if axis not in "cs"]
    known = {axis: float(steps[axis]) for axis in placed if steps.get(axis)}
    channels = 0 if "s" in axes else data.shape[axes.index("c")] if "c" in axes else 1
    return {
        "pixel_size": {axis: known.get(axis, 1.0) for axis in placed},
        "units": {axis: units.get(axis) if axis in known else None for axis in placed},
        "channel_names": tuple(names) if len(names) == channels else None,
    }


def _read_or_default(read: Callable[[], Any], otherwise: Any) -> Any:
    """Return what a reader says; where it fails at that, it spoils no pixel."""
    try:
        return read()
    except Exception:  # each reader has its own
        return otherwise
