"""Images on disk, and how to read them back, that the tests of the sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_mgbpv2.io.readers import ImageSource

Array = npt.NDArray[Any]


def pixels(*shape: int, dtype: npt.DTypeLike = "u2", seed: int = 0) -> Array:
    """Make random integers over the whole range of an integer dtype, or floats in [0, 1)."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def all_of(source: ImageSource) -> Array:
    """Read all pixels of a source."""
    return np.asarray(source.data[(slice(None),) * source.data.ndim])


def assert_reads(source: ImageSource, expected: Array) -> None:
    """Check shape and dtype, all pixels, and a window with odd corners."""
    assert source.data.shape == expected.shape
    assert source.data.dtype == expected.dtype.newbyteorder("=")
    assert source.data.ndim == len(source.axes) == expected.ndim
    np.testing.assert_array_equal(all_of(source), expected)
    window = tuple(slice(size // 3, size // 3 + max(1, size // 2)) for size in expected.shape)
    np.testing.assert_array_equal(source.data[window], expected[window])


def write_ome_zarr(
    path: Path,
    levels: list[Array],
    axes: list[dict[str, str]],
    datasets: list[list[dict[str, Any]]],
    *,
    version: str = "0.5",
    transforms: list[dict[str, Any]] | None = None,
    channels: list[dict[str, str]] | None = None,
) -> Path:
    """Write an OME-Zarr; ``datasets`` has the transforms of each level."""
    multiscale: dict[str, Any] = {
        "axes": axes,
        "datasets": [{"path": str(i), "coordinateTransformations": each} for i, each in enumerate(datasets)],
    }
    if transforms:
        multiscale["coordinateTransformations"] = transforms
    ome: dict[str, Any] = {"multiscales": [multiscale]}
    if channels:
        ome["omero"] = {"channels": channels}
    if version == "0.5":
        attributes: dict[str, Any] = {"ome": {"version": "0.5", **ome}}
    else:
        multiscale["version"] = version
        attributes = ome
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    for i, level in enumerate(levels):
        array = group.create_array(str(i), shape=level.shape, chunks=(16,) * level.ndim, dtype=level.dtype)
        array[...] = level
    return path


CZYX = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
CYX = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


def unit_scale(ndim: int) -> list[dict[str, Any]]:
    """Return the transforms of a level that does not say its pixel size."""
    return [{"type": "scale", "scale": [1.0] * ndim}]


def cut(path: Path, fraction: float) -> None:
    """Keep only the first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
