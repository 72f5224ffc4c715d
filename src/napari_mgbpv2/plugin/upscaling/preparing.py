"""What a layer is to a conversion: an opened image, in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_mgbpv2.conversion import ConversionJob, ConversionPlan, prepare
from napari_mgbpv2.io.readers import ImageSource
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.upscaling import UpscaleOptions


def prepare_layer(
    image: LayerImage, place: dict[str, Any], choices: UpscaleOptions, destination: Path
) -> ConversionPlan:
    """Prepare the conversion of a layer; reads no pixel, writes nothing.

    Parameters
    ----------
    image
        The layer's image.
    place
        ``scale`` (positive), ``translate`` and ``units`` of the image, one entry per axis of the layer.
    choices
        How.
    destination
        The OME-Zarr to write.

    Raises
    ------
    MGBPv2Error
        It cannot be done so; the message says why.
    """
    options = choices.with_image_defaults(image.axes, image.value_range)
    source = _source_of(image, place, str(options.axes))
    job = ConversionJob(source, destination, options)
    return prepare(job)


def _source_of(image: LayerImage, place: dict[str, Any], axes: str) -> ImageSource:
    from napari_mgbpv2.io.image import long_unit

    spatial = axes.replace("s", "")
    placed = [axis for axis in spatial if axis != "c"]
    numbers = {axis: spatial.index(axis) for axis in placed}
    return ImageSource(
        data=image.data,
        axes=axes,
        pixel_size={axis: float(place["scale"][number]) for axis, number in numbers.items()},
        units={axis: long_unit(str(place["units"][number])) for axis, number in numbers.items()},
        translation={axis: float(place["translate"][number]) for axis, number in numbers.items()},
        channel_names=None,
        channel_colors=None,
        path=image.name,
        kind="napari layer",
    )
