"""The napari plugin: views ask, coordinators act, and everything that computes knows neither Qt nor napari."""
