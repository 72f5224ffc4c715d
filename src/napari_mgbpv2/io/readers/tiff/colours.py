"""What the numbers of a TIFF mean as light: black is low, and colours are red, green and blue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, TiffPage

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.converted import ConvertedArray
from napari_mgbpv2.io.image import FileArray, Pixels, Reopen, Window
from napari_mgbpv2.io.readers.tiff.series import PageSeries

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
_GREYS = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
# Their decoders give RGB.
_RGB_CODECS = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG_2000_LOSSY, COMPRESSION.APERIO_JP2000_YCBC)


def in_usual_colours(pixels: FileArray, image: PageSeries, reopen: Reopen) -> FileArray:
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
    if page.bitspersample == 1 and image.kind in ("generic", "uniform") and page.photometric in _GREYS:
        black = int(page.photometric == PHOTOMETRIC.MINISWHITE)  # a scan; arrays of True and False stay as they are
        return ConvertedArray(pixels, lambda bits: np.where(bits != black, 255, 0).astype(np.uint8), np.uint8, reopen)
    bits: Any = page.bitspersample  # a tuple if samples differ
    if bits in range(2, 8) and pixels.dtype == np.uint8 and page.photometric in (*_GREYS, PHOTOMETRIC.RGB):
        levels = np.rint(np.arange(256) * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8)
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            levels = 255 - levels
        return ConvertedArray(pixels, lambda values: levels[values], np.uint8, reopen)
    if page.photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        white = pixels.dtype.type(2**page.bitspersample - 1)
        return ConvertedArray(pixels, lambda values: white ^ values, pixels.dtype, reopen)
    if page.photometric == PHOTOMETRIC.PALETTE and image.kind in _COLOURED_KINDS:
        if page.colormap is None or pixels.dtype.kind != "u":
            raise SourceError(f"{pixels.path}: its colours are a palette that is damaged; export it again as RGB.")
        if page.samplesperpixel > 1:
            raise SourceError(f"{pixels.path}: its colours are a palette with alpha or more; save it as RGBA.")
        palette = _of_8_bits(page.colormap)
        return ConvertedArray(pixels, lambda values: palette[values], palette.dtype, reopen, palette.shape[1])
    if samples_are_colours(page) and page.extrasamples == (EXTRASAMPLE.ASSOCALPHA,):
        axis = image.axes.index("S")
        return WholeSamples(pixels, axis, lambda values: _straight(values, axis), reopen)
    return pixels


def samples_are_colours(page: TiffPage) -> bool:
    """Return whether the samples of a pixel are one colour: grey, RGB, and alpha where the file calls one so.

    All other samples are bands of their own, such as near infrared.
    """
    alpha = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
    colours = 1 if page.photometric in _GREYS else 3
    extra = page.samplesperpixel - colours
    return extra == 0 or (extra == 1 and len(page.extrasamples) == 1 and page.extrasamples[0] in alpha)


def _straight(values: Pixels, axis: int) -> Pixels:
    """Return colours that have been multiplied with alpha as they were before."""
    samples = np.moveaxis(values, axis, -1)
    most = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1.0
    alpha = samples[..., -1:].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        colours = np.where(alpha > 0, samples[..., :-1] * (most / alpha), 0)
    if values.dtype.kind in "ui":
        colours = np.rint(colours).clip(0, most)
    straight = np.concatenate([colours.astype(values.dtype), samples[..., -1:]], -1)
    return np.moveaxis(straight, -1, axis)


class WholeSamples(ConvertedArray):
    """Pixels that are converted with all of their samples.

    Parameters
    ----------
    pixels, convert, reopen
        As `ConvertedArray` has them.
    axis
        Of the samples.
    """

    def __init__(self, pixels: FileArray, axis: int, convert: Callable[[Pixels], Pixels], reopen: Reopen) -> None:
        super().__init__(pixels, convert, pixels.dtype, reopen)
        self._axis = axis

    def _read(self, window: Window) -> Pixels:
        whole = list(window)
        whole[self._axis] = slice(0, self.shape[self._axis])
        chosen = [slice(None)] * self.ndim
        chosen[self._axis] = window[self._axis]
        return np.ascontiguousarray(super()._read(tuple(whole))[tuple(chosen)])


def _of_8_bits(colormap: Pixels) -> npt.NDArray[np.uint8]:
    """Return a palette as (colours, 3); TIFF has 16 bits for each, of which some writers fill the lower or upper 8."""
    return (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8).T
