"""What tiling costs: a whole lazy computation against the bare network on the same number of output pixels.

    python benchmarks/overhead.py [--megapixels 4] [--model x4] [--rounds 3]

The bare network runs on one tile of the same size, with the same threads, as often as it takes for the same number of
pixels. The parts: overlap (pixels that tiles share are computed in each), bicubic upscaling, blending with the cast to
8 bits, and the rest (Dask, reading, bookkeeping). Rounds alternate between the two; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import dask
import numpy as np
import torch

from napari_mgbpv2.imaging.resampling import ResamplingWeights, upscale_window
from napari_mgbpv2.runtime import get_engine, run_on_engine_thread
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.lazy import as_dask
from napari_mgbpv2.upscaling.options import UpscaleOptions


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Contest:
    """One plan, and the pieces of its computation by themselves."""

    def __init__(self, megapixels: float, model: str) -> None:
        scale = plan_upscale(np.zeros((8, 8, 3), np.uint8), UpscaleOptions(model=model)).scale
        side = round((megapixels * 1e6) ** 0.5 / scale)
        self.image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        self.model, self.side, self.scale = model, side, scale
        self.plan: UpscalePlan = plan_upscale(self.image, UpscaleOptions(model=model))
        self.grid = self.plan.layout.grid
        compute = self.plan.compute_tile
        self.bare = get_engine(compute.model, False, "cpu", "float32").networks[0]  # type: ignore[arg-type]
        shape = (self.grid.rows.tile, self.grid.columns.tile)
        # all of torch in the thread of the engines: OpenMP threads of another one would make both slower
        self.tile = run_on_engine_thread(lambda: torch.rand(1, 3, *shape).to(memory_format=torch.channels_last))
        self.output_pixels = (side * scale) ** 2

    def network(self) -> None:
        run_on_engine_thread(lambda: self.bare(self.tile))

    def bicubic(self) -> None:
        source_size = -(-self.grid.rows.tile // self.scale)
        taps = ResamplingWeights.of(np.arange(self.grid.rows.tile), self.scale, source_size)
        source = torch.from_numpy(np.zeros((3, source_size, source_size), np.float32))

        def upscale() -> torch.Tensor:
            with torch.inference_mode():
                return upscale_window(source, taps, taps)

        run_on_engine_thread(upscale)

    def blending(self) -> None:
        shape = (3, self.grid.rows.tile, self.grid.columns.tile)
        tile = np.random.default_rng(0).random(shape, dtype=np.float32)
        image = self.plan.tiled_image(
            wrap_compute=lambda _: lambda plane, group, row, column: self._core(tile, row, column)
        )
        self.blended = seconds(lambda: image[...])

    def _core(self, tile: np.ndarray, row: int, column: int) -> np.ndarray:
        return tile[:, : self.grid.rows.core(row).size, : self.grid.columns.core(column).size].copy()

    def lazy(self) -> None:
        with dask.config.set(scheduler="threads"):
            as_dask(self.plan.tiled_image()).compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=4.0, help="size of the output")
    parser.add_argument("--model", default="x4")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    contest = Contest(options.megapixels, options.model)
    contest.network()
    contest.lazy()
    rounds = []
    for _ in range(options.rounds):
        tile_seconds = seconds(contest.network)
        lazy_seconds = seconds(contest.lazy)
        tile_seconds = (tile_seconds + seconds(contest.network)) / 2
        bicubic_seconds = seconds(contest.bicubic)
        contest.blending()
        rounds.append((lazy_seconds, tile_seconds, bicubic_seconds, contest.blended))
    lazy, tile, bicubic, blending = (statistics.median(column) for column in zip(*rounds, strict=True))

    tiles, grid = contest.plan.layout.tiles, contest.grid
    bare = tile * contest.output_pixels / (grid.rows.tile * grid.columns.tile)
    overlap = grid.computed_share
    print(f"output {contest.output_pixels / 1e6:.1f} Mpx, {tiles} tiles of {grid.rows.tile} x {grid.columns.tile} px")
    print(f"threads {torch.get_num_threads()}, median of {options.rounds}; seconds vary between runs, ratios less")
    print(f"{'bare network, same pixels':32}{bare:8.2f} s")
    print(f"{'lazy computation':32}{lazy:8.2f} s   ratio {lazy / bare:.3f}")
    print(f"{'  of it: overlap':32}{bare * (overlap - 1):8.2f} s         {overlap - 1:.3f}")
    print(f"{'  of it: bicubic':32}{bicubic * tiles:8.2f} s         {bicubic * tiles / bare:.3f}")
    print(f"{'  of it: blending and cast':32}{blending:8.2f} s         {blending / bare:.3f}")
    rest = lazy - bare * overlap - bicubic * tiles - blending
    print(f"{'  of it: graph and all else':32}{rest:8.2f} s         {rest / bare:.3f}")
    print(f"ratio less the overlap's own share: {lazy / (bare * overlap):.3f}")


if __name__ == "__main__":
    main()
