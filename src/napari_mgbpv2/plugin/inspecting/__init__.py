"""The widget "Inspect": the filter at a pixel, and maps of where a result is invented or leaves the data."""
