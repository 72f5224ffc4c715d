"""OME-Zarr writer: complete shards, a stored pyramid, atomic publishing, and resuming after a stop."""

from napari_mgbpv2.io.storage.backends import StorageBackend
from napari_mgbpv2.io.storage.journal import Index, PartialOutput, StoredShard, differences
from napari_mgbpv2.io.storage.partial_output import (
    complete_interrupted_publish,
    find_partial_output,
    free_space,
    open_transaction,
    provenance_of,
    translate_write_errors,
)
from napari_mgbpv2.io.writers.ome_zarr.downsampling import halve, is_half
from napari_mgbpv2.io.writers.ome_zarr.layout import CODECS, FORMATS, ImageLayout, Region
from napari_mgbpv2.io.writers.ome_zarr.shards import DamagedShards, ShardStore
from napari_mgbpv2.io.writers.ome_zarr.verifying import describe, faults_in_zarr
from napari_mgbpv2.io.writers.ome_zarr.writer import OMEZarrWriter

__all__ = [
    "CODECS",
    "FORMATS",
    "DamagedShards",
    "ImageLayout",
    "Index",
    "OMEZarrWriter",
    "PartialOutput",
    "Region",
    "ShardStore",
    "StorageBackend",
    "StoredShard",
    "complete_interrupted_publish",
    "describe",
    "differences",
    "faults_in_zarr",
    "find_partial_output",
    "free_space",
    "halve",
    "is_half",
    "open_transaction",
    "provenance_of",
    "translate_write_errors",
]
