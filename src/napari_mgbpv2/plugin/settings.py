"""Defaults that the user has set in napari's preferences; what napari would offer where there are none."""

from __future__ import annotations

from dataclasses import dataclass

PLUGIN = "napari-mgbpv2"


@dataclass(frozen=True)
class Defaults:
    """What the widgets start with.

    Attributes
    ----------
    device
        None for the fastest kind.
    tile, overlap
        None for the plugin's own choice.
    cache_bytes
        Memory for the tiles of one upscaled layer.
    """

    device: str | None = None
    tile: int | None = None
    overlap: int | None = None
    cache_bytes: int = 1024 * 10**6


def read_defaults() -> Defaults:
    """Read the preferences."""
    try:
        from napari.settings import get_plugin_settings

        chosen = get_plugin_settings(PLUGIN).upscaling
    except (ImportError, AttributeError, KeyError):  # an older napari, or a plugin that is not installed
        return Defaults()
    return Defaults(
        device=None if chosen.device == "auto" else str(chosen.device),
        tile=chosen.tile or None,
        overlap=chosen.overlap or None,
        cache_bytes=chosen.cache_megabytes * 10**6,
    )
