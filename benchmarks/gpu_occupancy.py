"""How busy a GPU is with the network while an image is upscaled, and what half precision costs.

    python benchmarks/gpu_occupancy.py [--model x4] [--source 1920 1080] [--precisions float32 float16] [--rounds 3]
    python benchmarks/gpu_occupancy.py --model K3 --source 480 270              # 16x, to an 8K frame

"K3" has the size of the published network and random weights, and upscales 16x. Device time is that between CUDA events
around each forward of the network; occupancy is their sum over the time of the whole `upscale(...).compute()`. PSNR is
that of a precision against float32, whose peak is 1. The floor is what the multiplications and additions of all output
pixels, each computed once, would take at ``--teraflops``. At the end, one tile: its kernels launched one after the
other, as the engine does, and recorded once in a CUDA graph and replayed, which is what recording could save.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import napari_mgbpv2 as mgbp
from napari_mgbpv2.engine import PRECISIONS
from napari_mgbpv2.inference import PreparedNetwork, Workspace
from napari_mgbpv2.network import MGBPv2, scaling_modules

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"


@dataclass
class Watch:
    """Time of all forwards on the device."""

    events: list[tuple[Any, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watching(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Put an event before and after each forward."""

        def watched(network: PreparedNetwork, *arguments: Any, **options: Any) -> Tensor:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            result = forward(network, *arguments, **options)
            after.record()
            with self._lock:
                self.events.append((before, after))
            return result

        return watched

    def seconds(self) -> float:
        """Sum of all forwards since the last call."""
        torch.cuda.synchronize()
        found = sum(before.elapsed_time(after) for before, after in self.events) / 1000
        self.events.clear()
        return found


def multiplications(network: MGBPv2) -> float:
    """Multiply-adds for each output pixel, borders left aside."""
    config, total = network.config, 0.0
    for name, level in scaling_modules(config):
        module = network.get_submodule(name)
        weight = next(value for key, value in module.named_parameters() if key.endswith("weight"))
        # both convolutions of a step do one product with each weight for each pixel of the level below
        total += weight.numel() / 4 ** (config.levels - level)
    for level in range(config.levels):
        weights = network.get_submodule(f"Analysis_{level}").weight.numel()
        total += weights / config.analysis_stride(level) ** 2
    return total + network.get_submodule("Synthesis").weight.numel()


def load(name: str) -> MGBPv2:
    if name == "K3":
        torch.manual_seed(0)
        network = MGBPv2(mgbp.ModelConfig()).eval().requires_grad_(False)
        network.scale, network.guard = 16, 72
        return network
    loaded = mgbp.load_model(name)
    assert isinstance(loaded, MGBPv2)
    return loaded


def tile_seconds(network: MGBPv2, size: int, precision: str, rounds: int) -> tuple[float, float]:
    """Seconds of one forward, launched kernel by kernel and replayed from a CUDA graph."""
    device = torch.device("cuda")
    forward = PreparedNetwork(network, Workspace(), device, PRECISIONS[precision])
    image = torch.rand(1, network.config.channels, size, size, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is made once must not be recorded
        for _ in range(3):
            forward(image)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward(image)

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(rounds):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return seconds(lambda: forward(image)), seconds(graph.replay)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x4")
    parser.add_argument("--source", type=int, nargs=2, default=[1920, 1080], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16", "bfloat16"])
    parser.add_argument("--tile", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teraflops", type=float, default=800.0, help="of the device, in the lower precision")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_occupancy.py: this machine has no CUDA device.")
    network = load(options.model)
    assert network.scale is not None
    from PIL import Image

    picture = Image.open(PHOTOGRAPH).convert("RGB").resize(tuple(options.source), Image.Resampling.BICUBIC)
    source = np.asarray(picture, dtype=np.float32) / 255
    pixels = source.shape[0] * source.shape[1] * network.scale**2
    work = 2 * multiplications(network) * pixels
    floor = work / options.teraflops / 1e12
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {options.model}: {pixels / 1e6:.1f} Mpx")
    print(f"{work / 1e12:.1f} TFLOP, {floor * 1000:.0f} ms at {options.teraflops:.0f} TFLOP/s")
    print(
        f"{'precision':12}{'wall s':>9}{'device s':>10}{'occupancy':>11}{'to floor':>10}{'PSNR dB':>9}{'peak GiB':>10}"
    )
    watch, reference, forward = Watch(), None, PreparedNetwork.__call__
    PreparedNetwork.__call__ = watch.watching(forward)  # type: ignore[method-assign]
    for precision in options.precisions:
        result = mgbp.upscale(source, model=network, device="cuda", precision=precision, tile=options.tile)
        result.compute()  # loads the network and warms up
        watch.seconds()
        torch.cuda.reset_peak_memory_stats()
        walls, devices = [], []
        for _ in range(options.rounds):
            torch.cuda.synchronize()
            began = time.perf_counter()
            upscaled = mgbp.upscale(
                source, model=network, device="cuda", precision=precision, tile=options.tile
            ).compute()
            walls.append(time.perf_counter() - began)
            devices.append(watch.seconds())
        reference = upscaled if reference is None else reference
        error = float(np.square(upscaled - reference, dtype=np.float64).mean())
        psnr = f"{-10 * np.log10(error):.1f}" if error else "-"
        wall, device = statistics.median(walls), statistics.median(devices)
        peak = torch.cuda.max_memory_allocated() / 2**30
        columns = f"{wall:>9.3f}{device:>10.3f}{device / wall:>11.2f}{device / floor:>10.1f}{psnr:>9}{peak:>10.2f}"
        print(f"{precision:12}{columns}", flush=True)
    PreparedNetwork.__call__ = forward  # type: ignore[method-assign]
    size = network.config.natural_down(options.tile or 1024)
    for precision in options.precisions:
        launched, replayed = tile_seconds(network, size, precision, 10 * options.rounds)
        print(f"{precision}: a tile of {size} px launched {launched * 1e3:.2f} ms, replayed {replayed * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
