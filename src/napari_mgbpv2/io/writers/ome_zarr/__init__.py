"""Writing OME-Zarr: whole shards, a pyramid of stored levels, and all of it visible at once; after a stop, the rest."""

from napari_mgbpv2.io.storage.backends import Storage
from napari_mgbpv2.io.storage.journal import Index, Kept, StoredShard
from napari_mgbpv2.io.storage.partial_output import (
    free_space,
    kept_at,
    place_at,
    provenance_of,
    telling_errors,
    tidy_finished,
)
from napari_mgbpv2.io.writers.ome_zarr.downsampling import halve, is_half
from napari_mgbpv2.io.writers.ome_zarr.layout import CODECS, FORMATS, ImageLayout, Region
from napari_mgbpv2.io.writers.ome_zarr.shards import DamagedShards, ShardStore
from napari_mgbpv2.io.writers.ome_zarr.verifying import describe, faults_in_zarr
from napari_mgbpv2.io.writers.ome_zarr.writer import OMEZarrWriter, differences

__all__ = [
    "CODECS",
    "FORMATS",
    "DamagedShards",
    "ImageLayout",
    "Index",
    "Kept",
    "OMEZarrWriter",
    "Region",
    "ShardStore",
    "Storage",
    "StoredShard",
    "describe",
    "differences",
    "faults_in_zarr",
    "free_space",
    "halve",
    "is_half",
    "kept_at",
    "place_at",
    "provenance_of",
    "telling_errors",
    "tidy_finished",
]
