"""Make the pictures of `napari.md`: real windows, used as a user would, under any X server (``xvfb-run`` will do)."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MGBPV2_MODELS", str(Path(tempfile.mkdtemp(), "mgbpv2-models")))

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.sample_data import astronaut

FOLDER = Path(__file__).parent / "pictures"
PLUGIN = "napari-mgbpv2"
SIZE = (1280, 800)


def wait(until: Callable[[], bool] = lambda: False, seconds: float = 1.0) -> None:
    """Let the window live until something has happened, or for some seconds."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def open_viewer(widget: str) -> tuple[Any, Any]:
    """Open a viewer with the sample and a widget."""
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(*SIZE)
    [(pixels, options, _)] = astronaut()
    viewer.add_image(pixels, **options)
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, widget)
    dock.setMinimumWidth(330)
    wait(seconds=1.5)
    return viewer, widget


def shoot(viewer: Any, name: str) -> None:
    """Write a picture of the whole window."""
    wait(seconds=0.5)
    viewer.screenshot(str(FOLDER / f"{name}.png"), canvas_only=False, flash=False)


def upscale() -> None:
    """The widget, the upscaled layer, and the comparison."""
    viewer, widget = open_viewer("Upscale (MGBPv2)")
    wait(lambda: widget.is_settled, 60)
    widget.view.add.click()
    viewer.scene.camera.zoom = 11
    viewer.scene.camera.center = (0, 66, 96)
    wait(seconds=1)
    wait(lambda: widget._result.pyramid.is_idle, 60)
    shoot(viewer, "upscale")
    widget.view.flip.click()
    shoot(viewer, "flipped")
    widget.view.flip.click()
    widget.view.side_by_side.click()
    viewer.layers.selection.active = viewer.layers[1]
    wait(seconds=1)
    shoot(viewer, "side-by-side")
    viewer.close()


def finetune() -> None:
    """A run of half a minute."""
    viewer, widget = open_viewer("Fine-tune (MGBPv2)")
    widget.view.layers.item(0).setCheckState(Qt.CheckState.Checked)
    widget.view.minutes.setValue(0.7)
    widget.view.start.click()
    wait(lambda: len(widget.view.curve.gains) >= 8 or not widget.is_running, 240)
    shoot(viewer, "finetune")
    widget.view.progress.cancel.click()
    wait(lambda: not widget.is_running, 60)
    viewer.close()


def batch() -> None:
    """Three files, one of which is no image."""
    viewer, widget = open_viewer("Batch to OME-Zarr (MGBPv2)")
    with tempfile.TemporaryDirectory() as folder:
        from PIL import Image

        [(pixels, *_)] = astronaut()
        for name, crop in (("left.png", pixels[:, :120]), ("right.png", pixels[:, 80:])):
            Image.fromarray(crop).save(Path(folder, name))
        Path(folder, "notes.tif").write_bytes(b"II*\0 no image")
        widget.view.folder_chosen.emit(Path(folder))
        widget.view.destination.setText(str(Path(folder, "results")))
        widget.view.start.click()
        wait(lambda: not widget.is_running, 60)
        widget.view.destination.setText("results")
        shoot(viewer, "batch")
    viewer.close()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for make in (upscale, finetune, batch):
        if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
            make()
