"""Peak memory of conversions of growing size, each in a process of its own.

python benchmarks/memory.py [--model x4] [--outputs 1024 2048 4096]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def convert_one(output: int, model: str) -> None:
    """Convert and print the peak and what was said before the start, in MiB."""
    from napari_mgbpv2.conversion import ConversionJob, prepare, run
    from napari_mgbpv2.model_zoo import find_model

    side = output // (find_model(model).scale or 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
        prepared = prepare(ConversionJob(path, Path(folder) / "result.ome.zarr", model=model))
        run(prepared)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(peak, prepared.memory_bytes / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x4")
    parser.add_argument("--outputs", type=int, nargs="+", default=[1024, 2048, 4096], metavar="PX")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        convert_one(options.one, options.model)
        return
    print(f"{'output':>14}{'peak MiB':>10}{'said MiB':>10}{'to the one before':>20}")
    before = None
    for output in options.outputs:
        command = [sys.executable, __file__, "--model", options.model, "--one", str(output)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, said = map(float, done.stdout.split())
        ratio = f"{peak / before:.2f}" if before else ""
        print(f"{output:>6} x {output:>5}{peak:>10.0f}{said:>10.0f}{ratio:>20}", flush=True)
        before = peak


if __name__ == "__main__":
    main()
