"""What checksums of chunks cost: writing and reading shards of an image with and without them.

``python benchmarks/checksums.py`` prints the ratios with the name of the processor. Storage is in memory, and time is
that of the processor; each figure is the fastest of several runs that take turns.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

SIDE, SHARD, CHUNK, ROUNDS = 4096, 1024, 512, 7


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def image() -> np.ndarray:
    """Make pixels that compress like those of a micrograph."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 4000, (SIDE // 32, SIDE // 32)).astype("f4")
    smooth = np.kron(coarse, np.ones((32, 32), "f4"))
    return (smooth + generator.normal(0, 20, smooth.shape)).clip(0, 65535).astype("u2")


def measure(pixels: np.ndarray, codecs: Any) -> tuple[float, float]:
    """Return the seconds of all processors that writing and reading take."""
    array = zarr.create_array(
        MemoryStore(), shape=pixels.shape, dtype=pixels.dtype, shards=(SHARD, SHARD), chunks=(CHUNK, CHUNK),
        compressors=codecs,
    )  # fmt: skip
    start = time.process_time()
    array[:] = pixels
    written = time.process_time()
    np.asarray(array[:])
    return written - start, time.process_time() - written


def main() -> None:
    """Measure, and print."""
    pixels = image()
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
    rounds = [[measure(pixels, [blosc]), measure(pixels, [blosc, Crc32cCodec()])] for _ in range(ROUNDS)]
    for part, name in enumerate(("writing", "reading")):
        without, checked = (min(each[which][part] for each in rounds) for which in (0, 1))
        print(f"{name}: {checked / without:.3f} times as long with checksums ({processor()})")


if __name__ == "__main__":
    main()
