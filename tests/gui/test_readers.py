"""The reader of napari-ome-zarr finds a result in its place, with its units and channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari_ome_zarr._reader import napari_get_reader

import napari_mgbpv2 as mgbp
from examples import a_network, an_image

NETWORK = a_network()


def layers(path: Path) -> list[Any]:
    """Data, attributes and type of each layer."""
    reader = napari_get_reader(str(path))
    assert reader is not None
    return list(reader(str(path)))


@pytest.mark.parametrize("output", ["0.4", "0.5"])
def test_scale_units_and_channel_names_are_right(tmp_path: Path, output: str) -> None:
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    image = an_image(2, 70, 90, dtype="u2")
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata)
    result = mgbp.convert(tmp_path / "a.ome.tif", tmp_path / "a.ome.zarr", model=NETWORK, format=output)
    ((data, attributes, kind),) = layers(result)
    assert kind == "image"
    assert attributes["name"] == ["a: DAPI", "a: GFP"]  # the image's name and the channel's
    assert attributes["channel_axis"] == 0
    np.testing.assert_allclose(attributes["scale"], (0.0625, 0.125))
    assert [str(unit) for unit in attributes["units"]] == ["micrometer", "micrometer"]
    levels = data if isinstance(data, list) else [data]
    np.testing.assert_array_equal(np.asarray(levels[0]), mgbp.upscale(image, axes="cyx", model=NETWORK).compute())
