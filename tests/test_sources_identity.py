"""What a fingerprint tells of a source: whether it still is what it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source, source_without_metadata
from source_files import CYX, pixels, unit_scale, write_ome_zarr


def write_tiff(path: Path, seed: int) -> None:
    tifffile.imwrite(path, pixels(40, 50, seed=seed), tile=(16, 16), compression="zlib")


def write_png(path: Path, seed: int) -> None:
    Image.fromarray(pixels(40, 50, dtype="u1", seed=seed)).save(path)


def write_npy(path: Path, seed: int) -> None:
    np.save(path, pixels(40, 50, seed=seed))


def write_zarr(path: Path, seed: int) -> None:
    zarr.create_array(path, data=pixels(40, 50, seed=seed), overwrite=True)


def write_levels(path: Path, seed: int) -> None:
    image = pixels(2, 40, 50, seed=seed)
    write_ome_zarr(path, [image, image[:, ::2, ::2]], CYX, [unit_scale(3)] * 2)


WRITERS = {"a.tif": write_tiff, "a.png": write_png, "a.npy": write_npy, "a.zarr": write_zarr, "b.zarr": write_levels}


@pytest.fixture(params=list(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path, int], None]]:
    """Write an image of each format, and return its path and what writes another one."""
    write = WRITERS[request.param]
    write(tmp_path / request.param, 0)
    return tmp_path / request.param, write


class TestFiles:
    def test_the_same_file_is_told_alike_through_json(self, written: tuple[Path, Any]) -> None:
        first = open_source(written[0]).fingerprint()
        assert json.loads(json.dumps(open_source(written[0]).fingerprint())) == first

    def test_it_has_the_absolute_path(self, written: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(written[0].parent)
        assert open_source(written[0].name).fingerprint()["path"] == str(written[0])

    def test_a_file_that_was_written_anew_is_another(self, written: tuple[Path, Any]) -> None:
        path, write = written
        before = open_source(path).fingerprint()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        write(path, 1)
        for file in [path] if path.is_file() else path.rglob("zarr.json"):  # the clock of some disks is coarse
            os.utime(file, ns=(0, 12345))
        assert open_source(path).fingerprint() != before

    def test_a_file_that_has_gone_is_an_error(self, written: tuple[Path, Any]) -> None:
        path, _ = written
        source = open_source(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(SourceError, match=rf"{path.name}: .*bring (the file|it) back"):
            source.fingerprint()

    def test_a_copy_of_a_zarr_elsewhere_is_another(self, tmp_path: Path) -> None:
        write_levels(tmp_path / "a.zarr", 0)
        shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
        assert open_source(tmp_path / "a.zarr").fingerprint() != open_source(tmp_path / "b.zarr").fingerprint()

    def test_the_metadata_of_a_zarr_and_of_its_array_count(self, tmp_path: Path) -> None:
        write_levels(tmp_path / "a.zarr", 0)
        files = open_source(tmp_path / "a.zarr", level=1).fingerprint()["files"]
        assert sorted(files) == [str(tmp_path / "a.zarr" / "1" / "zarr.json"), str(tmp_path / "a.zarr" / "zarr.json")]

    def test_series_and_level_count(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            for seed in (0, 1):
                image = pixels(64, 64, seed=seed)
                writer.write(image, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
                writer.write(image[::2, ::2], subfiletype=1, tile=(16, 16))
        choices = [(0, 0), (0, 1), (1, 0), (1, 1)]
        told = [open_source(tmp_path / "a.ome.tif", series=i, level=j).fingerprint() for i, j in choices]
        assert [(each["series"], each["level"]) for each in told] == choices

    def test_all_files_of_an_image_count(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(40, 50), metadata=None, compression="zlib")
        tifffile.imwrite(tmp_path / "b.tif", pixels(40, 50, seed=1), metadata=None, compression="zlib")
        xml = TWO_FILES.replace("\n", "")
        tifffile.imwrite(tmp_path / "a.tif", pixels(40, 50), description=xml, metadata=None, compression="zlib")
        assert sorted(open_source(tmp_path / "a.tif").fingerprint()["files"]) == [
            str(tmp_path / "a.tif"),
            str(tmp_path / "b.tif"),
        ]


TWO_FILES = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0"
 DimensionOrder="XYZCT" Type="uint16" SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstZ="0" PlaneCount="1"/>
<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="b.tif">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


class TestArraysInMemory:
    def test_content_is_compared(self) -> None:
        image = pixels(40, 50)
        told = source_without_metadata(image, "yx", "array", "array").fingerprint()
        assert source_without_metadata(np.asfortranarray(image), "yx", "array", "array").fingerprint() == told
        assert source_without_metadata(pixels(40, 50, seed=1), "yx", "array", "array").fingerprint() != told
        assert source_without_metadata(image.view("i2"), "yx", "array", "array").fingerprint() != told

    def test_what_cannot_be_told_cheaply_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import dask.array as da

        lazy = source_without_metadata(da.zeros((40, 50), dtype="u2"), "yx", "array", "array")
        assert lazy.fingerprint()["sha256"] is None
        monkeypatch.setattr("napari_mgbpv2.io.fingerprints._HASHED_BYTES", 3999)
        large = source_without_metadata(pixels(40, 50), "yx", "array", "array").fingerprint()
        assert (large["sha256"], large["shape"], large["dtype"]) == (None, [40, 50], "<u2")
