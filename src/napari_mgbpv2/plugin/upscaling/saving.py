"""Saving: the conversion, with smaller tiles where the memory is not enough for those that were planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from napari_mgbpv2.conversion import Prepared, run
from napari_mgbpv2.errors import TilingError
from napari_mgbpv2.plugin.jobs import Clock, Step, is_out_of_memory
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale

SMALLEST_TILE = 64


def convert_with_retries(
    prepared: Prepared, tell: Callable[[Step | str], None], cancelled: Callable[[], bool]
) -> Prepared:
    """Convert; go on with smaller tiles when memory runs out, and say so. Memory of a device is given back at the end.

    Parameters
    ----------
    prepared
        The conversion.
    tell
        Called with a `Step`, or with a sentence.
    cancelled
        Asked before each tile.

    Returns
    -------
    Prepared
        What has been done.
    """
    from napari_mgbpv2.engine import release_device_memory

    try:
        while True:
            try:
                run(prepared, Clock(tell), cancelled)
                return prepared
            except (MemoryError, RuntimeError) as error:
                tile = smaller_tile(prepared.plan)
                if not is_out_of_memory(error) or tile is None:
                    raise
                prepared = with_tile(prepared, tile)
            release_device_memory()
            tell(f"Not enough memory: going on with tiles of {tile} px.")
    finally:
        release_device_memory()


def smaller_tile(plan: UpscalePlan) -> int | None:
    """Return a tile of half the size; None where that would be too small."""
    tile = max(plan.layout.grid.rows.tile, plan.layout.grid.columns.tile) // 2
    return tile if tile >= SMALLEST_TILE else None


def with_tile(prepared: Prepared, tile: int) -> Prepared:
    """Plan the same conversion with another tile.

    Raises
    ------
    MemoryError
        The network needs larger ones.
    """
    job = prepared.job
    options = {**job.options, "axes": prepared.source.axes, "tile": tile, "overlap": None}
    try:
        plan = plan_upscale(prepared.source.data, job.scale, model=job.model, **options)
    except TilingError as error:
        raise MemoryError(str(error)) from error
    return replace(prepared, plan=plan)
