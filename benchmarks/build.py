"""Time and memory of building the lazy result of a huge source, and of one region of it.

python benchmarks/build.py [--side 65536] [--chunk 256]
"""

from __future__ import annotations

import argparse
import resource
import time

import dask.array as da
import numpy as np

import napari_mgbpv2 as mgbp


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=65_536, help="of the source, in pixels")
    parser.add_argument("--chunk", type=int, default=256, help="of the source, in pixels")
    options = parser.parse_args()
    mgbp.upscale(np.zeros((8, 8), np.uint8), 4)  # imports and the model are not what is measured
    shape = (options.side, options.side)
    source = da.random.default_rng(0).integers(256, size=shape, chunks=options.chunk, dtype=np.uint8)
    before, start = peak_mib(), time.perf_counter()
    result = mgbp.upscale(source, 4)
    print(f"{source.npartitions} chunks in, {result.npartitions} out: {time.perf_counter() - start:.2f} s, ", end="")
    print(f"{peak_mib() - before:.0f} MiB to build")
    for name, corner in (("first", 10_000), ("second", 100_000)):
        start = time.perf_counter()
        result[corner : corner + 100, corner : corner + 100].compute()
        print(f"{name} region of 100 x 100 px: {time.perf_counter() - start:.2f} s, peak {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
