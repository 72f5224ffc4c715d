"""Pictures: PNG, JPEG and whatever else Pillow opens. They have no windows: the first access decodes them whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.decoded import DecodedArray
from napari_mgbpv2.sources.image import ImageSource, Pixels, UnknownFormat, bare_source, only_image

# Pillow mode of the file -> mode that it is read in, dtype, samples. Colours become RGB, masks and palettes too.
_MODES: dict[str, tuple[str, str, int]] = {
    "1": ("L", "u1", 1), "L": ("L", "u1", 1), "LA": ("LA", "u1", 2), "La": ("LA", "u1", 2),
    "P": ("RGB", "u1", 3), "PA": ("RGBA", "u1", 4),
    "RGB": ("RGB", "u1", 3), "RGBA": ("RGBA", "u1", 4), "RGBX": ("RGB", "u1", 3), "RGBa": ("RGBA", "u1", 4),
    "CMYK": ("RGB", "u1", 3), "YCbCr": ("RGB", "u1", 3), "LAB": ("RGB", "u1", 3), "HSV": ("RGB", "u1", 3),
    "I;16": ("I;16", "u2", 1), "I;16L": ("I;16L", "u2", 1), "I;16B": ("I;16B", "u2", 1),
    "I": ("I", "i4", 1), "F": ("F", "f4", 1),
}  # fmt: skip
# Pillow would cut these PNGs to 8 bits; imagecodecs reads all 16.
_DEEP_PNG_SAMPLES = {"RGB;16B": 3, "LA;16B": 2, "RGBA;16B": 4}
# EXIF orientation -> swap rows and columns, then flip rows, then flip columns.
_ORIENTATIONS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
_EXIF_ORIENTATION = 0x0112
_bomb_limit_lock = threading.Lock()


def open_picture(path: str, series: int, level: int) -> ImageSource:
    """Open a picture from its header; EXIF orientation is honoured, so "y" points down in the picture as seen.

    Raises
    ------
    UnknownFormat
        It is none that Pillow reads.
    SourceError
        It is damaged, or has no such series or level.
    """
    data = PictureArray(path)
    only_image(path, data.format, series, level)
    return bare_source(data, "yxs" if data.ndim == 3 else "yx", path, data.format)


class PictureArray(DecodedArray):
    """A picture, upright, decoded at the first access and kept.

    Parameters
    ----------
    path
        A file that Pillow opens.
    """

    def __init__(self, path: str) -> None:
        with _header(path) as image:
            self.format = str(image.format)
            width, height = image.size
            orientation = _orientation(image)
            self._deep_samples = _DEEP_PNG_SAMPLES.get(_raw_mode(image)) if self.format == "PNG" else None
            if self._deep_samples:
                self._mode, dtype, samples = "", "u2", self._deep_samples
            elif image.mode == "P" and "transparency" in image.info:
                self._mode, dtype, samples = "RGBA", "u1", 4
            elif image.mode in _MODES:
                self._mode, dtype, samples = _MODES[image.mode]
            else:
                raise SourceError(f"{path}: {self.format} of mode {image.mode} is not read; save it as RGB or grey.")
        self._swap, self._flip_y, self._flip_x = _ORIENTATIONS.get(orientation, (False, False, False))
        size = (width, height) if self._swap else (height, width)
        super().__init__(path, size + (samples,) * (samples > 1), dtype, reopen=(PictureArray, (path,)))

    def _decode(self) -> Pixels:
        try:
            pixels = self._decode_deep_png() if self._deep_samples else self._decode_with_pillow()
        except Exception as error:  # each of Pillow's formats has its own
            raise SourceError(
                f"{self.path}: this {self.format} is damaged or cut short ({error}); copy or download it again."
            ) from error
        pixels = pixels.swapaxes(0, 1) if self._swap else pixels
        pixels = pixels[::-1] if self._flip_y else pixels
        pixels = pixels[:, ::-1] if self._flip_x else pixels
        if pixels.shape != self.shape:
            raise SourceError(f"{self.path}: decodes to {pixels.shape} where its header says {self.shape}.")
        return np.ascontiguousarray(pixels, dtype=self.dtype)

    def _decode_with_pillow(self) -> Pixels:
        with _header(self.path) as image:
            return np.asarray(image if image.mode == self._mode else image.convert(self._mode))

    def _decode_deep_png(self) -> Pixels:
        from imagecodecs import png_decode

        with open(self.path, "rb") as file:
            pixels = np.asarray(png_decode(file.read()))
        return pixels[..., : self._deep_samples]  # a transparent colour is given as one more sample


@contextmanager
def _header(path: str) -> Iterator[Image.Image]:
    """Open a picture without decoding it."""
    try:
        image = _open_any_size(path)
    except UnidentifiedImageError:
        raise UnknownFormat(
            f"{path}: the content is no image of a known format; give a TIFF, OME-Zarr, Zarr, .npy, PNG or JPEG, "
            "or install napari-mgbpv2[bioio] and a reader of its format, such as bioio-czi."
        ) from None
    except Exception as error:  # a damaged header fails in as many ways as there are formats
        raise SourceError(f"{path}: the picture's header is damaged ({error}); copy or download it again.") from error
    with image:
        if isinstance(image, ImageFile.StubImageFile):  # Pillow knows the name of the format and no more
            raise UnknownFormat(f"{path}: {image.format} is not read; save it as TIFF, OME-Zarr, .npy or PNG.")
        yield image


def _open_any_size(path: str) -> Image.Image:
    # Pillow refuses pictures above some 180 megapixels lest they be bombs; here users choose their own large files.
    with _bomb_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    return str(tiles[0][3]) if tiles else ""


def _orientation(image: Image.Image) -> int:
    # Image.getexif would decode a PNG to look for EXIF behind its pixels.
    raw = image.info.get("exif")
    if not raw:
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        return int(exif.get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF is common and spoils no pixel
        return 1
