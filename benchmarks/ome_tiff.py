"""What an OME-TIFF costs: writing it from stored levels, against copying the same levels from Zarr to Zarr.

    python benchmarks/ome_tiff.py [--side 8192] [--compressions zlib zstd none]

The image is in colour, 8 bits, each shard of it an enlarged photograph, cut like the OME-Zarr that a conversion writes
(chunks of 512 px, shards of 2048 px, Zstandard). The copy decodes and encodes every shard with the same codec. Speeds
are of level 0 and the lower levels together, before compression; both use as many threads as they like.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from PIL import Image
from zarr.codecs import BloscCodec

from napari_mgbpv2.io.writers.ome_tiff import COMPRESSIONS, write_ome_tiff
from napari_mgbpv2.model.zoo import packaged

SAMPLE = Path(packaged.__file__).parents[2] / "samples" / "astronaut.png"
CHUNK, SHARD = 512, 2048


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def a_level(path: Path, side: int) -> zarr.Array:
    return zarr.create_array(
        path,
        shape=(3, side, side),
        dtype="u1",
        chunks=(3, min(CHUNK, side), min(CHUNK, side)),
        shards=(3, min(SHARD, side), min(SHARD, side)),
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
    )


def shards(level: zarr.Array) -> list[tuple[slice, slice, slice]]:
    side, step = level.shape[-1], (level.shards or level.chunks)[-1]
    parts = [slice(start, min(start + step, side)) for start in range(0, side, step)]
    return [(slice(None), rows, columns) for rows, columns in itertools.product(parts, parts)]


def stored_pyramid(folder: Path, side: int) -> list[zarr.Array]:
    photograph = np.asarray(Image.open(SAMPLE).convert("RGB").resize((SHARD, SHARD), Image.Resampling.BICUBIC))
    planes = np.moveaxis(photograph, -1, 0)
    levels = []
    while not levels or side > 256:
        side = side if not levels else side // 2
        level = a_level(folder / str(len(levels)), side)
        for region in shards(level):
            shape = [part.stop - part.start for part in region[1:]]
            level[region] = planes[:, : shape[0], : shape[1]]
        levels.append(level)
    return levels


def copy(levels: list[zarr.Array], folder: Path) -> None:
    for number, level in enumerate(levels):
        target = a_level(folder / str(number), level.shape[-1])
        for region in shards(level):
            target[region] = level[region]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="of level 0, a multiple of 2048")
    parser.add_argument("--compressions", nargs="+", choices=COMPRESSIONS, default=["zlib", "zstd", "none"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        levels = stored_pyramid(folder / "source", options.side)
        megabytes = sum(level.nbytes for level in levels) / 1e6
        path = folder / "written.ome.tif"
        works: dict[str, Callable[[int], object]] = {"zarr copy": lambda turn: copy(levels, folder / f"copy{turn}")}
        for compression in options.compressions:
            works[compression] = lambda turn, compression=compression: write_ome_tiff(
                path, levels, axes="cyx", colour=True, pixel_size=[1, 0.5, 0.5], units=[None, None, None],
                translation=[0, 0, 0], name="photograph", channel_names=None, channel_colors=None, provenance={},
                compression=compression,
            )  # fmt: skip
        times: dict[str, list[float]] = {what: [] for what in works}
        sizes: dict[str, int] = {}
        for turn in range(options.rounds):
            for what, work in works.items():
                times[what].append(seconds(lambda work=work, turn=turn: work(turn)))
                if path.exists():
                    sizes[what] = path.stat().st_size
    copied = min(times["zarr copy"])
    print(
        f"{options.side} x {options.side} px RGB in {len(levels)} levels, {megabytes:.0f} MB; best of {options.rounds}"
    )
    print(f"{'':12}{'MB/s':>8}{'to the copy':>14}{'of its size':>14}")
    for what, each in times.items():
        size = f"{sizes[what] / megabytes / 1e6:>13.0%}" if what in sizes and what != "zarr copy" else ""
        print(f"{what:12}{megabytes / min(each):>8.0f}{copied / min(each):>14.2f}{size:>14}")


if __name__ == "__main__":
    main()
