"""Faults of the image's file, and of arrays that somebody else's code gives."""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray
import zarr
from folder import SMALL_SHARDS, Folder, on_posix, wait_for_shards
from PIL import Image
from table import Row
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import napari_mgbpv2 as mgbp
from examples import Array, an_image

HUGE = 10**6  # pixels along a side: more than any memory holds


def a_tiff(folder: Folder, **options: Any) -> Path:
    """Write a TIFF of four tiles."""
    tifffile.imwrite(folder.path / "image.tif", an_image(128, 128, dtype="u2"), tile=(64, 64), **options)
    return folder.path / "image.tif"


def flip_a_bit(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def flip_a_bit_of_a_tile(file: Path) -> None:
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        place = page.dataoffsets[1] + page.databytecounts[1] // 2
    flip_a_bit(file, place)


def a_zarr(folder: Folder, **options: Any) -> tuple[Path, Path]:
    """Write a Zarr of four chunks; return it and the file of its last one."""
    path = folder.path / "image.zarr"
    zarr.create_array(path, data=an_image(128, 128, dtype="u2"), chunks=(64, 64), **options)
    return path, path / "c" / "1" / "1"


def meanwhile(folder: Folder, happens: Callable[[], object]) -> threading.Thread:
    """Let something happen as soon as ten shards are stored."""
    watching = threading.Thread(target=lambda: (wait_for_shards(folder.destination, 10), happens()))
    watching.start()
    return watching


def test_missing(row: Row, folder: Folder) -> None:
    row.is_shown_by(folder.upscale(folder.path / "gone.tif"))


def test_empty(row: Row, folder: Folder) -> None:
    (folder.path / "image.tif").touch()
    row.is_shown_by(folder.upscale(folder.path / "image.tif"))


def test_no_image(row: Row, folder: Folder) -> None:
    (folder.path / "image.tif").write_text("Dear Sir or Madam")
    row.is_shown_by(folder.upscale(folder.path / "image.tif"))


def test_no_image_in_a_folder(row: Row, folder: Folder) -> None:
    (folder.path / "scans").mkdir()
    row.is_shown_by(folder.upscale(folder.path / "scans"))


def test_one_of_a_folder(row: Row, folder: Folder) -> None:
    scans = folder.path / "scans"
    scans.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(an_image(20, 30)).save(scans / name)
    (scans / "b.tif").write_text("Dear Sir or Madam")
    folder.destination = folder.path / "results"
    outcome = folder.upscale(scans)
    row.is_shown_by(outcome)
    assert sorted(path.name for path in folder.destination.iterdir()) == ["a_x4.ome.zarr", "c_x4.ome.zarr"]


def test_tiff_cut_short(row: Row, folder: Folder) -> None:
    path = a_tiff(folder)
    path.write_bytes(path.read_bytes()[:-999])
    row.is_shown_by(folder.upscale(path))


def test_series(row: Row, folder: Folder) -> None:
    row.is_shown_by(folder.upscale(folder.image(20, 20), "--series", 5))


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_tiff_damaged(row: Row, folder: Folder, compression: str) -> None:
    path = a_tiff(folder, compression=compression)
    flip_a_bit_of_a_tile(path)
    row.is_shown_by(folder.upscale(path))


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiff_damaged_unnoticed(row: Row, folder: Folder, compression: str | None) -> None:
    path = a_tiff(folder, compression=compression)
    flip_a_bit_of_a_tile(path)
    row.is_shown_by(folder.upscale(path))


def test_zarr_cut_short(row: Row, folder: Folder) -> None:
    path, chunk = a_zarr(folder)
    chunk.write_bytes(chunk.read_bytes()[:-99])
    row.is_shown_by(folder.upscale(path))


@pytest.mark.parametrize("codecs", [[ZstdCodec(checksum=True)], [ZstdCodec(), Crc32cCodec()], [GzipCodec()]])
def test_zarr_damaged(row: Row, folder: Folder, codecs: list[Any]) -> None:
    path, chunk = a_zarr(folder, compressors=codecs)
    flip_a_bit(chunk, chunk.stat().st_size // 2)
    row.is_shown_by(folder.upscale(path))


@pytest.mark.parametrize("codecs", [None, [BloscCodec()]])
def test_zarr_damaged_unnoticed(row: Row, folder: Folder, codecs: list[Any] | None) -> None:
    path, chunk = a_zarr(folder, compressors=codecs)
    flip_a_bit(chunk, chunk.stat().st_size // 2)
    row.is_shown_by(folder.upscale(path))


def test_tiff_bomb(row: Row, folder: Folder) -> None:
    """One strip of a terabyte, in a file of some kilobytes."""
    path = folder.path / "image.tif"
    tifffile.imwrite(path, an_image(64, 64), compression="zlib", rowsperstrip=64, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[name].overwrite(HUGE, dtype="I")
    row.is_shown_by(folder.upscale(path))


def test_tiff_tag(row: Row, folder: Folder) -> None:
    path = folder.path / "image.tif"
    tifffile.imwrite(path, an_image(64, 64), description="cells " * 9)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["ImageDescription"].offset + 4  # its count, behind code and type
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", 2**32 - 16)
    path.write_bytes(content)
    row.is_shown_by(folder.upscale(path))


def test_png_bomb(row: Row, folder: Folder) -> None:
    """A terabyte of black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(2**16))), chunk(b"IEND", b"")]
    path = folder.path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    row.is_shown_by(folder.upscale(path))


def test_postscript(row: Row, folder: Folder) -> None:
    path = folder.path / "image.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    row.is_shown_by(folder.upscale(path))


@on_posix
def test_pipe(row: Row, folder: Folder) -> None:
    os.mkfifo(folder.path / "image.tif")
    row.is_shown_by(folder.upscale(folder.path / "image.tif"))


def test_announced_planes(row: Row, folder: Folder) -> None:
    row.is_shown_by(folder.upscale(an_ome_tiff(folder, planes=10**8, data="<TiffData/>")))


def test_part_outside(row: Row, folder: Folder) -> None:
    elsewhere = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="../secret.ome.tif">urn:uuid:1</UUID></TiffData>'
    row.is_shown_by(folder.upscale(an_ome_tiff(folder, planes=1, data=elsewhere)))


def an_ome_tiff(folder: Folder, planes: int, data: str) -> Path:
    """Write a TIFF of one page of 16 x 16 px whose OME-XML announces planes along z."""
    described = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeZ="{planes}" SizeC="1" SizeT="1">{data}'
        "</Pixels></Image></OME>"
    )
    path = folder.path / "image.ome.tif"
    tifffile.imwrite(path, np.zeros((16, 16), "u1"), description=described, metadata=None)
    return path


@on_posix
def test_cmyk_jpeg(row: Row, folder: Folder) -> None:
    Image.new("CMYK", (32, 32), (10, 20, 30, 40)).save(folder.path / "image.jpg")
    row.is_shown_by(folder.upscale(folder.path / "image.jpg"))


def test_sixteen_bits_that_are_not_read(row: Row, folder: Folder) -> None:
    Image.new("L", (32, 32), 100).save(folder.path / "image.sgi", bpc=2)
    row.is_shown_by(folder.upscale(folder.path / "image.sgi"))


def test_removed_meanwhile(row: Row, folder: Folder) -> None:
    path, away = folder.path / "image.tif", folder.path / "away.tif"
    tifffile.imwrite(path, an_image(300, 200, dtype="u2"), tile=(16, 16), compression="zlib")
    watching = meanwhile(folder, lambda: path.rename(away))
    outcome = folder.upscale(path, *SMALL_SHARDS)
    watching.join()
    away.rename(path)
    row.is_shown_by(outcome)
    assert folder.upscale(path, *SMALL_SHARDS, "--resume").status == 0


@on_posix
def test_cut_short_meanwhile(row: Row, folder: Folder, tmp_path: Path) -> None:
    """What is mapped into memory would end the process if it were read beyond its end."""
    path, copy = folder.image(300, 200), tmp_path / "copy.npy"
    shutil.copy2(path, copy)
    watching = meanwhile(folder, lambda: path.open("r+b").truncate(999))
    outcome = folder.upscale(path, *SMALL_SHARDS)
    watching.join()
    shutil.copy2(copy, path)
    row.is_shown_by(outcome)


@on_posix
@pytest.mark.parametrize("name", ["image.npy", "image.tif", "image.zarr", "image.png"])
def test_changed_meanwhile(row: Row, folder: Folder, tmp_path: Path, name: str) -> None:
    """Written again in place, as by an export that runs once more: same name, shape and type, other pixels."""
    path, copy = folder.path / name, tmp_path / "copy"

    def write(value: int) -> None:
        image = np.full((300, 200), value, "u1") ^ an_image(300, 200)
        match path.suffix:
            case ".npy":
                np.save(path, image)
            case ".tif":
                tifffile.imwrite(path, image, tile=(16, 16))
            case ".zarr":
                zarr.create_array(path, data=image, chunks=(32, 32), overwrite=True)
            case ".png":
                Image.fromarray(image).save(path)

    write(0)
    take = shutil.copytree if path.is_dir() else shutil.copy2
    take(path, copy)
    watching = meanwhile(folder, lambda: write(255))
    outcome = folder.upscale(path, *SMALL_SHARDS)
    watching.join()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    take(copy, path)
    row.is_shown_by(outcome)


class TestArrays:
    """The functions `upscale` and `convert`, with arrays of Dask and others."""

    @pytest.fixture
    def options(self, folder: Folder) -> dict[str, Any]:
        return {"model": folder.model, "tile": 150, "chunk": 64, "shard": 128, "levels": 3, "axes": "yx"}

    def test_chunk_fails(self, row: Row, folder: Folder, options: dict[str, Any]) -> None:
        def compute(block: Array, block_info: Any) -> Array:
            if block_info[0]["chunk-location"] == (2, 1):
                raise ValueError("bad sector")
            return block

        image = da.map_blocks(compute, da.zeros((300, 200), dtype="u2", chunks=100), dtype="u2")
        row.is_shown_by(folder.calls(mgbp.convert, image, folder.destination, **options))

    @pytest.mark.parametrize("shape", [(99, 100), (101, 100), (100, 100, 1), ()])
    def test_shape_lies(self, row: Row, folder: Folder, options: dict[str, Any], shape: tuple[int, ...]) -> None:
        """A smaller one would leave pixels of the result as the memory happens to be."""
        honest = da.zeros((100, 100), dtype="u2", chunks=100)
        image = honest.map_blocks(lambda block: np.zeros(shape, "u2"), dtype="u2", meta=np.empty((0, 0), "u2"))
        row.is_shown_by(folder.calls(mgbp.convert, image, folder.destination, **options))

    def test_type_lies(self, row: Row, folder: Folder, options: dict[str, Any]) -> None:
        honest = da.zeros((100, 100), dtype="u2", chunks=100)
        image = honest.map_blocks(lambda block: block / 7, dtype="u2", meta=np.empty((0, 0), "u2"))
        row.is_shown_by(folder.calls(mgbp.convert, image, folder.destination, **options))

    def test_array_fails(self, row: Row, folder: Folder, options: dict[str, Any]) -> None:
        class Camera:
            shape, dtype = (100, 100), np.dtype("u2")

            def __getitem__(self, window: tuple[slice, ...]) -> Array:
                raise ConnectionError("the camera is off")

        row.is_shown_by(folder.calls(mgbp.convert, Camera(), folder.destination, **options))

    def test_uneven_lists(self, row: Row, folder: Folder, options: dict[str, Any]) -> None:
        row.is_shown_by(folder.calls(mgbp.convert, [[1, 2], [3]], folder.destination, **options))

    def test_unknown_dimensions(self, row: Row, folder: Folder, options: dict[str, Any]) -> None:
        image = xarray.DataArray(np.zeros((3, 40, 50), "u2"), dims=("u", "v", "w"))
        row.is_shown_by(folder.calls(mgbp.convert, image, folder.destination, **options | {"axes": None}))
