"""Cut samples from real pairs: photographs, scans or exposures of the same object at two resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.resampling import upscale_window
from napari_mgbpv2.io.readers import ImageSource
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.channel_planes import error_reason, source_size, standard_axes
from napari_mgbpv2.training.data.decoding import ImageFiles
from napari_mgbpv2.training.data.degradation import Pair, reach, resampling_weights
from napari_mgbpv2.training.data.discovery import Image, Paths, find_images
from napari_mgbpv2.training.data.image_set import (
    Progress,
    Skipped,
    check_usable,
    image_path,
    image_set,
    no_usable_image,
    open_image,
    warn_skipped,
)
from napari_mgbpv2.training.data.ranges import as_range
from napari_mgbpv2.training.data.samples import CropSamples, check_numbers

_SUFFIXES = (".zarr", ".tif", ".tiff", ".ome")  # in this order: .ome stands before .zarr or .tif


class PairedSamples(CropSamples):
    """Pairs from high-resolution images and low-resolution images of equal names.

    Parameters
    ----------
    high, low
        Files, folders, patterns, prepared folders or open images. Two images form a pair if their file names without
        suffixes are equal.
    scale
        Exact ratio of the two resolutions.
    patch
        Height and width of a sample at target resolution, in pixels.
    seed
        The same seed gives the same samples.
    channels
        Number of channels of the network.
    value_range
        Values of black and white of both. By default those of the type for 8 bits and booleans; else 0 and the 99.9th
        percentile of a coarse sample of the high-resolution images.
    augment
        Whether samples are flipped and rotated, 8 ways.
    hold_out
        Share that is held out for validation, from 0 to below 1.
    progress
        Called with the number of pairs opened and of all.

    Attributes
    ----------
    skipped : list of (str, str)
        Paths of images that cannot be used, and why: damaged, too small, or without a partner.

    Raises
    ------
    SourceError
        A path does not exist, or no image is found.
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
        pairs, alone = _match_pairs(_index_by_stem(found.images), _index_by_stem(found_low.images))
        skipped = [*found.skipped, *found_low.skipped, *alone]
        files, window = ImageFiles(), patch + 2 * reach(scale)
        sharp_sources: list[ImageSource] = []
        coarse_sources: list[ImageSource] = []
        for number, (sharp_image, coarse_image) in enumerate(pairs):
            if progress is not None:
                progress(number, len(pairs))
            try:
                sharp, coarse = open_image(sharp_image), open_image(coarse_image)
                check_usable(sharp, scale, channels, patch)
                _check_match(sharp, coarse, scale)
                both = files.with_random_access(sharp, window), files.with_random_access(coarse, window)
            except _Mismatch:
                raise
            except (SourceError, ImageError) as error:
                skipped.append((image_path(sharp_image), error_reason(error, image_path(sharp_image))))
            else:
                sharp_sources.append(both[0])
                coarse_sources.append(both[1])
        if progress is not None:
            progress(len(pairs), len(pairs))
        if not sharp_sources:
            raise no_usable_image(skipped)
        warn_skipped(skipped, len(sharp_sources), [*found.others, *found_low.others])
        given, common = as_range(value_range) or found.given_range, found.common_range
        images = image_set(sharp_sources, scale, channels, given, common, files)
        self._coarse = image_set(coarse_sources, 1, channels, given, images.common_range, files)
        super().__init__(images, skipped, scale, patch, seed, augment=augment, hold_out=hold_out)

    def pair(self, image: int, plane: int, rows: Span, columns: Span, *, blur: float = 0.0) -> Pair:
        """Return input and target of a crop of a plane of an image, (channels, rows, columns) each."""
        assert not blur, "real pairs are not blurred"
        height, width = self._coarse.planes[image].size
        row_weights, column_weights = (
            resampling_weights(rows, self.scale, height),
            resampling_weights(columns, self.scale, width),
        )
        coarse = self._coarse.planes[image].read(
            self._coarse.data[image], plane, row_weights.window, column_weights.window
        )
        sharp = self.images.planes[image].read(self.images.data[image], plane, slice(*rows), slice(*columns))
        return upscale_window(coarse, row_weights, column_weights), sharp


def _index_by_stem(images: Sequence[Image]) -> dict[str, Image]:
    named: dict[str, Image] = {}
    for image in images:
        stem = _stem(image_path(image))
        if stem in named:
            raise ImageError(
                f"{image_path(named[stem])} and {image_path(image)} have the same name; rename one of them."
            )
        named[stem] = image
    return named


def _stem(path: str) -> str:
    name = Path(path).stem
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _match_pairs(high: dict[str, Image], low: dict[str, Image]) -> tuple[list[tuple[Image, Image]], list[Skipped]]:
    """Return the pairs, in the order of the high-resolution images, and the images without a partner."""
    pairs = [(image, low[stem]) for stem, image in high.items() if stem in low]
    kinds = (("low", high, low), ("high", low, high))
    alone = [
        (image_path(image), f"no {kind}-resolution image is named {stem}")
        for kind, ours, theirs in kinds
        for stem, image in ours.items()
        if stem not in theirs
    ]
    return pairs, alone


class _Mismatch(ImageError):
    """Mismatched pair: an error, not a file to skip."""


def _check_match(sharp: ImageSource, coarse: ImageSource, scale: int) -> None:
    """Raise `_Mismatch` unless two images are one picture at two resolutions."""
    height, width = source_size(coarse)
    if source_size(sharp) != (height * scale, width * scale):
        tall, wide = source_size(sharp)
        raise _Mismatch(
            f"{sharp.path} has {tall} x {wide} px and {coarse.path} has {height} x {width}, "
            f"which is not exactly {scale} times less; crop or resample one of them."
        )
    if _other_axes(sharp) != _other_axes(coarse):
        raise _Mismatch(
            f"{sharp.path} has {_other_axes(sharp)} besides y and x, {coarse.path} has {_other_axes(coarse)}; "
            "make them alike."
        )


def _other_axes(source: ImageSource) -> dict[str, int]:
    """Return the length of each axis other than y and x that is longer than 1."""
    sizes = dict(zip(source.axes, source.data.shape, strict=True))
    return {axis: sizes[axis] for axis in standard_axes(source.axes)[0] if axis not in "yx" and sizes[axis] > 1}
