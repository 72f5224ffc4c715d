"""Somebody who uses the widget "Upscale" through its controls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.plugin.upscaling.showing import FilledLayer
from napari_mgbpv2.plugin.upscaling.view import UpscaleView
from napari_mgbpv2.plugin.upscaling.widget import UpscaleWidget

WAIT = 120_000  # milliseconds; the machine may be busy with other things


class User:
    """Opens the widget when they first need it.

    Parameters
    ----------
    viewer
        The viewer that they sit at.
    qtbot
        Lets the window live.
    """

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self._qtbot = viewer, qtbot

    @cached_property
    def widget(self) -> UpscaleWidget:
        """The widget, docked as napari's menu does it, with its first estimate."""
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Upscale (MGBPv2)")
        self.waits_until(lambda: widget.is_settled)
        return widget

    @property
    def view(self) -> UpscaleView:
        """Its controls."""
        return self.widget.view

    def waits(self, milliseconds: int = 50) -> None:
        self._qtbot.wait(milliseconds)

    def waits_until(self, happens: Callable[[], bool]) -> None:
        self._qtbot.waitUntil(happens, timeout=WAIT)

    def settles(self) -> None:
        """Wait for the estimate of what is chosen now."""
        self.waits_until(lambda: self.widget.is_settled)

    # --- layers

    def adds_layer(self) -> FilledLayer:
        """Add the upscaled layer."""
        before = len(self.viewer.layers)
        self.view.add.click()
        self.waits_until(lambda: len(self.viewer.layers) > before)
        return self.filled

    @property
    def filled(self) -> FilledLayer:
        """The layer that the network fills."""
        assert isinstance(self.widget._result, FilledLayer)
        return self.widget._result

    def sees(self, *window: Any) -> np.ndarray:
        """Look at a window of the result until it is filled; give its pixels."""
        finest = self.filled.pyramid.levels[0]
        np.asarray(finest[window])
        self.waits_until(lambda: self.filled.pyramid.is_idle)
        return np.asarray(finest[window])

    # --- files

    def saves(self, destination: Path, *, cancels: bool = False) -> None:
        """Save, and wait for the end; or press Cancel as soon as there is progress."""
        self.view.saving.save_requested.emit(destination)
        self.waits_for_the_end(cancels=cancels)

    def resumes(self) -> None:
        self.view.saving.resume.click()
        self.waits_for_the_end()

    def waits_for_the_end(self, *, cancels: bool = False) -> None:
        if cancels:
            self.waits_until(lambda: self.view.progress.bar.value() > 0)
            self.view.progress.cancel.click()
        self.waits_until(lambda: not self.widget.is_running)

    def reads(self) -> str:
        """Read what the widget says about saving."""
        return self.view.progress.said
