"""Pixel sizes and positions that no image can have: they are stated and not used, and nothing fails."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from examples import a_network
from napari_mgbpv2.conversion.job import ConversionJob
from napari_mgbpv2.conversion.plan import prepare
from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.upscaling.options import UpscaleOptions

IMAGE = np.full((16, 16), 7, "u1")
OME_XML = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeZ="1" SizeC="1" SizeT="1" '
    'PhysicalSizeX="{0}" PhysicalSizeY="{0}"><Channel ID="C:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)


def ome_zarr(path: Path, scale: float, translation: float) -> Path:
    zarr.create_array(path / "0", data=IMAGE)
    transformations = [
        {"type": "scale", "scale": [scale, scale]},
        {"type": "translation", "translation": [translation, translation]},
    ]
    multiscale = {
        "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
    }
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}},
    }
    (path / "zarr.json").write_text(json.dumps(group))
    return path


@pytest.mark.parametrize("size", ["5e-324", "1.7e308"])
def test_pixel_sizes_of_ome_xml(size: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, IMAGE, description=OME_XML.format(size).encode(), metadata=None)
    source = prepare(ConversionJob(path, tmp_path / "out.ome.zarr", UpscaleOptions(model=a_network()))).source
    assert source.pixel_size == {"y": 1.0, "x": 1.0}
    assert any("pixel size along x" in note for note in source.notes)


@pytest.mark.parametrize("size", [5e-324, 1.7e308])
def test_pixel_sizes_of_ome_zarr(size: float, tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.ome.zarr", size, 0.0)
    source = prepare(ConversionJob(path, tmp_path / "out.ome.zarr", UpscaleOptions(model=a_network()))).source
    assert (source.pixel_size["x"], source.units["x"]) == (1.0, None)
    assert any("pixel size along x" in note for note in source.notes)


def test_positions_of_ome_zarr(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.ome.zarr", 0.5, 1.7e308)
    source = prepare(ConversionJob(path, tmp_path / "out.ome.zarr", UpscaleOptions(model=a_network()))).source
    assert (source.pixel_size["x"], source.translation["x"]) == (0.5, 0.0)
    assert any("position along x (1.7e+308)" in note for note in source.notes)


def test_plausible_lengths_stay_without_a_note(tmp_path: Path) -> None:
    source = open_source(ome_zarr(tmp_path / "a.ome.zarr", 0.25, -3.0))
    assert (source.pixel_size["x"], source.translation["x"], source.notes) == (0.25, -3.0, ())


@pytest.mark.parametrize("size", [5e-324, 1e308, float("inf"), float("nan"), -1.0])
def test_pixel_sizes_that_are_given(size: float, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGE)
    with pytest.raises(ImageError, match="give a finite number above 0"):
        open_source(tmp_path / "a.npy", pixel_size=size)


@pytest.mark.parametrize("rows", [1, 100])
def test_a_tiff_whose_size_takes_countless_strips(rows: int, tmp_path: Path) -> None:
    """In a file that lists one of them: what it lacks would be filled in one by one."""
    tags = {256: 10**9, 257: 10**9, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: rows, 279: 10}
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 32) + bytes(24) + struct.pack("<H", len(tags))
    (tmp_path / "a.tif").write_bytes(header + entries + bytes(4))
    with pytest.raises(SourceError, match=r"announces .* tiles or strips"):
        open_source(tmp_path / "a.tif")


@pytest.mark.parametrize("size", ["INF", "inf", "NaN", "-1", "0", "1e400", "wide"])
def test_pixel_sizes_of_ome_xml_that_are_no_lengths(size: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, description=OME_XML.format(size).encode(), metadata=None)
    source = open_source(tmp_path / "a.ome.tif")
    assert source.pixel_size == {"y": 1.0, "x": 1.0}
    assert f"its pixel size along x ({size!r}) cannot be one and is not used" in source.notes


@pytest.mark.parametrize("position", ["INF", "NaN", "there"])
def test_positions_of_ome_xml_that_are_no_lengths(position: str, tmp_path: Path) -> None:
    plane = f'<TiffData/><Plane TheZ="0" TheC="0" TheT="0" PositionX="{position}" PositionXUnit="µm"/>'
    text = OME_XML.format("0.5").replace("<TiffData/>", plane)
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, description=text.encode(), metadata=None)
    source = open_source(tmp_path / "a.ome.tif")
    assert (source.pixel_size["x"], source.translation["x"]) == (0.5, 0.0)
    assert source.notes == (f"its position along x ({position!r}) cannot be one and is not used",)


@pytest.mark.parametrize("size", [float("inf"), float("nan"), 0.0])
def test_pixel_scales_of_geotiff_that_are_no_lengths(size: float, tmp_path: Path) -> None:
    tags: list[tuple[int, str, int, tuple[float, ...], bool]] = [
        (33550, "d", 3, (size, size, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 1.0, 2.0, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    ]
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, extratags=tags)
    source = open_source(tmp_path / "a.tif")
    assert source.pixel_size == {"y": 1.0, "x": 1.0}
    assert any("position of the map cannot be those of an image" in note for note in source.notes)
