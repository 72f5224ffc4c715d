"""The two layers that the widget "Upscale" adds: one that the network fills, and one that has been saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_mgbpv2.conversion import ConversionPlan
from napari_mgbpv2.conversion.destinations import name_of
from napari_mgbpv2.plugin.filling import Pyramid, fill, network_feed
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.filling.pyramid import SOURCE_BYTES
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.plugin.place import same_looks, upscaled_place
from napari_mgbpv2.plugin.roles import RESULT, marked
from napari_mgbpv2.plugin.showing import LazyLayer
from napari_mgbpv2.plugin.stored import open_comparable
from napari_mgbpv2.upscaling import UpscalePlan


class FilledLayer(LazyLayer):
    """An upscaled layer that the network fills where somebody looks.

    Parameters
    ----------
    viewer
        Where the layer is added.
    source
        The layer that is upscaled.
    image
        Of the source.
    plan
        How it is upscaled.
    name
        Of the new layer.
    cache_bytes
        Memory for its tiles.
    role
        `RESULT` or `PREVIEW`.
    """

    def __init__(
        self,
        viewer: Any,
        source: Any,
        image: LayerImage,
        plan: UpscalePlan,
        *,
        name: str,
        cache_bytes: int,
        role: str = RESULT,
    ) -> None:
        super().__init__(viewer, source)
        self._image = image
        self._cache_bytes = cache_bytes
        self.plan = plan
        self.pyramid: Pyramid = fill(
            image, plan, cache_bytes=cache_bytes, changed=self._tell_it_came, failed=self._tell_it_failed
        )

        def place() -> dict[str, Any]:
            return upscaled_place(source, image.factors(plan.scale), image.reversed_sizes)

        self._add(
            self.pyramid.levels,
            name=name,
            metadata=marked(role, model=plan.model, scale=plan.scale, noise=plan.compute_tile.noise),
            **same_looks(source),
            **place(),
        )
        self.layer.thumbnail = source.thumbnail
        self._replace_source(place)

    def can_use(self, image: LayerImage, plan: UpscalePlan) -> bool:
        """Whether another plan upscales the same array to an image of the same shape and type."""
        same_array = image.origin is self._image.origin and image.reversed == self._image.reversed
        ours, theirs = self.plan, plan
        return same_array and (theirs.layout.shape, theirs.layout.dtype, theirs.axes) == (
            ours.layout.shape,
            ours.layout.dtype,
            ours.axes,
        )

    def use(self, plan: UpscalePlan) -> None:
        """Go over to another plan of the same shape and type; what is looked at is filled anew."""
        network = self.pyramid.network
        if network.is_closed:
            network = network_feed(self._cache_bytes, self._tell_it_came, self._tell_it_failed)
            self.pyramid = Pyramid(self.pyramid.levels, network, self.pyramid.source)
        self.plan = plan
        self.pyramid.finest.use(plan, network)
        self._refresh()

    def _feeds(self) -> Sequence[Feed]:
        return self.pyramid.network, self.pyramid.source

    def _on_moved(self, event: object = None) -> None:
        """Run no tile for a view that has been left: zoomed out of, or hidden."""
        super()._on_moved(event)
        if not self.layer.visible or self.layer.data_level != 0:
            self.pyramid.finest.forget_wishes()


class StoredLayer(LazyLayer):
    """A result that has been saved, in the place of its source.

    Parameters
    ----------
    viewer
        Where the layer is added.
    source
        The layer that has been upscaled.
    image
        Of the source.
    prepared
        What has been done.
    """

    def __init__(self, viewer: Any, source: Any, image: LayerImage, prepared: ConversionPlan) -> None:
        super().__init__(viewer, source)
        plan, destination = prepared.plan, prepared.job.destination
        assert isinstance(destination, Path), "the plugin saves to disks"
        self._feed = Feed(SOURCE_BYTES, self._tell_it_came, self._tell_it_failed)

        def place() -> dict[str, Any]:
            return upscaled_place(source, image.factors(plan.scale), image.reversed_sizes)

        self._add(
            open_comparable(destination, prepared.layout, plan, self._feed),
            name=name_of(destination),
            metadata=marked(RESULT, **prepared.layout.provenance),
            **same_looks(source),
            **place(),
        )
        self._replace_source(place)

    def _feeds(self) -> Sequence[Feed]:
        return (self._feed,)
