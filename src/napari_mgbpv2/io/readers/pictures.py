"""Pictures: PNG, JPEG and others that Pillow opens. They have no windows: the first access decodes them whole."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.io.colour_profiles import fitting_profile
from napari_mgbpv2.io.decoded import DecodedArray
from napari_mgbpv2.io.image import (
    ImageSource,
    Pixels,
    UnknownFormat,
    UnsupportedPicture,
    check_single_image,
    pick,
    source_without_metadata,
)
from napari_mgbpv2.io.readers.picture_headers import (
    avif_depth,
    check_ratio,
    check_scans,
    jpeg2000_header,
    pnm_header,
    read_pnm,
    spread_to_16_bits,
    trailing_exif,
)
from napari_mgbpv2.io.units import is_screen_resolution

# Those of Pillow's formats whose pixels are read as they are meant. None starts another program, as EPS does.
FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF", "PPM", "ICO", "ICNS", "PSD", "QOI", "SGI", "DDS", "PCX",
    "SUN", "IM", "XBM", "XPM", "MSP", "FLI", "DIB", "TGA", "SPIDER",
)  # fmt: skip
# Pillow mode of the file -> mode that it is read in, dtype, samples. Colours become RGB, masks and palettes too.
_MODES: dict[str, tuple[str, str, int]] = {
    "1": ("L", "u1", 1), "L": ("L", "u1", 1), "LA": ("LA", "u1", 2), "La": ("LA", "u1", 2),
    "P": ("RGB", "u1", 3), "PA": ("RGBA", "u1", 4),
    "RGB": ("RGB", "u1", 3), "RGBA": ("RGBA", "u1", 4), "RGBX": ("RGB", "u1", 3), "RGBa": ("RGBA", "u1", 4),
    "YCbCr": ("RGB", "u1", 3),
    "I;16": ("I;16", "u2", 1), "I;16L": ("I;16L", "u2", 1), "I;16B": ("I;16B", "u2", 1),
    "I": ("I", "i4", 1), "F": ("F", "f4", 1),
}  # fmt: skip
# With a transparent colour.
_TRANSPARENT_MODES = {"1": ("LA", "u1", 2), "L": ("LA", "u1", 2), "P": ("RGBA", "u1", 4), "RGB": ("RGBA", "u1", 4)}
_REFUSED_COLOURS = {"CMYK": "CMYK", "LAB": "CIELAB", "HSV": "HSV"}
# Pillow would cut these PNGs to 8 bits; imagecodecs reads all 16.
_DEEP_PNG_SAMPLES = {"RGB;16B": 3, "LA;16B": 2, "RGBA;16B": 4}
_SAMPLES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
# Bytes of a pixel as Pillow has it in memory; it takes 4 for all modes with several samples.
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}
_WORKING_BYTES = 8 * 2**20  # for the tables and lines of decoders, whatever the size
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")  # their further frames are of the same size
# EXIF orientation -> swap rows and columns, then flip rows, then flip columns.
_ORIENTATIONS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
_EXIF_ORIENTATION = 0x0112
_MEASURED = ("PNG", "JPEG", "MPO", "BMP")  # writers of others fill in a resolution
_MICROMETERS_PER_INCH = 25400.0


def open_picture(path: str, series: int, level: int) -> ImageSource:
    """Open a picture from its header; EXIF orientation is honoured, so "y" points down in the picture as seen.

    The frames of an animation are its series.

    Raises
    ------
    UnknownFormat
        It is none of the formats that are read.
    SourceError
        It is damaged, has no such series or level, or has pixels that could only be read as others than they are.
    """
    data = PictureArray(path, series)
    check_single_image(path, data.format, 0, level)
    source = source_without_metadata(
        data, "yx" + ("" if data.ndim == 2 else "s" if data.is_colour else "c"), path, data.kind
    )
    return replace(
        source,
        pixel_size=source.pixel_size | data.pixel_size,
        units=source.units | dict.fromkeys(data.pixel_size, "micrometer"),
        icc_profile=data.icc_profile,
    )


def image_pixels(image: Image.Image) -> tuple[Pixels, str]:
    """Return the pixels of an open Pillow image, as those of its file are read, and their axes.

    Palettes become colours, and transparent colours alpha. The image is not turned by its EXIF orientation:
    `PIL.ImageOps.exif_transpose` does that.

    Raises
    ------
    ImageError
        Its colours are not read (CMYK, CIELAB, HSV), or it is damaged or closed.
    """
    mode = image.mode
    if mode in _REFUSED_COLOURS:
        raise ImageError(
            f"the Pillow image has {_REFUSED_COLOURS[mode]} colours; convert it to RGB by its colour profile first, "
            "with PIL.ImageCms.profileToProfile."
        )
    modes = _MODES | _TRANSPARENT_MODES if "transparency" in image.info else _MODES
    if mode not in modes:
        raise ImageError(f"the Pillow image has the mode {mode}, which is not read; convert it to RGB or L.")
    wanted, _, samples = modes[mode]
    try:
        pixels = np.asarray(image if mode == wanted else image.convert(wanted))
    except Exception as error:  # each of Pillow's formats has its own
        raise ImageError(f"the Pillow image cannot be read ({error}); open it again.") from error
    return pixels, "yx" if samples == 1 else "yxs"


class PictureArray(DecodedArray):
    """A picture, upright, decoded at the first access and kept.

    Parameters
    ----------
    path
        A file that Pillow opens.
    frame
        Which frame of an animation.

    Attributes
    ----------
    format
        Pillow's name of the format.
    kind
        The same for people, with what is not taken of the file.
    is_colour
        Whether its samples are those of a colour, or bands.
    pixel_size
        In micrometres, for y and x; empty where the file does not say it.
    icc_profile
        Of its colours, or None.
    """

    def __init__(self, path: str, frame: int = 0) -> None:
        with _header(path) as image:
            self.format = str(image.format)
            width, height = image.size
            self._swap, self._flip_y, self._flip_x = _ORIENTATIONS.get(_orientation(path, image), (False,) * 3)
            self._frame, self.kind = frame, self._kind(path, image, frame)
            self.is_colour = True
            self._decoder, self._mode = "pillow", ""
            dtype, samples = self._choose(path, image)
            modes = {image.mode, self._mode or image.mode}  # that of the file, and the one that it is converted to
            self._stored_bytes = width * height * sum(_STORED_BYTES.get(mode, 4) for mode in modes)
            self._is_text = self._decoder == "pnm" and (header := pnm_header(path)) is not None and header.plain
            self._progressive = bool(image.info.get("progressive")) and self.format in ("JPEG", "MPO")
            resolution = image.info.get("dpi") if self.format in _MEASURED else None
            profile = image.info.get("icc_profile")
        self.icc_profile = fitting_profile(profile, samples) if self.is_colour else None
        self.pixel_size = self._pixel_size(resolution)
        size = (width, height) if self._swap else (height, width)
        super().__init__(path, size + (samples,) * (samples > 1), dtype, reopen=(PictureArray, (path, frame)))
        check_ratio(path, math.prod(self.shape) * self.dtype.itemsize)

    def _kind(self, path: str, image: Image.Image, frame: int) -> str:
        """Return the format, and which of several frames or pictures this is; raises `SourceError` for no such one."""
        if self.format in _ANIMATED:
            if frame:
                count = int(getattr(image, "n_frames", 1))
                pick(path, self.format, "series", range(count), frame)
                return f"{self.format}, frame {frame} (of 0 to {count - 1})"
            if getattr(image, "is_animated", False):
                return f"{self.format}, frame 0 of an animation: series picks another"
            return self.format
        check_single_image(path, self.format, frame, 0)
        if self.format == "MPO":
            return f"JPEG, the first of {getattr(image, 'n_frames', 1)} pictures in it"
        sizes = image.info.get("sizes", ())
        if self.format in ("ICO", "ICNS") and len(sizes) > 1:
            return f"{self.format}, the largest of {len(sizes)} pictures in it"
        return f"{self.format}, all layers together" if getattr(image, "n_frames", 1) > 1 else self.format

    def _choose(self, path: str, image: Image.Image) -> tuple[str, int]:
        """Choose what decodes it, and return dtype and samples; raises `SourceError` for what would be flattened."""
        mode, transparent = image.mode, "transparency" in image.info
        if mode in _REFUSED_COLOURS:
            raise UnsupportedPicture(
                f"{path}: its colours are {_REFUSED_COLOURS[mode]}; convert it to RGB by its colour profile first, "
                "in an image editor, or with ImageMagick: magick in.jpg -profile sRGB.icc out.png"
            )
        if self._frame:
            self._mode = "RGBA"
            if self.format == "PNG" and _raw_mode(image) in (*_DEEP_PNG_SAMPLES, "I;16B"):
                raise _flattened(path, self.format)
            return "u1", 4
        if self.format == "PNG" and (_raw_mode(image) in _DEEP_PNG_SAMPLES or (transparent and mode != "P")):
            self._decoder = "png"
            deep = _raw_mode(image) in _DEEP_PNG_SAMPLES or mode == "I;16"
            samples = _DEEP_PNG_SAMPLES.get(_raw_mode(image), _SAMPLES.get(mode, 1))
            return "u2" if deep else "u1", samples + (transparent and samples in (1, 3))
        if self.format == "PPM" and (pnm := pnm_header(path)) and pnm.white > 255:
            self._decoder = "pnm"
            return "u2", pnm.samples
        if self.format == "JPEG2000" and (found := jpeg2000_header(path)) is not None:
            self.is_colour = len(found.depths) in (1, 3) or found.has_alpha
            if max(found.depths) > 8 or found.signed:
                if not found.alike or max(found.depths) > 16:
                    raise _flattened(path, self.format)
                self._decoder = "jpeg2000"
                bits = 8 if max(found.depths) <= 8 else 16
                return f"{'i' if found.signed else 'u'}{bits // 8}", len(found.depths)
        if self.format == "AVIF" and avif_depth(path) > 8:
            self._decoder = "avif"
            return "u2", _SAMPLES[mode]
        if self.format in ("SGI", "DDS") and _is_deep(path, image):
            raise _flattened(path, self.format)
        if transparent and mode in _TRANSPARENT_MODES:
            self._mode, dtype, samples = _TRANSPARENT_MODES[mode]
        elif mode in _MODES:
            self._mode, dtype, samples = _MODES[mode]
        else:
            raise SourceError(f"{path}: {self.format} of mode {mode} is not read; save it as RGB or grey.")
        return dtype, samples

    def _pixel_size(self, resolution: Any) -> dict[str, float]:
        """Return the size of a pixel by dots per inch of x and y, unless they are what programs fill in."""
        try:
            across, down = (float(each) for each in resolution)
        except (TypeError, ValueError, ZeroDivisionError, ArithmeticError):
            return {}
        sizes = {
            axis: _MICROMETERS_PER_INCH / dots
            for axis, dots in (("x", across), ("y", down))
            if math.isfinite(dots) and not is_screen_resolution(dots)
        }
        return {{"x": "y", "y": "x"}[axis]: size for axis, size in sizes.items()} if self._swap else sizes

    @property
    def decoding_bytes(self) -> int:
        """Bytes at the peak: the file where it is read whole, buffers of its decoder, all forms of the pixels."""
        pixels, count = self.retained_bytes, math.prod(self.shape)
        encoded = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        if self._decoder == "pillow":
            canvas = 4 * self.shape[0] * self.shape[1]
            extra = {
                "WEBP": encoded + 2 * canvas,  # two, as an animation needs them
                "AVIF": 2 * encoded + 2 * canvas,
                "JPEG2000": 2 * encoded + 4 * count,
            }.get(self.format, 0)
            if self._progressive:  # libjpeg holds all coefficients, of 16 bits
                extra = 2 * count
            if self._frame:  # it, the one before, and both together
                extra += 3 * canvas
            peak = self._stored_bytes + extra + 2 * pixels  # as bytes in parts, and in one
        else:
            working = {"jpeg2000": encoded + 4 * count, "avif": encoded + 2 * pixels, "pnm": 12 * count * self._is_text}
            peak = encoded + pixels + working.get(self._decoder, 0)
        return max(peak, 2 * pixels) + _WORKING_BYTES

    def _decode(self) -> Pixels:
        if self._progressive:
            check_scans(self.path)
        try:
            pixels = {
                "pillow": self._decode_with_pillow,
                "png": self._decode_png,
                "pnm": self._decode_pnm,
                "jpeg2000": self._decode_jpeg2000,
                "avif": self._decode_avif,
            }[self._decoder]()
        except Exception as error:  # each of Pillow's formats has its own
            raise SourceError(
                f"{self.path}: this {self.format} is damaged or cut short ({error}); copy or download it again."
            ) from error
        pixels = pixels.swapaxes(0, 1) if self._swap else pixels
        pixels = pixels[::-1] if self._flip_y else pixels
        pixels = pixels[:, ::-1] if self._flip_x else pixels
        if pixels.shape != self.shape or not np.can_cast(pixels.dtype, self.dtype):
            raise SourceError(
                f"{self.path}: decodes to {pixels.shape} {pixels.dtype}, its header says {self.shape} {self.dtype}."
            )
        return np.ascontiguousarray(pixels, dtype=self.dtype)

    def _decode_with_pillow(self) -> Pixels:
        with _header(self.path) as image:
            if self._frame:
                image.seek(self._frame)
            return np.asarray(image if image.mode == self._mode else image.convert(self._mode))

    def _decode_png(self) -> Pixels:
        from imagecodecs import png_decode

        return np.asarray(png_decode(self._encoded()))  # a transparent colour is given as one more sample

    def _decode_pnm(self) -> Pixels:
        header = pnm_header(self.path)
        assert header is not None
        return read_pnm(self.path, header)

    def _decode_jpeg2000(self) -> Pixels:
        from imagecodecs import jpeg2k_decode

        return np.asarray(jpeg2k_decode(self._encoded()))

    def _decode_avif(self) -> Pixels:
        from imagecodecs import avif_decode

        return spread_to_16_bits(np.asarray(avif_decode(self._encoded())), 2 ** avif_depth(self.path) - 1)

    def _encoded(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()


def _flattened(path: str, name: str) -> UnsupportedPicture:
    return UnsupportedPicture(
        f"{path}: this {name} has more than 8 bits a sample, of which only 8 could be read; save it as TIFF or PNG."
    )


def _is_deep(path: str, image: Image.Image) -> bool:
    if image.format == "DDS":
        return "BC6H" in str(getattr(image, "pixel_format", "")) or "BC6H" in str(getattr(image, "tile", ""))
    with open(path, "rb") as file:
        return file.read(4)[3:] == b"\2"  # bytes of a sample of an SGI image


@contextmanager
def _header(path: str) -> Iterator[Image.Image]:
    """Open a picture without decoding it."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the file.") from error
    with file:
        try:
            image = _open(file, path)
        except Image.DecompressionBombError as error:  # some plugins ask for the limit themselves
            raise UnsupportedPicture(
                f"{path}: has more pixels than can be read of its format; save it as TIFF."
            ) from error
        except Exception as error:  # a damaged header fails in as many ways as there are formats
            raise SourceError(
                f"{path}: the picture's header is damaged ({error}); copy or download it again."
            ) from error
        if image is None:
            raise UnknownFormat(
                f"{path}: the content is no image of a known format; give a TIFF, OME-Zarr, Zarr, .npy, PNG or JPEG, "
                "or install napari-mgbpv2[bioio] and a reader of its format, such as bioio-czi."
            )
        with image:
            yield image


def _open(file: BinaryIO, path: str) -> Image.Image | None:
    """Open a picture as `PIL.Image.open` does one of `FORMATS`, but of any size; None if it is none of them.

    Pillow refuses pictures above some 180 megapixels by a global limit, lest they be bombs. Users choose their own
    large files here, and bombs are told by other signs.
    """
    Image.init()
    prefix = file.read(16)
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept(prefix) if accept else True
        if not accepted or isinstance(accepted, str):  # a text says what this build of Pillow lacks
            continue
        file.seek(0)
        try:
            image: Image.Image = factory(file, path)
        except (SyntaxError, IndexError, TypeError, struct.error):  # which is how its plugins say no
            continue
        return image
    return None


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    return str(tiles[0][3]) if tiles else ""


def _orientation(path: str, image: Image.Image) -> int:
    try:
        # PNG's own method would decode the pixels to look for EXIF behind them
        if image.format == "PNG" and "exif" not in image.info and (behind := trailing_exif(path)):
            image.info["exif"] = behind
        return int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF is common and spoils no pixel
        return 1
