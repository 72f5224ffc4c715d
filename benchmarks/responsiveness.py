"""How long the window stands still: the longest pause of napari's own thread while somebody pans about.

    python benchmarks/responsiveness.py [--rounds 5] [--seconds 6] [--side 1500] [--model x4]

Needs a display; on a machine without one, `xvfb-run` makes one. Each round measures, one after the other,

- the source alone: nothing goes on but the panning;
- a plain pyramid in memory of the size of the upscaled layer, made without the plugin;
- the upscaled layer, which the network fills meanwhile;
- the source, while the same is saved to OME-Zarr, and then while a model is fine-tuned in a thread of the program, as
  the widget does it, and in a process beside it.

The ratio is that of the medians to the source alone. Seconds vary between machines and runs, and a machine that is busy
with other things makes all of them longer.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import numpy as np
import torch
from qtpy.QtCore import QEventLoop, QTimer

from napari_mgbpv2.model.zoo import list_models
from napari_mgbpv2.plugin.finetuning.working import Request, finetune
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.upscaling.preparing import prepare_layer
from napari_mgbpv2.plugin.upscaling.saving import How, save
from napari_mgbpv2.plugin.upscaling.showing import FilledLayer
from napari_mgbpv2.upscaling import plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions

WINDOW = (1000, 750)
CACHE_BYTES = 2**30
BEAT_MS = 5


class Heart:
    """Beats in the thread of the GUI, and notes the pauses between two beats."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(BEAT_MS)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.pauses.append(now - self._last)
        self._last = now

    def stop(self) -> float:
        self._timer.stop()
        return max(self.pauses)


class Bench:
    """A window with an image, and what can go on in it."""

    def __init__(self, side: int, model: str, seconds: float, scratch: Path) -> None:
        self.side, self.seconds, self.scratch = side, seconds, scratch
        self.model = next(card for card in list_models() if card.name == model)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*WINDOW)
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        self.source = self.viewer.add_image(pixels, rgb=True, name="source")
        self.image = read_layer(self.source)
        self.plan = plan_upscale(pixels, UpscaleOptions(axes="yxs", model=self.model.path))
        self.file = scratch / "source.npy"
        np.save(self.file, pixels)
        self.plan.compute_tile((), 0, 0, 0)  # loads the network

    def pan(self) -> float:
        """Wander about in what is zoomed in upon; gives the longest pause in seconds."""
        camera = self.viewer.scene.camera
        camera.zoom = 3
        live(0.5)
        heart = Heart()
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < self.seconds:
            way = passed / self.seconds
            camera.center = (0, self.side * (0.2 + 0.6 * way), self.side * (0.8 - 0.6 * way))
            live(0.05)
        return heart.stop()

    def source_alone(self) -> float:
        return self.pan()

    def plain_pyramid(self) -> float:
        scale = self.plan.scale
        full = np.kron(self.image.data, np.ones((scale, scale, 1), np.uint8))
        levels = [full[:: 2**times, :: 2**times] for times in range(4)]
        layer = self.viewer.add_image(levels, multiscale=True, rgb=True, scale=(1 / scale, 1 / scale))
        longest = self.pan()
        self.viewer.layers.remove(layer)
        return longest

    def upscaled_layer(self) -> float:
        filled = FilledLayer(self.viewer, self.source, self.image, self.plan, name="upscaled", cache_bytes=CACHE_BYTES)
        longest = self.pan()
        assert not filled.pyramid.network.is_idle, "the network has not been at work all the time: pan faster"
        filled.remove()
        live(0.1, until=lambda: filled.pyramid.is_idle)
        return longest

    def saving(self) -> float:
        place = {name: tuple(getattr(self.source, name)) for name in ("scale", "translate", "units")}
        destination = self.scratch / "saved.ome.zarr"
        prepared = prepare_layer(self.image, place, UpscaleOptions(model=self.model.path), destination)
        with in_a_thread(lambda tell, cancelled: save(prepared, How.ANEW, tell, cancelled)):
            return self.pan()

    def finetuning_in_a_thread(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            request = Request((self.image,), (), self.model.path, Path(folder, "mine.safetensors"), minutes=60)
            with in_a_thread(lambda tell, cancelled: finetune(request, tell, cancelled)):
                return self.pan()

    def finetuning_in_a_process(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            options = ["--init", str(self.model.path), "--minutes", "60", "--workers", "0"]
            command = [sys.executable, "-m", "napari_mgbpv2.cli.finetune", str(self.file), *options]
            process = subprocess.Popen(
                [*command, "-o", str(Path(folder, "mine.safetensors"))], stderr=subprocess.PIPE, text=True
            )
            assert process.stderr is not None
            while "loss" not in (line := process.stderr.readline()):  # until it has begun to learn
                assert line, "the process has ended"
            try:
                return self.pan()
            finally:
                process.kill()
                process.communicate()


@contextmanager
def in_a_thread(work: Any) -> Iterator[None]:
    """Let work go on beside the window, begun when it first tells of progress, and stopped at the end."""
    told: list[Any] = []
    ended: list[str] = []
    job = Job(work)
    job.told.connect(told.append)
    job.failed.connect(ended.append)
    job.ended.connect(lambda: ended.append("it has ended before the panning has: take a larger image"))
    job.start()
    live(600, until=lambda: len(told) > 1 or bool(ended))
    yield
    assert not ended, ended[0]
    job.cancel()
    live(600, until=lambda: bool(ended))


def live(seconds: float, *, until: Callable[[], bool] | None = None) -> None:
    """Let the window live for some seconds, or until something has happened."""
    loop, look = QEventLoop(), QTimer()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    if until is not None:
        look.timeout.connect(lambda: loop.quit() if until() else None)
        look.start(20)
    loop.exec()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of panning, for each measurement")
    parser.add_argument("--side", type=int, default=1500, help="of the source, in pixels")
    parser.add_argument("--model", default="x4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.side, options.model, options.seconds, Path(scratch))
        measurements = {
            "the source alone": bench.source_alone,
            "a plain pyramid of the result's size": bench.plain_pyramid,
            "the upscaled layer, filled by the network": bench.upscaled_layer,
            "saving": bench.saving,
            "fine-tuning in a thread": bench.finetuning_in_a_thread,
            "fine-tuning in a process": bench.finetuning_in_a_process,
        }
        bench.source_alone()  # the first one draws for the first time
        rounds = [[measure() for measure in measurements.values()] for _ in range(options.rounds)]
        bench.viewer.close()
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"{torch.get_num_threads()} threads of torch, {options.rounds} rounds; the longest pause of the window")
    for name, median, column in zip(measurements, medians, zip(*rounds, strict=True), strict=True):
        spread = f"{min(column):.3f} to {max(column):.3f}"
        print(f"{name:42}{median:7.3f} s   ratio {median / medians[0]:5.2f}   ({spread})")


if __name__ == "__main__":
    main()
