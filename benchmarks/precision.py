"""What half precision saves and costs on a device: time, and PSNR against full precision.

    python benchmarks/precision.py [--models x2 x4 x8] [--device cpu] [--source 640 480] [--rounds 5]

A photograph is upscaled whole by `upscale(...).compute()`, in the precisions in turns; the ratio is that of medians.
PSNR is that of the values before they are rounded to 8 bits, whose peak is 1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import napari_mgbpv2 as mgbp
from napari_mgbpv2.errors import DeviceError
from napari_mgbpv2.runtime import PRECISIONS, choose_device, choose_precision

PHOTOGRAPH = Path(mgbp.__file__).parent / "samples" / "astronaut.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["x2", "x4", "x8"])
    parser.add_argument("--device")
    parser.add_argument("--source", type=int, nargs=2, default=[640, 480], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = choose_device(options.device)
    from PIL import Image

    picture = Image.open(PHOTOGRAPH).convert("RGB").resize(tuple(options.source), Image.Resampling.BICUBIC)
    source = np.asarray(picture, dtype=np.float32) / 255
    print(f"{device}, {options.source[0]} x {options.source[1]} px, median of {options.rounds} rounds")
    print(f"{'model':16}{'precision':12}{'s':>8}{'ratio':>8}{'PSNR dB':>9}")
    for model in options.models:
        times: dict[str, list[float]] = {name: [] for name in PRECISIONS if _is_offered(name, device)}
        results: dict[str, npt.NDArray[Any]] = {}
        for turn in range(1 + options.rounds):  # the first one loads the networks
            for precision, own in times.items():
                began = time.perf_counter()
                results[precision] = mgbp.upscale(source, model=model, device=device, precision=precision).compute()
                own.extend([time.perf_counter() - began] if turn else [])
        exact = statistics.median(times["float32"])
        for precision, own in times.items():
            seconds = statistics.median(own)
            error = float(np.square(results[precision] - results["float32"], dtype=np.float64).mean())
            psnr = f"{-10 * np.log10(error):.1f}" if error else "-"
            print(f"{model:16}{precision:12}{seconds:>8.2f}{seconds / exact:>8.2f}{psnr:>9}", flush=True)


def _is_offered(precision: str, device: str) -> bool:
    try:
        choose_precision(precision, device)
    except DeviceError:
        return False
    return True


if __name__ == "__main__":
    main()
