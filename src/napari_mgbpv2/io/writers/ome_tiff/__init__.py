"""Writing OME-TIFF: the stored levels of an image as the tiled pyramid of one file, a few tiles at a time."""

from napari_mgbpv2.io.writers.ome_tiff.reading import read_provenance
from napari_mgbpv2.io.writers.ome_tiff.verifying import faults_in_tiff
from napari_mgbpv2.io.writers.ome_tiff.writer import COMPRESSIONS, tiff_dtype, write_ome_tiff

__all__ = ["COMPRESSIONS", "faults_in_tiff", "read_provenance", "tiff_dtype", "write_ome_tiff"]
