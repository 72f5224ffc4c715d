"""What an earlier run has left at a destination: whether it can be gone on with, and how it may be dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_mgbpv2.conversion import Prepared, prepare
from napari_mgbpv2.errors import TilingError
from napari_mgbpv2.upscaling import UpscalePlan

SMALLEST_TILE = 64


@dataclass(frozen=True)
class Begun:
    """Unfinished work that has the settings that are wanted.

    Attributes
    ----------
    destination
        Of the work.
    share
        How much of it is done, 0 to 1.
    """

    destination: Path
    share: float

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"{self.share:.0%} of {self.destination.name} is done already, with these settings."


def kept_at(destination: Path) -> Path | None:
    """Return where work is kept that has not been completed; None where there is none."""
    from napari_mgbpv2.ome_zarr import partial_of
    from napari_mgbpv2.ome_zarr.journal import has_shards

    partial = partial_of(destination)
    return partial if has_shards(partial) else None


def begun_at(prepared: Prepared) -> Begun | None:
    """Return the unfinished work at the destination if it is of the very same job."""
    from napari_mgbpv2.ome_zarr import differences
    from napari_mgbpv2.ome_zarr.journal import NAME, job_in

    destination, layout = prepared.job.destination, prepared.layout
    kept = kept_at(destination)
    if kept is None or differences(job_in(kept) or {}, layout.provenance):
        return None
    with (kept / NAME).open("rb") as journal:
        stored = sum(1 for _ in journal) - 1  # behind a line about the job, one line a shard
    shards = sum(math.prod(layout.shard_counts(level)) for level in range(len(layout.level_shapes())))
    return Begun(destination, stored / shards)


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
    try:
        return prepare(replace(job, options={**job.options, "tile": tile, "overlap": None}))
    except TilingError as error:
        raise MemoryError(str(error)) from error


def with_tile_of_what_is_there(prepared: Prepared) -> Prepared:
    """Take over the tile of an earlier run, finished or not, where that had to halve its own: to get the same one."""
    wanted = (_job_of_what_is_there(prepared) or {}).get("tile")
    halved = prepared
    while wanted and max(halved.layout.provenance["tile"]) > max(wanted):
        tile = smaller_tile(halved.plan)
        if tile is None:
            return prepared
        try:
            halved = with_tile(halved, tile)
        except MemoryError:
            return prepared
    return halved if halved.layout.provenance["tile"] == wanted else prepared


def drop(prepared: Prepared) -> None:
    """Remove the unfinished work of this very job; nothing else, least of all a finished image."""
    from napari_mgbpv2.ome_zarr import differences
    from napari_mgbpv2.ome_zarr.journal import job_in
    from napari_mgbpv2.ome_zarr.place import Place

    job = prepared.job
    place = Place(job.destination, overwrite=job.overwrite, is_file=job.makes_tiff)
    if differences(job_in(place.partial) or {}, prepared.layout.provenance):
        place.keep()
    else:
        place.give_up()


def _job_of_what_is_there(prepared: Prepared) -> Mapping[str, Any] | None:
    from napari_mgbpv2.ome_tiff import read_provenance
    from napari_mgbpv2.ome_zarr import provenance_of
    from napari_mgbpv2.ome_zarr.journal import job_in

    job = prepared.job
    kept = kept_at(job.destination)
    if kept is not None:
        return job_in(kept)
    return read_provenance(job.destination) if job.makes_tiff else provenance_of(job.destination)
