"""The widget "Batch to OME-Zarr": many files, one after the other."""
