"""Open and check the images of a training set, and map their values to [0, 1].

This module owns the checks, the value maps and the list of skipped images. `discovery` finds the images, `samples` and
`pairs` cut samples from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.alpha import visible_colours
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.io.readers import ArrayLike, ImageSource, open_source
from napari_mgbpv2.training.data.channel_planes import ChannelPlanes, error_reason
from napari_mgbpv2.training.data.decoding import ImageFiles
from napari_mgbpv2.training.data.discovery import FoundImages, Image
from napari_mgbpv2.training.data.ranges import CommonRange, as_range, common_ranges, value_map

Progress = Callable[[int, int], None]
Skipped = tuple[str, str]  # path and reason


@dataclass(frozen=True)
class ImageSet:
    """Opened images of a training set.

    Attributes
    ----------
    planes
        Each image as the network sees it.
    data
        Pixels of each, by the same number.
    given_range, common_range
        Values of black and white that were given for all images; or those of images whose type does not define
        them, per type if there are several types. None if not applicable.
    files
        Owner of the decoded copies that ``data`` reads from for images without random access.
    """

    planes: tuple[ChannelPlanes, ...]
    data: tuple[ArrayLike, ...]
    given_range: tuple[float, float] | None
    common_range: CommonRange | None
    files: ImageFiles

    @property
    def value_range(self) -> tuple[float, float]:
        """Values of black and white of all images; of several types, those of the first image."""
        first = self.planes[0].values
        common = self.common_range
        if isinstance(common, Mapping):
            common = next(iter(common.values())) if len(common) == 1 else None
        return self.given_range or common or (first.low, first.high)


def image_path(image: Image) -> str:
    """Return the path of an image, for messages."""
    return image if isinstance(image, str) else image.path


def open_image(image: Image) -> ImageSource:
    """Return an open image; raise `SourceError` if its file cannot be read."""
    return open_source(image) if isinstance(image, str) else image


def load_images(
    found: FoundImages,
    scale: int,
    channels: int,
    *,
    least: int,
    value_range: tuple[float, float] | None,
    like: ImageSet | None = None,
    window: int,
    progress: Progress | None = None,
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """Open images.

    Parameters
    ----------
    found
        The images.
    scale
        Upscaling factor. Images are cut to multiples of it.
    channels
        Number of channels of the network.
    least
        Smallest height and width of a usable image in pixels.
    value_range
        Values of black and white; None to find them.
    like
        Images whose values of black and white are to be used.
    window
        Height and width of the windows that will be read, in pixels.
    progress
        Called with the number of images done and of all.

    Returns
    -------
    images : ImageSet
        The usable images.
    skipped : tuple of (str, str)
        Path and reason of each image that cannot be used.

    Raises
    ------
    ImageError
        No image can be used, or the value range is not valid.
    """
    given, common = as_range(value_range) or found.given_range, found.common_range
    if like is not None:
        given, common = like.given_range, like.common_range
    files = ImageFiles()
    sources: list[ImageSource] = []
    skipped = list(found.skipped)
    for number, image in enumerate(found.images):
        if progress is not None:
            progress(number, len(found.images))
        try:
            source = open_image(image)
            check_usable(source, scale, channels, least)
            sources.append(files.with_random_access(source, window))
        except (SourceError, ImageError) as error:
            skipped.append((image_path(image), error_reason(error, image_path(image))))
    if progress is not None:
        progress(len(found.images), len(found.images))
    if not sources:
        raise no_usable_image(skipped)
    images = image_set(sources, scale, channels, given, common, files)
    return images, tuple(skipped)


def image_set(
    sources: Sequence[ImageSource],
    scale: int,
    channels: int,
    given: tuple[float, float] | None,
    common: CommonRange | None,
    files: ImageFiles,
) -> ImageSet:
    """Combine open images with value maps from a range ``given`` for all, or from ``common`` ones."""
    sources = [replace(source, data=visible_colours(source.data, source.axes)) for source in sources]
    if given is None:
        common = common_ranges([(source.axes, source.data) for source in sources], common)
    planes = (channel_planes(source, scale, channels) for source in sources)
    mapped = tuple(replace(each, values=value_map(each.values.dtype, given, common)) for each in planes)
    return ImageSet(mapped, tuple(source.data for source in sources), given, common, files)


def channel_planes(source: ImageSource, scale: int, channels: int) -> ChannelPlanes:
    """Return an image as the network sees it, with the range of its type; raise `ImageError` if it does not fit."""
    shape, values = tuple(source.data.shape), ValueMap.of(source.data.dtype, None)
    return ChannelPlanes(source.path, source.axes, shape, scale, channels, values)


def check_usable(source: ImageSource, scale: int, channels: int, least: int) -> None:
    """Raise `ImageError` if an image does not fit the network or is smaller than ``least`` px."""
    height, width = channel_planes(source, scale, channels).size
    if min(height, width) < least:
        raise ImageError(f"{height} x {width} px (in multiples of the scale) is smaller than a patch of {least} px.")


def no_usable_image(skipped: Sequence[Skipped]) -> ImageError:
    """Return the error for a set without a usable image."""
    path, reason = skipped[0]
    return ImageError(f"none of {len(skipped)} images can be used for training. {path}: {reason}")


def warn_skipped(skipped: Sequence[Skipped], used: int, others: Sequence[Skipped] = ()) -> None:
    """Warn once about skipped images, with the first reasons, and once about other files."""
    if others:
        named = ", ".join(f"{path} ({reason})" for path, reason in others[:3])
        rest = f" and {len(others) - 3} more" if len(others) > 3 else ""
        warnings.warn(f"not trained on: {named}{rest}", stacklevel=3)
    if skipped:
        shown = "; ".join(f"{path}: {reason}" for path, reason in skipped[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warnings.warn(f"{len(skipped)} of {used + len(skipped)} images are left out. {shown}{more}", stacklevel=3)
