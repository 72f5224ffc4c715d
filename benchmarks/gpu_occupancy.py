"""How busy a GPU is with the network while an image is upscaled, and what half precision costs.

    python benchmarks/gpu_occupancy.py [--model x4] [--source 1920 1080] [--precisions float32 float16] [--rounds 3]
    python benchmarks/gpu_occupancy.py --model K3 --source 480 270              # 16x, to an 8K frame

"K3" has the size of the published network and random weights, and upscales 16x. Device time is that between CUDA events
around each forward of the network; occupancy is their sum over the time of the whole `upscale(...).compute()`. PSNR is
that of a precision against float32, whose peak is 1. The floor is what the multiplications and additions of all output
pixels, each computed once, would take at ``--teraflops``. "launched" is the same with every kernel launched by itself,
"replayed" with forwards recorded in CUDA graphs, as the engine does where MGBPV2_CUDA_GRAPHS is 1. The last line of a
precision does that, too, and blends in memory instead of on the device.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import napari_mgbpv2 as mgbp
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.network import MGBPv2, scaling_modules
from napari_mgbpv2.runtime import Engine, release_device_memory
from napari_mgbpv2.runtime.cuda_graphs import CAPTURE_AFTER_RUNS, CUDA_GRAPHS_ENV_VAR, CudaGraphCapturer, GraphedNetwork

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"


@dataclass
class Watch:
    """Time of all forwards on the device."""

    events: list[tuple[Any, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watching(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Put an event before and after each forward."""

        def watched(network: GraphedNetwork, *arguments: Any) -> Tensor:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            result = forward(network, *arguments)
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


def load(name: str, folder: Path) -> tuple[MGBPv2, Path | str]:
    """Give a network, and what `upscale` is to be given for it: engines of files are kept from one call to the next."""
    if name == "K3":
        torch.manual_seed(0)
        network = MGBPv2(mgbp.ModelConfig()).eval().requires_grad_(False)
        network.scale, network.guard = 16, 72
        return network, save_model(network, folder / "K3.safetensors")
    loaded = mgbp.load_model(name)
    assert isinstance(loaded, MGBPv2)
    return loaded, name


@contextlib.contextmanager
def instead(owner: type, name: str, value: object) -> Iterator[None]:
    """Give a class another attribute for a while."""
    usual = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, usual)


WAYS: dict[str, tuple[tuple[type, str, object], ...]] = {
    "launched": ((CudaGraphCapturer, "has_room", lambda self, size: False),),
    "replayed": (),
    "in memory": ((Engine, "keep_on_device", property(lambda self: False)),),
}


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
    os.environ[CUDA_GRAPHS_ENV_VAR] = "1"  # before there is an engine
    with tempfile.TemporaryDirectory() as folder:
        measure(options, *load(options.model, Path(folder)))


def measure(options: argparse.Namespace, network: MGBPv2, model: Path | str) -> None:
    assert network.scale is not None
    from PIL import Image

    picture = Image.open(PHOTOGRAPH).convert("RGB").resize(tuple(options.source), Image.Resampling.BICUBIC)
    source = np.asarray(picture)  # of 8 bits, as most are; exact values are compared between precisions
    pixels = source.shape[0] * source.shape[1] * network.scale**2
    work = 2 * multiplications(network) * pixels
    floor = work / options.teraflops / 1e12
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {options.model}: {pixels / 1e6:.1f} Mpx")
    print(f"{work / 1e12:.1f} TFLOP, {floor * 1000:.0f} ms at {options.teraflops:.0f} TFLOP/s")
    print(
        f"{'precision':10}{'':10}{'wall s':>9}{'device s':>10}{'occupancy':>11}"
        f"{'to floor':>10}{'PSNR dB':>9}{'peak GiB':>10}"
    )
    watch, reference = Watch(), None

    def upscaled(precision: str, image: npt.NDArray[Any] = source) -> tuple[npt.NDArray[Any], float]:
        torch.cuda.synchronize()
        began = time.perf_counter()
        result = mgbp.upscale(image, model=model, device="cuda", precision=precision, tile=options.tile).compute()
        return result, time.perf_counter() - began

    for precision in options.precisions:
        exact, _ = upscaled(precision, source / np.float32(255))
        reference = exact if reference is None else reference
        error = float(np.square(exact - reference, dtype=np.float64).mean())
        psnr = f"{-10 * np.log10(error):.1f}" if error else "-"
        for way, changes in WAYS.items():
            release_device_memory()
            torch.cuda.reset_peak_memory_stats()
            with contextlib.ExitStack() as stack:
                for change in changes:
                    stack.enter_context(instead(*change))
                stack.enter_context(instead(GraphedNetwork, "__call__", watch.watching(GraphedNetwork.__call__)))
                for _ in range(
                    CAPTURE_AFTER_RUNS
                ):  # loads the network, warms up, and records what comes once in an image
                    upscaled(precision)
                watch.seconds()
                walls, devices = [], []
                for _ in range(options.rounds):
                    _, wall = upscaled(precision)
                    walls.append(wall)
                    devices.append(watch.seconds())
            wall, device = statistics.median(walls), statistics.median(devices)
            peak = torch.cuda.max_memory_allocated() / 2**30
            columns = f"{wall:>9.3f}{device:>10.3f}{device / wall:>11.2f}{device / floor:>10.1f}{psnr:>9}{peak:>10.2f}"
            print(f"{precision:10}{way:10}{columns}", flush=True)


if __name__ == "__main__":
    main()
