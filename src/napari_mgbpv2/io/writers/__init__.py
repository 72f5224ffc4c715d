"""OME-Zarr and OME-TIFF out."""
