"""Connections to events of napari that end together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Connections:
    """Callbacks connected to events of viewers and layers, which outlive the widgets that listen to them."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, Callable[..., object]]] = []

    def connect(self, emitter: Any, callback: Callable[..., object]) -> None:
        """Call ``callback`` with each event, until `end`."""
        emitter.connect(callback)
        self._made.append((emitter, callback))

    def end(self) -> None:
        """Disconnect all callbacks."""
        made, self._made = self._made, []
        for emitter, callback in made:
            with suppress(ValueError):  # the emitter has dropped it already
                emitter.disconnect(callback)
