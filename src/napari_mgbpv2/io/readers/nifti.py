"""NIfTI, as nibabel reads it: mapped where it is not compressed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.converted import ConvertedArray
from napari_mgbpv2.io.decoded import DecodedArray
from napari_mgbpv2.io.image import (
    FileArray,
    ImageSource,
    Pixels,
    axes_with_override,
    check_single_image,
    pixel_dtype,
    source_without_metadata,
)
from napari_mgbpv2.io.memory_mapped import MappedArray
from napari_mgbpv2.io.units import long_unit

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

_AXES = {2: "yx", 3: "zyx", 4: "tzyx", 5: "ctzyx"}  # x is the first in the file, and varies fastest

_LOST = "its axes are mirrored or turned against those of the scanner: its position and orientation are not carried"


def open_nifti(path: str, series: int, level: int, axes_override: str | None) -> ImageSource:
    """Open a NIfTI image; its axes are those of the voxels, in the order t, z, y, x.

    Voxels that are scaled have their scaled values, as 32-bit floats. The position is read where the axes lie along
    those of the scanner; of turned and mirrored images it is not carried, with a note.

    Raises
    ------
    SourceError
        nibabel is not installed, or it is no NIfTI, damaged, cut short, or of no numbers.
    """
    check_single_image(path, "NIfTI", series, level)
    image = _load(path)
    data = _pixels(path, image)
    axes = axes_with_override(axes_override, data.shape, lambda: _axes(path, data.ndim))
    return replace(source_without_metadata(data, axes, path, "NIfTI"), **_placement(image, axes))


def _load(path: str) -> Nifti1Pair:
    try:
        import nibabel
    except ImportError:
        raise SourceError(
            f'{path}: reading NIfTI needs nibabel; install it with: pip install "napari-mgbpv2[nifti]"'
        ) from None
    try:
        image = nibabel.load(path)
    except Exception as error:  # each part of a damaged header fails in its own way
        raise SourceError(f"{path}: cannot be read as NIfTI ({error}); copy or download it again.") from error
    if not isinstance(image, nibabel.Nifti1Pair):  # what the other versions and a single file derive from
        raise SourceError(f"{path}: is {type(image).__name__}, which is not read; save it as NIfTI.")
    return image


def _axes(path: str, ndim: int) -> str:
    if ndim not in _AXES:
        raise SourceError(f"{path}: has {ndim} axes; a NIfTI image has 2 to 5: say what they are with axes=.")
    return _AXES[ndim]


def _pixels(path: str, image: Nifti1Pair) -> FileArray:
    voxels: Any = image.dataobj
    shape, dtype = tuple(voxels.shape[::-1]), voxels.dtype
    pixel_dtype(path, dtype)
    file = str(image.file_map["image"].filename)
    stored: FileArray
    if file.lower().endswith((".gz", ".bz2", ".zst")):
        stored = CompressedVoxels(path, shape, dtype)
    else:
        stored = MappedArray(file, shape, dtype, voxels.offset)
    if (voxels.slope, voxels.inter) == (1.0, 0.0):
        return stored
    slope, offset = np.float32(voxels.slope), np.float32(voxels.inter)
    return ConvertedArray(stored, lambda values: values * slope + offset, np.float32, (_reopen, (path,)))


def _reopen(path: str) -> FileArray:
    return _pixels(path, _load(path))


class CompressedVoxels(DecodedArray):
    """The voxels of a compressed file, as they are stored, with x last.

    Parameters
    ----------
    path
        The file.
    shape, dtype
        As its header has them, the shape in reverse.
    """

    def __init__(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(path, shape, dtype, reopen=(CompressedVoxels, (path, shape, dtype)))

    def _decode(self) -> Pixels:
        voxels: Any = _load(self.path).dataobj
        try:
            return np.asarray(voxels.get_unscaled(), dtype=self.dtype).T
        except Exception as error:  # the decompressors have several
            raise SourceError(
                f"{self.path}: this NIfTI is damaged or cut short ({error}); copy or download it again."
            ) from error


def _placement(image: Nifti1Pair, axes: str) -> dict[str, Any]:
    """Return pixel size, units and position, for those axes that have a size above 0."""
    header: Any = image.header
    steps = dict(zip(axes[::-1], map(float, header.get_zooms()), strict=False))
    space, time = map(long_unit, header.get_xyzt_units())
    sizes = {axis: step for axis, step in steps.items() if axis in "tzyx" and 0 < step < math.inf}
    affine = image.affine
    straight = affine is not None and np.allclose(
        affine[:3, :3], np.diag([steps.get(axis, 1.0) for axis in "xyz"]), rtol=1e-4
    )
    place = dict(zip("xyz", map(float, affine[:3, 3]), strict=True)) if straight else {}
    lost = not straight and affine is not None and bool(np.any(affine[:3, 3]))
    known = [axis for axis in axes if axis not in "cs"]
    return {
        "pixel_size": {axis: sizes.get(axis, 1.0) for axis in known},
        "units": {axis: (time if axis == "t" else space) if axis in sizes else None for axis in known},
        "translation": {axis: place.get(axis, 0.0) for axis in known},
        "notes": (_LOST,) if lost else (),
    }
