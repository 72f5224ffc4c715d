"""CF conventions in the attributes of Zarr and xarray arrays: missing values and packed values."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import Pixels, integer_nodata

_FLOAT32_STEPS = 16  # float32 steps required within one step of the packed integers


class Packing(NamedTuple):
    """Linear mapping from stored to true values, ``value * factor + offset``.

    Attributes
    ----------
    factor, offset
        CF's ``scale_factor`` and ``add_offset``; the factor is not 0.
    """

    factor: float
    offset: float

    def dtype_for(self, stored: npt.DTypeLike) -> np.dtype[Any]:
        """Return the float type of the true values: float32 if it holds every step of the integers."""
        stored = np.dtype(stored)
        if stored.kind == "f":
            return stored if stored.itemsize > 2 else np.dtype(np.float32)
        limits = np.iinfo(stored)
        largest = max(abs(limits.min * self.factor + self.offset), abs(limits.max * self.factor + self.offset))
        with np.errstate(over="ignore"):
            spacing = float(np.spacing(np.float32(largest)))
        return np.dtype(np.float32 if spacing * _FLOAT32_STEPS <= abs(self.factor) else np.float64)

    def unpack(self, stored: Pixels, missing: float | None) -> Pixels:
        """Convert stored to true values; those equal to ``missing`` become NaN."""
        values = np.multiply(stored, self.factor, dtype=np.float64)
        values += self.offset
        if missing is not None:
            values[stored == missing] = np.nan
        return values.astype(self.dtype_for(stored.dtype), copy=False)


def read_packing(path: str, attributes: Mapping[str, Any]) -> Packing | None:
    """Return the packing of values; None if they are stored unpacked.

    Raises
    ------
    SourceError
        ``scale_factor`` or ``add_offset`` is not a finite number, or the factor is 0.
    """
    said = {name: attributes[name] for name in ("scale_factor", "add_offset") if name in attributes}
    if not said:
        return None
    try:
        factor, offset = (float(said.get(name, usual)) for name, usual in (("scale_factor", 1.0), ("add_offset", 0.0)))
    except (TypeError, ValueError):
        factor, offset = np.nan, np.nan
    if not (np.isfinite([factor, offset]).all() and factor != 0):
        raise SourceError(
            f"{path}: its values are packed by {', '.join(f'{name} {value!r}' for name, value in said.items())}, which "
            "are not finite numbers with a scale other than 0; correct these attributes."
        )
    return None if (factor, offset) == (1.0, 0.0) else Packing(factor, offset)


def missing_value(attributes: Mapping[str, Any]) -> float | None:
    """Return the value of missing pixels from attributes of CF, xarray or GDAL, or None."""
    for name in ("_FillValue", "missing_value", "nodata"):
        value = attributes.get(name)
        if name == "_FillValue" and isinstance(value, str):
            value = _to_float(value)
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            return float(value)
    return None


def _to_float(text: str) -> float | None:
    """Decode a float that xarray has written into a Zarr of version 3: eight bytes in base64."""
    try:
        (value,) = struct.unpack("<d", base64.b64decode(text, validate=True))
    except (ValueError, struct.error, binascii.Error):
        return None
    return float(value)


class MaskedMissingArray:
    """An array with a value for missing pixels.

    Parameters
    ----------
    image
        Array that is indexed by one slice per axis.
    missing
        Value of missing pixels. Float images are NaN there; integer images are unchanged, and ``nodata`` holds the
        value.
    """

    def __init__(self, image: Any, missing: float) -> None:
        self.image = image
        self.shape = tuple(int(size) for size in image.shape)
        self.dtype: np.dtype[Any] = np.dtype(image.dtype)
        self.ndim = len(self.shape)
        self.nodata = integer_nodata(missing, self.dtype)
        self._missing = missing

    def __getitem__(self, window: tuple[slice, ...]) -> Pixels:
        """Read the pixels of one slice per axis."""
        pixels = np.asarray(self.image[window])
        if self.dtype.kind != "f":
            return pixels
        with np.errstate(over="ignore"):
            return np.where(pixels == self.dtype.type(self._missing), self.dtype.type(np.nan), pixels)
