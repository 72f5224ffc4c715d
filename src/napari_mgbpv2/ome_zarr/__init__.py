"""Writing OME-Zarr 0.5: one whole shard at a time, a pyramid of stored levels, and all of it visible at once."""

from napari_mgbpv2.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.ome_zarr.place import free_space
from napari_mgbpv2.ome_zarr.writer import OMEZarrWriter, halve

__all__ = ["ImageLayout", "OMEZarrWriter", "Region", "free_space", "halve"]
