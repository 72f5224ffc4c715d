"""The writer: stored levels in, one pyramidal OME-TIFF out."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import Cancelled, DestinationError, MGBPv2Error
from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES
from napari_mgbpv2.io.writers.ome_tiff.metadata import CREATOR, Description
from napari_mgbpv2.io.writers.ome_tiff.tiles import BLOCK_BYTES, ArrayLike, Pixels, TiledLevel
from napari_mgbpv2.paths import explain_write_error

COMPRESSIONS: dict[str, dict[str, Any]] = {
    "zlib": {"compression": "zlib", "compressionargs": {"level": 3}},  # higher ones take long and gain little
    "zstd": {"compression": "zstd"},
    "lzw": {"compression": "lzw"},
    "none": {},
}
CLASSIC_BYTES = 2**32 - 2**25  # what has a place in a TIFF with 32-bit offsets, with some to spare

_PAGE_BYTES = 1024  # of tags, its OME-XML included
_TILE_BYTES = 32  # of offset and byte count, and of compression that does not succeed


def tiff_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the type in which pixels of a type are written: the same, but float32 for float16, which OME lacks.

    Raises
    ------
    DestinationError
        OME-TIFF has no such type: 64-bit integers, booleans, and what is no number.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native == np.float16:
        return np.dtype(np.float32)  # holds every half float
    if not (native.kind in "ui" and native.itemsize <= 4) and native not in (np.float32, np.float64):
        raise DestinationError(
            f"OME-TIFF has no pixels of type {native}: choose OME-Zarr, or convert the image to integers of at most "
            "32 bits or to floats"
        )
    return native


def write_ome_tiff(
    path: str | os.PathLike[str],
    levels: Sequence[ArrayLike],
    *,
    axes: str,
    colour: bool,
    pixel_size: Sequence[float],
    units: Sequence[str | None],
    translation: Sequence[float],
    name: str,
    channel_names: Sequence[str] | None,
    channel_colors: Sequence[str] | None,
    provenance: Mapping[str, Any],
    tile: int = 512,
    compression: str = "zlib",
    on_step: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    icc_profile: bytes | None = None,
) -> None:
    """Write an image as a tiled, pyramidal OME-TIFF, down to the disk; as BigTIFF where 4 GB might not do.

    The lower levels are SubIFDs of the pages of level 0. A few blocks of `BLOCK_BYTES` are in memory at a time,
    whatever the size of the image, and every pixel is read once. The same arguments give the same bytes.

    Parameters
    ----------
    path
        The file; replaced if it exists, removed if it cannot be completed.
    levels
        The pyramid, level 0 first; read by regions, from another thread.
    axes
        One letter per axis out of "tczyx", in that order; y and x are always there.
    colour
        Whether c holds the samples of one colour image: grey and alpha, R, G, B, or R, G, B, A.
    pixel_size, units, translation
        One per axis, at level 0; the units are NGFF's long names ("micrometer") or None. The translation is the
        position of the centre of the first pixel, and written as that of each page.
    name
        Name of the image.
    channel_names, channel_colors
        One per channel (one in all without a c axis), or None; colours as "RRGGBB". Not written for colour images.
    provenance
        How the image came to be; JSON-able. Written as a map annotation, each value that is no plain text as JSON.
    tile
        Pixels along y and x in a tile, a multiple of 16; best the chunk of the levels or a multiple of it. An image
        that is smaller has smaller tiles.
    compression
        One of `COMPRESSIONS`. Integers are predicted horizontally; floats are not predicted, as Bio-Formats (and so
        QuPath) refuses files with the floating-point predictor.
    on_step
        Called with the number of tiles that are done, and of all.
    cancelled
        Asked every few tiles; True stops the work.
    icc_profile
        ICC profile of the colours, if they have one.

    Raises
    ------
    DestinationError
        If OME-TIFF cannot hold the pixels, the disk is full, or it fails.
    Cancelled
        If `cancelled` says so.
    ValueError
        If the arguments do not fit together.
    TypeError
        If the provenance is not JSON-able.
    """
    from tifffile import TiffWriter

    path = Path(path)
    first = levels[0]
    image = Description(
        tuple(first.shape), axes, colour, tuple(pixel_size), tuple(units), tuple(translation), name,
        None if channel_names is None else tuple(channel_names),
        None if channel_colors is None else tuple(channel_colors),
        provenance,
    )  # fmt: skip
    _check_levels(levels)
    if tile < 16 or tile % 16:
        raise ValueError(f"tile is {tile}; it must be a multiple of 16")
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}; it must be one of {', '.join(COMPRESSIONS)}")
    dtype = tiff_dtype(first.dtype)
    sides = tuple(min(tile, -(-size // 16) * 16) for size in image.shape[-2:])
    tiled = [TiledLevel(level, axes, colour, (sides[0], sides[1]), dtype) for level in levels]
    options: dict[str, Any] = {
        "dtype": dtype,
        "tile": sides,
        "maxworkers": os.cpu_count(),
        "buffersize": BLOCK_BYTES,
        "photometric": "rgb" if colour and tiled[0].shape[-1] > 2 else "minisblack",
        **COMPRESSIONS[compression],
    }
    if icc_profile is not None:
        options["iccprofile"] = icc_profile
    if colour:
        options |= {"planarconfig": "contig", "extrasamples": ["unassalpha"] * (tiled[0].shape[-1] in ALPHA_SAMPLES)}
    if compression != "none":
        options["predictor"] = dtype.kind in "ui"
    tiles = _Counted(path, sum(level.pages * level.page_tiles for level in tiled), on_step, cancelled)
    with _remove_if_incomplete(path) as file, TiffWriter(file, bigtiff=_may_be_big(tiled), ome=True) as tiff:
        for number, level in enumerate(tiled):
            own: dict[str, Any] = {"subfiletype": 1, "software": False, "metadata": None}  # a reduced image
            if number == 0:
                own = {"subifds": len(levels) - 1, "software": CREATOR, "metadata": image.to_tifffile()}
            with closing(tiles.of(level)) as stream:
                tiff.write(stream, shape=level.shape, **options, **own, **image.resolution(levels[number].shape))


class _Counted:
    """The tiles of one level after the other, counted and stopped on request."""

    def __init__(
        self,
        path: Path,
        total: int,
        on_step: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._path, self._total, self._done = path, total, 0
        self._on_step, self._cancelled = on_step, cancelled

    def of(self, level: TiledLevel) -> Generator[Pixels, None, None]:
        with closing(level.blocks()) as blocks:
            for block in blocks:
                if self._cancelled is not None and self._cancelled():
                    raise Cancelled(f"{self._path}: stopped before the image was complete")
                yield from block[:-1]
                self._done += len(block)
                if self._on_step is not None:
                    self._on_step(self._done, self._total)
                yield block[-1]  # nobody asks for more after the very last one


def _check_levels(levels: Sequence[ArrayLike]) -> None:
    first = levels[0]
    for number, level in enumerate(levels):
        if level.dtype != first.dtype or tuple(level.shape[:-2]) != tuple(first.shape[:-2]):
            raise ValueError(
                f"level {number} is {tuple(level.shape)} {level.dtype}: all levels have one type, and differ in y and "
                f"x alone from {tuple(first.shape)} {first.dtype}"
            )


def _may_be_big(levels: Sequence[TiledLevel]) -> bool:
    sizes = (level.pages * (_PAGE_BYTES + level.page_tiles * (level.tile_bytes + _TILE_BYTES)) for level in levels)
    return sum(sizes) > CLASSIC_BYTES


@contextmanager
def _remove_if_incomplete(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is whole and on the disk at the end, or removed; say what the operating system refuses."""
    try:
        # tifffile would close a file of its own without a word if the last bytes do not fit
        with path.open("w+b") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
    except MGBPv2Error:
        raise
    except OSError as error:
        raise DestinationError(f"{path}: {explain_write_error(error)}") from error
