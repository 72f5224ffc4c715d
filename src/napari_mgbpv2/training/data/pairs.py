"""Samples from real pairs: photographs, scans or exposures of the same thing at two resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.resampling import upscale_window
from napari_mgbpv2.io.readers import ImageSource
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.channel_planes import reason_of, source_size, standard_axes
from napari_mgbpv2.training.data.decoding import ImageFiles
from napari_mgbpv2.training.data.degradation import Pair, reach, taps_of
from napari_mgbpv2.training.data.discovery import Image, Paths, find_images
from napari_mgbpv2.training.data.image_set import (
    Progress,
    Skipped,
    check_usable,
    image_set,
    nothing_left,
    opened,
    path_of,
    warn_of,
)
from napari_mgbpv2.training.data.ranges import as_range
from napari_mgbpv2.training.data.samples import CropSamples, check_numbers

_SUFFIXES = (".zarr", ".tif", ".tiff", ".ome")  # in this order: .ome stands before .zarr or .tif


class PairedSamples(CropSamples):
    """Pairs from high-resolution images and low-resolution images of equal names.

    Parameters
    ----------
    high, low
        As `find_images` has them; images belong together that have the same file name without suffixes.
    scale
        By which the high-resolution image is larger, exactly.
    patch, seed, channels, augment, hold_out, progress
        As `ImageSamples` has them.
    value_range
        Values of black and white of both; by default as `ImageSamples` finds them for the high-resolution images.

    Attributes
    ----------
    skipped : list of (str, str)
        Paths of images that cannot be used, and why: damaged, too small, or without a partner.

    Raises
    ------
    SourceError
        A path does not exist, or there is nothing.
    ImageError
        Two images of one pair do not fit each other, two images have the same name, or no pair can be used.
    """

    def __init__(
        self,
        high: Paths,
        low: Paths,
        scale: int,
        patch: int,
        seed: int,
        *,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        augment: bool = True,
        hold_out: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        check_numbers(scale, patch, seed)
        found, found_low = find_images(high), find_images(low)
        pairs, alone = _matched(_by_stem(found.images), _by_stem(found_low.images))
        skipped = [*found.skipped, *found_low.skipped, *alone]
        files, window = ImageFiles(), patch + 2 * reach(scale)
        sharp_sources: list[ImageSource] = []
        coarse_sources: list[ImageSource] = []
        for number, (sharp_image, coarse_image) in enumerate(pairs):
            if progress is not None:
                progress(number, len(pairs))
            try:
                sharp, coarse = opened(sharp_image), opened(coarse_image)
                check_usable(sharp, scale, channels, patch)
                _check_match(sharp, coarse, scale)
                both = files.readable(sharp, window), files.readable(coarse, window)
            except _Mismatch:
                raise
            except (SourceError, ImageError) as error:
                skipped.append((path_of(sharp_image), reason_of(error, path_of(sharp_image))))
            else:
                sharp_sources.append(both[0])
                coarse_sources.append(both[1])
        if progress is not None:
            progress(len(pairs), len(pairs))
        if not sharp_sources:
            raise nothing_left(skipped)
        warn_of(skipped, len(sharp_sources), [*found.others, *found_low.others])
        given, common = as_range(value_range) or found.given_range, found.common_range
        images = image_set(sharp_sources, scale, channels, given, common, files)
        self._coarse = image_set(coarse_sources, 1, channels, given, images.common_range, files)
        super().__init__(images, skipped, scale, patch, seed, augment=augment, hold_out=hold_out)

    def pair(self, image: int, plane: int, rows: Span, columns: Span, *, blur: float = 0.0) -> Pair:
        """Return input and target of a crop of a plane of an image, (channels, rows, columns) each."""
        assert not blur, "real pairs are not blurred"
        height, width = self._coarse.planes[image].size
        row_taps, column_taps = taps_of(rows, self.scale, height), taps_of(columns, self.scale, width)
        coarse = self._coarse.planes[image].read(self._coarse.data[image], plane, row_taps.window, column_taps.window)
        sharp = self.images.planes[image].read(self.images.data[image], plane, slice(*rows), slice(*columns))
        return upscale_window(coarse, row_taps, column_taps), sharp


def _by_stem(images: Sequence[Image]) -> dict[str, Image]:
    named: dict[str, Image] = {}
    for image in images:
        stem = _stem(path_of(image))
        if stem in named:
            raise ImageError(f"{path_of(named[stem])} and {path_of(image)} have the same name; rename one of them.")
        named[stem] = image
    return named


def _stem(path: str) -> str:
    name = Path(path).stem
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _matched(high: dict[str, Image], low: dict[str, Image]) -> tuple[list[tuple[Image, Image]], list[Skipped]]:
    """Return the images that belong together, in the order of the high-resolution ones, and those without partner."""
    pairs = [(image, low[stem]) for stem, image in high.items() if stem in low]
    kinds = (("low", high, low), ("high", low, high))
    alone = [
        (path_of(image), f"no {kind}-resolution image is named {stem}")
        for kind, ours, theirs in kinds
        for stem, image in ours.items()
        if stem not in theirs
    ]
    return pairs, alone


class _Mismatch(ImageError):
    """Two images of a pair do not fit: no damaged file to leave out, but a mistake to be told of."""


def _check_match(sharp: ImageSource, coarse: ImageSource, scale: int) -> None:
    """Raise `_Mismatch` unless two images are one picture at two resolutions."""
    height, width = source_size(coarse)
    if source_size(sharp) != (height * scale, width * scale):
        tall, wide = source_size(sharp)
        raise _Mismatch(
            f"{sharp.path} has {tall} x {wide} px and {coarse.path} has {height} x {width}, "
            f"which is not exactly {scale} times less; crop or resample one of them."
        )
    if _beside(sharp) != _beside(coarse):
        raise _Mismatch(
            f"{sharp.path} has {_beside(sharp)} beside y and x, {coarse.path} has {_beside(coarse)}; make them alike."
        )


def _beside(source: ImageSource) -> dict[str, int]:
    """Return the length of each axis but y and x."""
    sizes = dict(zip(source.axes, source.data.shape, strict=True))
    return {axis: sizes[axis] for axis in standard_axes(source.axes)[0] if axis not in "yx" and sizes[axis] > 1}
