"""Conversion of TIFF pixels to common colours: low values are black, and colours are RGB."""

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

# Kinds of TIFF whose palette holds the colours. Microscopes write grey images with a palette for display only.
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
    """Return pixels with black below white, and palette colours as RGB along a new last axis.

    Parameters
    ----------
    pixels
        Pixels of the file.
    image
        Series of the pixels, whose tags define their meaning.
    reopen
        A module-level function and its arguments that build the returned array again.

    Raises
    ------
    SourceError
        The colour space is not supported.
    """
    page = image.keyframe
    if page.photometric in _REFUSED:
        raise SourceError(f"{pixels.path}: its colours are {_REFUSED[page.photometric]}; save it as RGB.")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _RGB_CODECS:
        raise SourceError(f"{pixels.path}: its colours are YCbCr without JPEG; save it as RGB.")
    if page.bitspersample == 1 and image.kind in ("generic", "uniform") and page.photometric in _GREYS:
        black = int(
            page.photometric == PHOTOMETRIC.MINISWHITE
        )  # bilevel scans are inverted; boolean arrays are unchanged
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
    """Convert premultiplied to straight alpha."""
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
    """Pixels with a conversion that needs all samples of a pixel.

    Parameters
    ----------
    pixels
        Pixels of the file.
    convert
        Function from stored pixels to converted pixels of the same shape.
    reopen
        A module-level function and its arguments that build the same array again.
    axis
        Index of the axis of the samples.
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
    """Return a palette of 8 bits, shape (colours, 3). Of the 16 bits in TIFF, some writers fill only 8."""
    return (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8).T
