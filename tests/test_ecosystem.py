"""Results are read by the programs of others: the same pixels, in the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from yaozarrs import validate_zarr_store

import napari_mgbpv2 as mgbp
from examples import a_network, an_image

NETWORK = a_network()
METADATA = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}

KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "grey": ((70, 90), {"axes": "YX"}),
    "colour": ((70, 90, 3), {"axes": "YXS", "photometric": "rgb"}),
    "channels": ((2, 70, 90), {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}),
    "stack": ((3, 70, 90), {"axes": "ZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}),
    "time, channels and stack": ((2, 2, 3, 40, 50), {"axes": "TCZYX", "TimeIncrement": 1.5, "TimeIncrementUnit": "s"}),
}


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An OME-TIFF of each kind."""
    shape, metadata = KINDS[request.param]
    options = {name: metadata[name] for name in ("photometric",) if name in metadata}
    told = METADATA | {name: value for name, value in metadata.items() if name not in options}
    tifffile.imwrite(tmp_path / "source.ome.tif", an_image(*shape, dtype="u1"), metadata=told, **options)
    return tmp_path / "source.ome.tif"


@pytest.fixture(params=["0.4", "0.5"])
def result(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> Path:
    """Its upscaled image in each version of OME-Zarr."""
    options = {"tile": 150, "chunk": 64, "shard": 128}
    return mgbp.convert(source, tmp_path / "result.ome.zarr", model=NETWORK, format=request.param, **options)


def opened(path: Path, format_name: str) -> Any:
    specification = {"driver": format_name, "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(specification).result()


def test_yaozarrs_finds_no_fault(result: Path) -> None:
    validate_zarr_store(result)


def test_tensorstore_reads_the_same_pixels_of_every_level(result: Path) -> None:
    group: Any = zarr.open_group(result, mode="r")
    driver = "zarr3" if group.metadata.zarr_format == 3 else "zarr"
    assert list(group.array_keys())
    for level in group.array_keys():
        np.testing.assert_array_equal(opened(result / level, driver).read().result(), np.asarray(group[level]))


@pytest.mark.parametrize("codec", ["zstd", "zstd-9", "lz4", "none"])
@pytest.mark.parametrize("output", ["0.4", "0.5"])
def test_tensorstore_reads_every_codec(tmp_path: Path, codec: str, output: str) -> None:
    image = an_image(60, 70, dtype="u2")
    path = mgbp.convert(image, tmp_path / "a.ome.zarr", model=NETWORK, codec=codec, format=output)
    expected = mgbp.upscale(image, model=NETWORK).compute()
    driver = "zarr3" if output == "0.5" else "zarr"
    np.testing.assert_array_equal(opened(path / "0", driver).read().result(), expected)


def test_a_plain_array_is_one(tmp_path: Path) -> None:
    image = an_image(60, 70, dtype="u2")
    path = mgbp.convert(image, tmp_path / "a.zarr", model=NETWORK, format="zarr")
    expected = mgbp.upscale(image, model=NETWORK).compute()
    array: Any = zarr.open_array(path, mode="r")
    np.testing.assert_array_equal(np.asarray(array), expected)
    assert array.metadata.dimension_names == ("y", "x")
    assert array.attrs["napari_mgbpv2"]["scale"] == 4
    np.testing.assert_array_equal(opened(path, "zarr3").read().result(), expected)
