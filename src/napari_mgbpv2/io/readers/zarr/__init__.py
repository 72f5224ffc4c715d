"""Zarr and OME-Zarr, in folders, zip files and object stores."""
