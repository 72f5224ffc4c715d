"""TIFF, OME-TIFF and GeoTIFF."""
