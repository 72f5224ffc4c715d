"""The preview: a picture of the middle of the result, bicubic upscaling on the left and the network on the right."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.addresses import Destination, absolute_path, escape_undecodable, url_name
from napari_mgbpv2.conversion import ConversionPlan
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES, opaque_value
from napari_mgbpv2.io.readers import ArrayLike, open_source
from napari_mgbpv2.io.readers.discovery import IMAGE_SUFFIXES
from napari_mgbpv2.io.results import MARKER, is_result
from napari_mgbpv2.paths import explain_write_error, write_atomically
from napari_mgbpv2.tiling.grid import Span

SIDE = 512  # pixels of the result that are shown
_STRETCH = (0.5, 99.5)  # percentiles of the source shown as black and white where its type has more than 8 bits


def check_free(path: Path, destination: Destination, *, may_replace: bool = False) -> None:
    """Refuse a path at which no preview can be written, before hours of work.

    Parameters
    ----------
    path
        Of the preview.
    destination
        Of the result.
    may_replace
        Whether an earlier preview may be replaced; nothing else ever is.

    Raises
    ------
    DestinationError
        Something else is there, its folder is missing or may not be written to, its ending is another format's, or it
        is the destination or would lie within it.
    """
    whole = path.absolute()
    if path.suffix.lower() != ".png" and path.suffix.lower() in IMAGE_SUFFIXES:
        raise DestinationError(f"{path}: a preview is a PNG; end its name in .png")
    if isinstance(destination, Path) and absolute_path(destination) in (whole, *whole.parents):
        raise DestinationError(f"{path}: is, or lies within, the destination {destination}; choose another name")
    if os.path.lexists(path) and not (may_replace and path.is_file() and is_result(str(path))):
        raise DestinationError(f"{path} exists already: choose another name for the preview")
    if not whole.parent.is_dir():
        raise DestinationError(f"{path}: there is no folder {whole.parent}")
    if not os.access(whole.parent, os.W_OK):
        raise DestinationError(f"{path}: the folder {whole.parent} may not be written to; choose another")


def write_preview(prepared: ConversionPlan, destination: Destination, path: Path) -> Path:
    """Write the picture: the middle plane, the middle pixels, at the resolution of the result.

    Parameters
    ----------
    prepared
        The finished conversion.
    destination
        Its OME-Zarr.
    path
        The PNG to write.

    Returns
    -------
    Path
        The PNG, absolute.

    Raises
    ------
    DestinationError
        It cannot be written; what was there before is still there.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    scale, source = prepared.plan.scale, prepared.source
    result = open_source(destination, axes=_stored_axes(prepared) if prepared.job.format == "zarr" else None)
    sizes = dict(zip(source.axes, source.data.shape, strict=True))
    rows, columns = (_middle(sizes[axis], SIDE // scale) for axis in "yx")
    before = _pixels(source.data, source.axes, rows, columns)
    larger = (Span(span.start * scale, span.stop * scale) for span in (rows, columns))
    after = _pixels(result.data, result.axes, *larger)
    low, high = _shown_range(before)
    left = _enlarged(_stretched(before, low, high), *after.shape[:2])
    picture = np.concatenate([np.rint(each).astype(np.uint8) for each in (left, _stretched(after, low, high))], axis=1)
    name = destination.name if isinstance(destination, Path) else url_name(destination)
    made, content = PngInfo(), io.BytesIO()
    made.add_text(MARKER, f"preview of {escape_undecodable(name)}")  # by which it is known again
    Image.fromarray(picture).save(content, format="PNG", pnginfo=made, icc_profile=source.icc_profile)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise DestinationError(f"{path}: {explain_write_error(error)}") from error
    return path.absolute()


def _stored_axes(prepared: ConversionPlan) -> str:
    """Axes of the result, whose samples a plain Zarr array calls channels."""
    axes = prepared.layout.axes
    return axes.replace("c", "s") if "s" in prepared.plan.axes else axes


def _middle(size: int, wanted: int) -> Span:
    start = max(0, (size - wanted) // 2)
    return Span(start, min(size, start + wanted))


def _pixels(data: ArrayLike, axes: str, rows: Span, columns: Span) -> npt.NDArray[Any]:
    """Read (height, width) or (height, width, samples) pixels of the middle plane and the first channel."""
    window, order = [], []
    for axis, size in zip(axes, data.shape, strict=True):
        if axis in "yx":
            window.append(slice(*(rows if axis == "y" else columns)))
        elif axis == "s":
            window.append(slice(0, size if size <= 4 else 1))
        else:
            first = 0 if axis == "c" else size // 2
            window.append(slice(first, first + 1))
    order = [axes.index(axis) for axis in "yxs" if axis in axes]
    order += [number for number in range(len(axes)) if number not in order]
    pixels = np.asarray(data[tuple(window)]).transpose(order)
    samples = pixels.shape[2] if "s" in axes else 1
    return (
        pixels.reshape(*pixels.shape[:2], samples).squeeze(2)
        if samples == 1
        else pixels.reshape(*pixels.shape[:2], samples)
    )


def _shown_range(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    if _has_alpha(pixels):
        pixels = pixels[..., :-1][pixels[..., -1] > 0]
    finite = pixels[np.isfinite(pixels)].astype(np.float64)
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, _STRETCH)
    return float(low), float(max(high, np.nextafter(low, np.inf)))


def _stretched(pixels: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float64]:
    """Map pixels from low..high to 0..255, clipped and not rounded; alpha from its own range."""
    scaled = (np.nan_to_num(pixels.astype(np.float64)) - low) / (high - low) * 255
    if _has_alpha(pixels):
        scaled[..., -1] = np.nan_to_num(pixels[..., -1].astype(np.float64)) / opaque_value(pixels.dtype) * 255
    return np.clip(scaled, 0, 255)


def _enlarged(pixels: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Enlarge values of 0 to 255 bicubically; the colour of a pixel counts by its alpha."""
    from napari_mgbpv2.imaging.resampling import bicubic_resize_array  # needs torch, which checking a path does not

    if not _has_alpha(pixels):
        larger: npt.NDArray[np.float64] = bicubic_resize_array(pixels, height, width)
        return np.clip(larger, 0, 255)
    alpha = pixels[..., -1:]
    weighted = bicubic_resize_array(np.concatenate([pixels[..., :-1] * alpha, alpha], axis=2), height, width)
    # Where nothing is visible, colours are 0 / 0; any colour does there.
    colours = weighted[..., :-1] / np.maximum(weighted[..., -1:], 1e-6)
    enlarged: npt.NDArray[np.float64] = np.concatenate([colours, weighted[..., -1:]], axis=2)
    return np.clip(enlarged, 0, 255)


def _has_alpha(pixels: npt.NDArray[Any]) -> bool:
    return pixels.ndim == 3 and pixels.shape[2] in ALPHA_SAMPLES
