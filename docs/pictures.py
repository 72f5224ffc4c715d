"""Make the pictures of `napari.md`: real windows, used as a user would, under any X server (``xvfb-run`` will do)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from PIL import Image
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.sample_data import astronaut

FOLDER = Path(__file__).resolve().parent / "pictures"
PLUGIN = "napari-mgbpv2"
SIZE = (1340, 860)
WIDGET_WIDTH = 390
FACE = (0, 60, 92)  # of the sample


def wait(until: Callable[[], bool] = lambda: False, seconds: float = 1.0) -> None:
    """Let the window live until something has happened, or for some seconds."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def open_viewer(widget: str) -> tuple[Any, Any]:
    """Open a viewer with the sample and a widget."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    viewer.open_sample(PLUGIN, "astronaut")
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, widget)
    dock.setMinimumWidth(WIDGET_WIDTH)
    wait(seconds=1.5)
    return viewer, widget


def shoot(viewer: Any, name: str) -> None:
    """Write a picture of the whole window."""
    wait(seconds=1)
    viewer.screenshot(str(FOLDER / f"{name}.png"), canvas_only=False, flash=False)


def grab(widget: Any, name: str) -> None:
    """Write a picture of the widget "Upscale", as far down as there is something to see."""
    last = widget.view.swipe
    height = last.mapTo(widget, QPoint(0, last.height())).y() + 12
    widget.grab(QRect(0, 0, widget.width(), height)).save(str(FOLDER / f"{name}.png"))


def upscale() -> None:
    """The widget, the upscaled layer, and the comparison."""
    viewer, widget = open_viewer("Upscale (MGBPv2)")
    wait(lambda: widget.is_settled, 60)
    widget.view.add.click()
    camera = viewer.scene.camera
    camera.zoom, camera.center = 10, FACE
    wait(seconds=1)
    wait(lambda: widget._result.pyramid.is_idle, 60)
    shoot(viewer, "upscale")
    widget.view.swipe.setValue(widget.view.swipe.maximum() // 2)
    shoot(viewer, "swipe")
    widget.view.swipe.setValue(widget.view.swipe.maximum())
    widget.view.side_by_side.click()
    camera.zoom = 5
    shoot(viewer, "side-by-side")
    viewer.close()


def resume() -> None:
    """A saving that has been stopped, and can be gone on with: the widget alone."""
    viewer, widget = open_viewer("Upscale (MGBPv2)")
    [(pixels, *_)] = astronaut()
    viewer.add_image(pixels.repeat(3, axis=0).repeat(3, axis=1), rgb=True, name="slide")
    widget.view.layers.setCurrentText("slide")
    wait(lambda: widget.is_settled, 60)
    widget.view.saving.save_requested.emit(Path("results", "slide_x4.ome.zarr"))
    wait(lambda: widget.view.progress.bar.value() > widget.view.progress.bar.maximum() // 3, 300)
    wait(seconds=0.3)
    grab(widget, "saving")
    widget.view.progress.cancel.click()
    wait(lambda: not widget.is_running, 60)
    wait(seconds=0.5)
    grab(widget, "resume")
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
    """A folder with three files, one of which is no image, run a second time."""
    viewer, widget = open_viewer("Batch to OME-Zarr (MGBPv2)")
    folder = Path("slides")
    folder.mkdir()
    [(pixels, *_)] = astronaut()
    for name, crop in (("left.png", pixels[:, :120]), ("right.png", pixels[:, 80:])):
        Image.fromarray(crop).save(folder / name)
    (folder / "notes.tif").write_bytes(b"II*\0 no image")
    widget.view.destination.setText("upscaled")
    for _ in range(2):
        widget.view.clear.click()
        widget.view.folder_chosen.emit(folder)
        wait(lambda: widget.view.files.rowCount() == 3, 60)
        widget.view.start.click()
        wait(lambda: not widget.is_running, 120)
    shoot(viewer, "batch")
    viewer.close()


def main() -> None:
    """Make those that are named, or all; paths that are seen lead nowhere on this machine."""
    FOLDER.mkdir(exist_ok=True)
    os.environ["MGBPV2_MODELS"] = "mgbpv2-models"
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for make in (upscale, resume, finetune, batch):
            if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
                make()


if __name__ == "__main__":
    main()
