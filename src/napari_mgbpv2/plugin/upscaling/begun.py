"""What an earlier run has left at a destination: whether it can be gone on with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from napari_mgbpv2.conversion import ConversionPlan
from napari_mgbpv2.conversion.oom import find_partial_output
from napari_mgbpv2.conversion.publishing import comparable


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


def begun_at(prepared: ConversionPlan) -> Begun | None:
    """Return the unfinished work at the destination if it is of the very same job."""
    from napari_mgbpv2.io.writers.ome_zarr import differences

    destination, layout = prepared.job.destination, prepared.layout
    assert isinstance(destination, Path), "the plugin saves to disks"
    kept = find_partial_output(destination)
    if kept is None or differences(comparable(kept.job), comparable(layout.provenance)):
        return None
    shards = sum(math.prod(layout.shard_counts(level)) for level in range(len(layout.level_shapes())))
    return Begun(destination, kept.shards / shards)
