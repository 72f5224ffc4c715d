"""Zarrs made to read other files, to wait for ever or to fill the memory: each ends in one clear error."""

from __future__ import annotations

import json
import os
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.io.readers.zarr.stores import unpacks_to_more
from source_files import pixels

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links are those of POSIX")
BOMB = bytes(200_000_000)


@pytest.fixture(autouse=True)
def nothing_large() -> Iterator[None]:
    """Fail where a test takes more than half a gigabyte beside the bomb."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024


def a_zarr(path: Path, **options: Any) -> Path:
    """Write a Zarr of four chunks, and return the file of its last one."""
    zarr.create_array(path, data=pixels(128, 128), chunks=(64, 64), **options)
    return path / "c" / "1" / "1"


def read(path: Path) -> Any:
    return open_source(path).data[64:, 64:]


class TestFolders:
    def test_a_link_out_of_it_is_refused(self, tmp_path: Path) -> None:
        chunk = a_zarr(tmp_path / "a.zarr", compressors=None)
        secret = tmp_path / "secret"
        chunk.rename(secret)
        chunk.symlink_to(secret)
        with pytest.raises(SourceError, match=r"1/1: leads out of the Zarr, to .*secret, and was not read"):
            read(tmp_path / "a.zarr")

    def test_so_is_a_linked_folder(self, tmp_path: Path) -> None:
        a_zarr(tmp_path / "a.zarr")
        (tmp_path / "a.zarr" / "c").rename(tmp_path / "elsewhere")
        (tmp_path / "a.zarr" / "c").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SourceError, match="leads out of the Zarr"):
            read(tmp_path / "a.zarr")

    def test_links_within_it_and_to_it_are_followed(self, tmp_path: Path) -> None:
        chunk = a_zarr(tmp_path / "a.zarr")
        chunk.unlink()
        chunk.symlink_to(chunk.with_name("0"))
        (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
        np.testing.assert_array_equal(read(tmp_path / "b.zarr"), open_source(tmp_path / "a.zarr").data[64:, :64])

    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        chunk = a_zarr(tmp_path / "a.zarr")
        chunk.unlink()
        os.mkfifo(chunk)
        with pytest.raises(SourceError, match=r"1/1: is a pipe or a device, not a file"):
            read(tmp_path / "a.zarr")

    def test_so_is_a_device(self, tmp_path: Path) -> None:
        chunk = a_zarr(tmp_path / "a.zarr")
        chunk.unlink()
        chunk.symlink_to("/dev/zero")
        with pytest.raises(SourceError, match="pipe or a device"):
            read(tmp_path / "a.zarr")

    def test_metadata_of_very_many_bytes_are_refused(self, tmp_path: Path) -> None:
        a_zarr(tmp_path / "a.zarr")
        os.truncate(tmp_path / "a.zarr" / "zarr.json", 2**30)
        with pytest.raises(SourceError, match=r"zarr.json would take 1.*GB"):
            open_source(tmp_path / "a.zarr")

    def test_so_is_a_chunk_that_is_larger_than_it_can_be(self, tmp_path: Path) -> None:
        os.truncate(a_zarr(tmp_path / "a.zarr"), 2**30)
        with pytest.raises(SourceError, match=r"c/1/1 would take 1.*GB"):
            read(tmp_path / "a.zarr")


class TestChunks:
    @pytest.mark.parametrize(
        ("codec", "pack"),
        [
            (GzipCodec(), numcodecs.GZip(1)),
            (ZstdCodec(), numcodecs.Zstd(1)),
            (BloscCodec(cname="zstd"), numcodecs.Blosc("zstd", 1)),
        ],
        ids=["gzip", "zstd", "blosc"],
    )
    def test_one_that_unpacks_to_more_than_its_array_says_is_refused(
        self, codec: Any, pack: Any, tmp_path: Path
    ) -> None:
        chunk = a_zarr(tmp_path / "a.zarr", compressors=codec)
        chunk.write_bytes(pack.encode(BOMB))
        assert chunk.stat().st_size < 1_000_000
        with pytest.raises(SourceError, match="c/1/1 unpacks to more than"):
            read(tmp_path / "a.zarr")

    @pytest.mark.parametrize("name", ["gzip", "zlib", "zstd", "blosc", "bz2", "lzma", "lz4"])
    def test_each_codec_of_version_2_is_counted(self, name: str) -> None:
        codec = numcodecs.get_codec({"id": name})
        packed, honest = codec.encode(bytes(20_000_000)), codec.encode(bytes(2_000_000))
        assert unpacks_to_more(packed, 5_000_000, frozenset([name]))
        assert not unpacks_to_more(honest, 5_000_000, frozenset([name]))

    @pytest.mark.parametrize("name", ["gzip", "zlib", "zstd", "blosc", "bz2", "lzma", "lz4"])
    def test_what_is_no_such_chunk_is_left_to_its_codec(self, name: str) -> None:
        for content in (b"", b"a", bytes(30)):
            assert not unpacks_to_more(content, 5_000_000, frozenset([name]))


class TestZips:
    def test_an_entry_of_metadata_that_unpacks_to_very_much_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zarr.json", BOMB)
        with pytest.raises(SourceError, match=r"zarr.json would take .* by its metadata"):
            open_source(tmp_path / "a.zarr.zip")

    def test_so_is_that_of_a_chunk(self, tmp_path: Path) -> None:
        a_zarr(tmp_path / "a.zarr", compressors=None)
        with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / "a.zarr").rglob("*"):
                if file.is_file():
                    name = str(file.relative_to(tmp_path / "a.zarr"))
                    archive.writestr(name, BOMB if name == "c/1/1" else file.read_bytes())
        with pytest.raises(SourceError, match=r"c/1/1 would take"):
            read(tmp_path / "a.zarr.zip")

    def test_an_honest_one_is_read(self, tmp_path: Path) -> None:
        a_zarr(tmp_path / "a.zarr")
        with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / "a.zarr").rglob("*"):
                if file.is_file():
                    archive.write(file, str(file.relative_to(tmp_path / "a.zarr")))
        np.testing.assert_array_equal(read(tmp_path / "a.zarr.zip"), pixels(128, 128)[64:, 64:])


class TestCode:
    @pytest.mark.parametrize("where", ["compressor", "filters"])
    def test_a_codec_that_could_run_code_is_refused(self, where: str, tmp_path: Path) -> None:
        path = tmp_path / "a.zarr"
        path.mkdir()
        document = {"zarr_format": 2, "shape": [8, 8], "chunks": [8, 8], "dtype": "|u1", "fill_value": 0, "order": "C"}
        codec: Any = {"id": "pickle"}
        document |= {"compressor": None, "filters": None} | {where: [codec] if where == "filters" else codec}
        (path / ".zarray").write_text(json.dumps(document))
        with pytest.raises(SourceError, match="cannot be read as Zarr"):
            open_source(path)
