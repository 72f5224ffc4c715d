"""What the numbers of a TIFF mean as light: black is low, and colours are red, green and blue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.converted import ConvertedArray
from napari_mgbpv2.sources.image import FileArray, Pixels, Reopen

# Where a palette is the image's colours. Microscopes write grey images with one that only says how to show them.
_COLOURED_KINDS = ("generic", "shaped", "uniform")
_REFUSED: dict[int, str] = {
    PHOTOMETRIC.SEPARATED: "CMYK",
    PHOTOMETRIC.CIELAB: "CIELAB",
    PHOTOMETRIC.ICCLAB: "ICC LAB",
    PHOTOMETRIC.ITULAB: "ITU LAB",
    PHOTOMETRIC.CFA: "those of a camera's sensor",
    PHOTOMETRIC.LOGL: "LogL",
    PHOTOMETRIC.LOGLUV: "LogLuv",
}
# Their decoders give RGB.
_RGB_CODECS = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG_2000_LOSSY, COMPRESSION.APERIO_JP2000_YCBC)


def in_usual_colours(pixels: FileArray, image: tifffile.TiffPageSeries, reopen: Reopen) -> FileArray:
    """Return the pixels of an image with black below white, and colours of a palette as RGB behind all other axes.

    Parameters
    ----------
    pixels
        As they are in the file.
    image
        Says what they mean.
    reopen
        As `FileArray` has it, of what is returned.

    Raises
    ------
    SourceError
        Their colours are of a kind that is not read.
    """
    page = image.keyframe
    if page.photometric in _REFUSED:
        raise SourceError(f"{pixels.path}: its colours are {_REFUSED[page.photometric]}; save it as RGB.")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _RGB_CODECS:
        raise SourceError(f"{pixels.path}: its colours are YCbCr without JPEG; save it as RGB.")
    # True and False stay: tifffile says "0 is white" of every mask that it writes
    if page.photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        white = pixels.dtype.type(2**page.bitspersample - 1)
        return ConvertedArray(pixels, lambda values: white ^ values, pixels.dtype, reopen)
    if page.photometric == PHOTOMETRIC.PALETTE and image.kind in _COLOURED_KINDS:
        if page.colormap is None or pixels.dtype.kind != "u":
            raise SourceError(f"{pixels.path}: its colours are a palette that is damaged; export it again as RGB.")
        palette = _of_8_bits(page.colormap)
        return ConvertedArray(pixels, lambda values: palette[values], palette.dtype, reopen, palette.shape[1])
    return pixels


def _of_8_bits(colormap: Pixels) -> npt.NDArray[np.uint8]:
    """Return a palette as (colours, 3); TIFF has 16 bits for each, of which some writers fill the lower or upper 8."""
    return (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8).T
