"""Writing OME-Zarr: whole shards, a pyramid of stored levels, and all of it visible at once; after a stop, the rest."""

from napari_mgbpv2.ome_zarr.halving import halve
from napari_mgbpv2.ome_zarr.journal import remove_journal
from napari_mgbpv2.ome_zarr.layout import CODECS, FORMATS, ImageLayout, Region
from napari_mgbpv2.ome_zarr.place import free_space, partial_of, provenance_of
from napari_mgbpv2.ome_zarr.shards import Index, ShardStore, StoredShard
from napari_mgbpv2.ome_zarr.writer import OMEZarrWriter, differences

__all__ = [
    "CODECS",
    "FORMATS",
    "ImageLayout",
    "Index",
    "OMEZarrWriter",
    "Region",
    "ShardStore",
    "StoredShard",
    "differences",
    "free_space",
    "halve",
    "partial_of",
    "provenance_of",
    "remove_journal",
]
