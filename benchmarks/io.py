"""Conversion with a network that does nothing, against a plain copy from Zarr to Zarr of the same bytes.

    python benchmarks/io.py [--side 8192] [--rounds 3]
    python benchmarks/io.py --wide [--rounds 3]     # an image of 200,000 columns against a square one, as many pixels

What a conversion costs beside its network: reading, cutting into tiles, blending, casting, writing down to the disk.
The copy reads a result of the conversion and writes it to an array with the same chunks, shards and codec, whole shards
in as many threads. Both write one level; the ratio is of the medians of rounds that alternate.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from identity import prepared_identity
from napari_mgbpv2.conversion import ConversionPlan, run
from napari_mgbpv2.conversion.job import IN_FLIGHT

WIDTH = 200_000
CASES = {"grey, 16 bits": ("yx", "u2"), "RGB, 8 bits": ("yxs", "u1")}


def copy(source: Path, destination: Path, prepared: ConversionPlan) -> None:
    read: Any = zarr.open_group(source, mode="r")["0"]
    shutil.rmtree(destination, ignore_errors=True)
    write: Any = zarr.create_array(
        destination,
        shape=read.shape,
        dtype=read.dtype,
        chunks=read.chunks,
        shards=read.shards,
        compressors=read.compressors,
        config={"write_empty_chunks": True},
    )

    def one(region: tuple[slice, ...]) -> None:
        write[region] = read[region]

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, prepared.layout.shards()))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_wide(side: int, rounds: int) -> None:
    """Print how fast a wide image is converted, to a square one."""
    shapes = {"square": (side, side), "wide": (side * side // WIDTH, WIDTH)}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {}
        for name, shape in shapes.items():
            rows, columns = (np.arange(size, dtype=np.uint16) for size in shape)
            jobs[name] = prepared_identity(
                np.add.outer(rows // 8, columns % 997), "yx", Path(folder) / f"{name}.ome.zarr"
            )
            run(jobs[name])  # also warms up
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(rounds):
            for name, prepared in jobs.items():
                times[name].append(seconds(lambda: run(prepared)))  # noqa: B023
    for name, (height, width) in shapes.items():
        speed = height * width / 1e6 / statistics.median(times[name])
        tiles = (1 + jobs[name].shard_order.extra_share) * jobs[name].plan.layout.tiles
        print(f"{name}: {height} x {width} px, {tiles:.0f} tiles run, {speed:.1f} Mpx/s")
    ratios = [square / wide for square, wide in zip(times["square"], times["wide"], strict=True)]
    print(f"wide to square: {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="pixels of the result along y and x")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wide", action="store_true", help="compare the shapes of images instead")
    options = parser.parse_args()
    if options.wide:
        compare_wide(options.side, options.rounds)
        return
    print(f"{options.side} x {options.side} px, {IN_FLIGHT} threads, median of {options.rounds} rounds")
    print(f"{'':16}{'copy MB/s':>12}{'conversion MB/s':>18}{'ratio':>8}")
    for name, (axes, dtype) in CASES.items():
        side = options.side
        shape = (side, side, 3)[: len(axes)]
        ramp = np.add.outer(np.arange(side), np.arange(side)) // 8  # compresses about as pictures do
        noise = np.random.default_rng(0).integers(0, 12, shape)
        source = ((ramp if len(axes) == 2 else ramp[..., np.newaxis]) + noise).astype(dtype)
        with tempfile.TemporaryDirectory() as folder:
            converted, copied = Path(folder) / "converted.ome.zarr", Path(folder) / "copied.zarr"
            prepared = prepared_identity(source, axes, converted, levels=1)
            run(prepared)  # also warms up
            times: dict[str, list[float]] = {"copy": [], "conversion": []}
            for _ in range(options.rounds):
                times["copy"].append(seconds(lambda: copy(converted, copied, prepared)))  # noqa: B023
                times["conversion"].append(seconds(lambda: run(prepared)))  # noqa: B023
        megabytes = source.nbytes / 1e6
        copying, converting = (megabytes / statistics.median(each) for each in times.values())
        print(f"{name:16}{copying:>12.0f}{converting:>18.0f}{converting / copying:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
