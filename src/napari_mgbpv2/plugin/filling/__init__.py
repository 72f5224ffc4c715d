"""A pyramid that a viewer can pan without waiting: what is there is shown, what is missing is made behind."""

from napari_mgbpv2.plugin.filling.pyramid import Pyramid, exact, fill, network_feed

__all__ = ["Pyramid", "exact", "fill", "network_feed"]
