"""Peak memory of conversions of growing size, each in a process of its own.

    python benchmarks/memory.py [--model x4] [--outputs 1024 2048 4096]
    python benchmarks/memory.py --model none --outputs 8192 16384 32768 [--grey]     # a network that does nothing

The source is made where it is read, so that none of it is in memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from identity import prepared_identity
from napari_mgbpv2.conversion import ConversionJob, prepare, run
from napari_mgbpv2.model.zoo import find_model, read_card
from napari_mgbpv2.upscaling.options import UpscaleOptions


class Generated:
    """RGB pixels of 8 bits, or grey ones of 16, made where they are read."""

    def __init__(self, side: int, axes: str) -> None:
        self.shape = (side, side, 3)[: len(axes)]
        self.dtype = np.dtype("u1" if "s" in axes else "u2")

    def __getitem__(self, window: tuple[slice, ...]) -> np.ndarray:
        y, x, *sample = np.ogrid[window]
        return ((y // 3 + x // 2) % 200 + (y * x) % 17 + (sample[0] if sample else 0)).astype(self.dtype)


def convert_one(output: int, model: str, axes: str) -> None:
    """Convert and print the peak and what was said before the start, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        destination = Path(folder) / "result.ome.zarr"
        if model == "none":
            prepared = prepared_identity(Generated(output, axes), axes, destination)
        else:
            card = read_card(model) if Path(model).is_file() else find_model(model)
            side = output // (card.scale or 1)
            prepared = prepare(
                ConversionJob(Generated(side, axes), destination, UpscaleOptions(model=model, axes=axes))
            )
        run(prepared)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(peak, prepared.memory_bytes / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x4", help="a packaged one, a file that says its scale, or none")
    parser.add_argument("--outputs", type=int, nargs="+", default=[1024, 2048, 4096], metavar="PX")
    parser.add_argument("--grey", action="store_true", help="16 bits, instead of RGB")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        convert_one(options.one, options.model, "yx" if options.grey else "yxs")
        return
    print(f"{'output':>14}{'peak MiB':>10}{'said MiB':>10}{'to the one before':>20}")
    before = None
    for output in options.outputs:
        command = [sys.executable, __file__, "--model", options.model, "--one", str(output), *["--grey"] * options.grey]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, said = map(float, done.stdout.split())
        ratio = f"{peak / before:.2f}" if before else ""
        print(f"{output:>6} x {output:>5}{peak:>10.0f}{said:>10.0f}{ratio:>20}", flush=True)
        before = peak


if __name__ == "__main__":
    main()
