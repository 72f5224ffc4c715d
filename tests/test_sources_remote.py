"""Zarr on the network: over HTTP from a server of these tests, and from S3 as moto plays it."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source
from s3 import a_bucket, serving_s3
from source_files import CYX, CZYX, all_of, assert_reads, pixels, unit_scale, write_ome_zarr
from zarr_server import ZarrServer, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ZarrServer]:
    """Serve the folder of the test."""
    with serving(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def an_environment_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # no proxy between this machine and itself
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


def write_levels(path: Path, version: str = "0.5") -> None:
    """Write two levels of two channels whose pixels are 0.5 micrometres wide."""
    image = pixels(2, 6, 40, 50)
    scales = [[{"type": "scale", "scale": [1.0, 2.0, 0.5 * step, 0.5 * step]}] for step in (1, 2)]
    channels = [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP", "color": "00FF00"}]
    write_ome_zarr(path, [image, image[:, :, ::2, ::2]], CZYX, scales, version=version, channels=channels)


class TestHTTP:
    @pytest.mark.parametrize("version", [2, 3])
    def test_an_array(self, server: ZarrServer, tmp_path: Path, version: Any) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50), chunks=(16, 16), zarr_format=version)
        source = open_source(f"{server.address}/a.zarr")
        assert (source.kind, source.path) == (f"Zarr v{version} array", f"{server.address}/a.zarr")
        assert_reads(source, pixels(40, 50))

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_any_level_of_an_ome_zarr_with_what_is_known_of_it(
        self, server: ZarrServer, tmp_path: Path, version: str
    ) -> None:
        write_levels(tmp_path / "cells.ome.zarr", version)
        source = open_source(f"{server.address}/cells.ome.zarr/", level=1)
        assert (source.name, source.kind, source.axes) == ("cells", f"OME-Zarr {version}", "czyx")
        assert source.pixel_size == {"z": 2.0, "y": 1.0, "x": 1.0}
        assert source.units == {"z": "micrometer", "y": "micrometer", "x": "micrometer"}
        assert source.channel_names == ("DAPI", "GFP")
        assert_reads(source, pixels(2, 6, 40, 50)[:, :, ::2, ::2])

    def test_a_window_of_a_shard_is_a_small_part_of_its_file(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(64, 64), chunks=(16, 16), shards=(64, 64))
        source = open_source(f"{server.address}/a.zarr")
        server.requests.clear()
        np.testing.assert_array_equal(source.data[slice(16, 32), slice(0, 16)], pixels(64, 64)[16:32, :16])
        assert [path for path, _ in server.requests] == ["/a.zarr/c/0/0"] * 2
        assert server.requests[0][1] == "bytes=-260"  # the index: 16 chunks of 16 bytes, and a checksum

    def test_opening_reads_no_pixel(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        open_source(f"{server.address}/a.zarr")
        assert not [path for path, _ in server.requests if path.startswith("/a.zarr/c")]

    def test_chunks_that_are_not_there_have_the_fill_value(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(40, 50), chunks=(16, 16), dtype="u2", fill_value=7)
        assert_reads(open_source(f"{server.address}/a.zarr"), np.full((40, 50), 7, "u2"))

    def test_a_group_with_consolidated_metadata_needs_no_list(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", zarr_format=2).create_array("only", data=pixels(40, 50))
        zarr.consolidate_metadata(tmp_path / "a.zarr")
        assert_reads(open_source(f"{server.address}/a.zarr"), pixels(40, 50))

    def test_a_slash_at_the_end_means_nothing(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        told = [open_source(f"{server.address}/a.zarr{slash}").fingerprint() for slash in ("", "/", "//")]
        assert told[0] == told[1] == told[2]

    def test_a_blank_in_an_address(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "two words.zarr", data=pixels(40, 50))
        source = open_source(f"{server.address}/two%20words.zarr")
        assert source.name == "two words"
        assert_reads(source, pixels(40, 50))

    def test_it_opens_in_another_process_where_it_is_unpickled(self, server: ZarrServer, tmp_path: Path) -> None:
        write_levels(tmp_path / "a.zarr")
        pickled = pickle.dumps(open_source(f"{server.address}/a.zarr"))
        assert len(pickled) < 4000
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).data[()].sum())"
        done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True)
        assert int(done.stdout) == pixels(2, 6, 40, 50).sum()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked there")
    def test_a_forked_process_says_that_it_cannot_instead_of_waiting(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        source = open_source(f"{server.address}/a.zarr")
        all_of(source)
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()

        def read() -> None:
            for attempt in (lambda: all_of(source), lambda: open_source(source.path)):
                try:
                    attempt()
                except SourceError as error:
                    told.put(str(error))

        process = context.Process(target=read)
        process.start()
        process.join(60)
        process.kill()
        assert [told.get(), told.get()] == [
            f"{source.path}: a chunk of / cannot be read (a forked process cannot use the network after the first one "
            "has; use a single process); check the network.",
            f"{source.path}: cannot be read (a forked process cannot use the network after the first one has; use a "
            "single process); check the address and the network.",
        ]


class TestFingerprint:
    def test_it_is_the_same_while_the_metadata_are(self, server: ZarrServer, tmp_path: Path) -> None:
        write_levels(tmp_path / "a.zarr")
        told = [open_source(f"{server.address}/a.zarr").fingerprint() for _ in range(2)]
        assert told[0] == told[1]
        assert (told[0]["url"], sorted(told[0]["documents"])) == (
            f"{server.address}/a.zarr",
            ["0/zarr.json", "zarr.json"],
        )

    @pytest.mark.parametrize("what", ["content", "time"])
    def test_it_is_another_when_a_zarr_was_written_anew(self, server: ZarrServer, tmp_path: Path, what: str) -> None:
        write_levels(tmp_path / "a.zarr")
        before = open_source(f"{server.address}/a.zarr").fingerprint()
        document = tmp_path / "a.zarr" / "0" / "zarr.json"
        changed = document.stat().st_mtime
        if what == "content":
            document.write_text(document.read_text().replace('"fill_value": 0', '"fill_value": 1'))
            os.utime(document, (changed, changed))
        else:
            os.utime(document, (changed, changed + 60))
        assert open_source(f"{server.address}/a.zarr").fingerprint() != before

    def test_a_zarr_that_has_gone_is_an_error(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(4, 4))
        source = open_source(f"{server.address}/a.zarr")
        (tmp_path / "a.zarr" / "zarr.json").unlink()
        with pytest.raises(SourceError, match="has gone"):
            source.fingerprint()


class TestTrouble:
    """What goes wrong for a moment is tried again; what stays wrong is one sentence with the address."""

    def test_a_server_that_is_busy_is_asked_again(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        server.failing, server.failures = "zarr.json", 2
        source = open_source(f"{server.address}/a.zarr")
        server.failing, server.failures = "/c/", 3
        assert_reads(source, pixels(40, 50))
        assert server.failures == 0

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nothing.zarr", r"there is no Zarr at this address \(no zarr.json, .zarray, .zgroup\)"),
            ("a.tif", "is no Zarr, and only Zarr is read from the network; download it first"),
            ("page.zarr", "cannot be read as Zarr"),
            ("group.zarr", "its server does not list its members; give the address of an array"),
        ],
    )
    def test_what_is_no_image(self, server: ZarrServer, tmp_path: Path, name: str, message: str) -> None:
        (tmp_path / "a.tif").write_bytes(b"II*\0")
        (tmp_path / "page.zarr").mkdir()
        (tmp_path / "page.zarr" / "zarr.json").write_text("<html>Please log in.</html>")
        zarr.open_group(tmp_path / "group.zarr").create_array("only", data=pixels(4, 4))
        with pytest.raises(SourceError, match=rf"^{server.address}/{name}: .*{message}.*\.$") as raised:
            open_source(f"{server.address}/{name}")
        assert str(raised.value).count("\n") == 0

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (401, "may not be read, or is not there"),
            (403, "may not be read, or is not there"),
            (
                500,
                r"cannot be read \(the server responds with 500 Internal Server Error\); check the address and the",
            ),
        ],
    )
    def test_a_server_that_refuses(self, server: ZarrServer, tmp_path: Path, status: int, message: str) -> None:
        server.failing, server.status = "zarr", status
        with pytest.raises(SourceError, match=rf"^{server.address}/a\.zarr: {message}.*\.$"):
            open_source(f"{server.address}/a.zarr")

    def test_a_chunk_that_may_not_be_read_is_no_fill_value(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        source = open_source(f"{server.address}/a.zarr")
        server.failing, server.status = "/c/", 403
        with pytest.raises(
            SourceError, match=r"a chunk of / cannot be read \(the server responds with 403 Forbidden\)"
        ):
            all_of(source)

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_metadata_may_be_refused_where_there_are_none(
        self, server: ZarrServer, tmp_path: Path, version: str
    ) -> None:
        write_levels(tmp_path / "a.zarr", version)
        server.status = 403
        server.failing = "zarr.json" if version == "0.4" else r"/\.z"
        assert_reads(open_source(f"{server.address}/a.zarr"), pixels(2, 6, 40, 50))

    def test_a_server_that_gives_no_parts_of_files(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(64, 64), chunks=(16, 16), shards=(32, 32))
        source = open_source(f"{server.address}/a.zarr")
        server.ranges = False
        with pytest.raises(SourceError, match=r"cannot be read \(the server does not support range requests\)"):
            source.data[slice(0, 16), slice(0, 16)]

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("http://127.0.0.1:1/a.zarr", r"cannot be read \(no connection\)"),
            ("http://nowhere.invalid/a.zarr", r"cannot be read \(the host does not exist\)"),
            ("gs://bucket/a.zarr", "gs:// is not read; give https://, http:// or s3://"),
            ("s3://", "is not the address of a Zarr"),
        ],
    )
    def test_wrong_addresses(self, address: str, message: str) -> None:
        with pytest.raises(SourceError, match=rf"^{address}: {message}"):
            open_source(address)

    def test_a_password_in_an_address_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(SourceError, match="holds a password") as raised:
            open_source("https://me:hush@example.org/a.zarr")
        assert "hush" not in str(raised.value)

    def test_without_obstore_it_says_how_to_install_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "obstore.store", None)
        with pytest.raises(SourceError, match=r'pip install "napari-mgbpv2\[remote\]"'):
            open_source("https://example.org/a.zarr")


class TestSecrets:
    """What an address holds beside scheme, host and path proves who asks, and is for that host alone."""

    def test_the_query_goes_to_the_server_and_nowhere_else(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50), chunks=(16, 16))
        source = open_source(f"{server.address}/a.zarr?sig=HUSH#part")
        assert_reads(source, pixels(40, 50))
        assert all("sig=HUSH" in path for path, _ in server.requests)
        said = [repr(source), json.dumps(source.fingerprint()), source.name, str(source.data._array.store)]  # type: ignore[attr-defined]
        assert source.path == f"{server.address}/a.zarr"
        assert not any("HUSH" in text for text in said)

    def test_no_traceback_holds_the_query(self, server: ZarrServer, tmp_path: Path) -> None:
        query = "?sig=" + "-".join(["HU", "SH"])  # which does not stand in a line of this test
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50), chunks=(16, 16))
        source = pickle.loads(pickle.dumps(open_source(f"{server.address}/a.zarr{query}")))
        server.failing, server.status = "c/0/0", 403
        with pytest.raises(SourceError) as chunk:
            all_of(source)
        with pytest.raises(SourceError) as missing:
            open_source(f"{server.address}/none.zarr{query}")
        with pytest.raises(SourceError) as unreachable:
            open_source(f"http://127.0.0.1:1/a.zarr{query}")
        for raised in (chunk, missing, unreachable):
            assert query not in "".join(traceback.format_exception(raised.value))

    @pytest.mark.parametrize("scheme", ["http", "s3"])
    def test_a_server_that_leads_elsewhere_does_not_give_credentials_away(
        self, server: ZarrServer, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zarr.create_array(tmp_path / "bucket" / "a.zarr", data=pixels(40, 50))
        with leading_to(server.address) as other:
            if scheme == "s3":
                monkeypatch.setenv("AWS_ENDPOINT_URL", other)
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
                monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
                monkeypatch.setenv("AWS_SESSION_TOKEN", "HUSH")
            address = "s3://bucket/a.zarr" if scheme == "s3" else f"{other}/bucket/a.zarr?sig=HUSH"
            with pytest.raises(SourceError, match="the server redirects to") as raised:
                open_source(address)
        assert "HUSH" not in str(raised.value)
        assert server.requests == []

    def test_a_server_that_leads_elsewhere_is_followed_without_any(self, server: ZarrServer, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        with leading_to(server.address) as other:
            assert_reads(open_source(f"{other}/a.zarr"), pixels(40, 50))


@contextmanager
def leading_to(address: str) -> Iterator[str]:
    """Serve nothing but redirections to another server."""

    class Leading(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", address + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Leading)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class TestS3Requests:
    """Who asks is taken from the environment; a server of these tests stands for the bucket."""

    @pytest.fixture
    def bucket(self, server: ZarrServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZarrServer:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        zarr.create_array(tmp_path / "bucket" / "a.zarr", data=pixels(40, 50))
        return server

    def test_public_buckets_are_asked_without_a_name(self, bucket: ZarrServer) -> None:
        assert_reads(open_source("s3://bucket/a.zarr"), pixels(40, 50))
        assert not bucket.signed

    def test_credentials_are_used_where_there_are_some(
        self, bucket: ZarrServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
        source = open_source("s3://bucket/a.zarr")
        assert_reads(source, pixels(40, 50))
        assert bucket.signed
        assert b"hush-hush" not in pickle.dumps(source)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Let moto play S3."""
    with serving_s3() as endpoint:
        yield endpoint


class TestS3:
    """A bucket as moto plays it, open to everybody but for what is named so."""

    @pytest.fixture
    def bucket(self, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """Fill a bucket of its own for each test."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        write_levels(tmp_path / "a.ome.zarr")
        write_ome_zarr(tmp_path / "old.zarr", [pixels(2, 20, 30)], CYX, [unit_scale(3)], version="0.4")
        zarr.open_group(tmp_path / "group.zarr").create_array(
            "only", data=pixels(40, 50), shards=(32, 32), chunks=(8, 8)
        )
        zarr.create_array(tmp_path / "private.zarr", data=pixels(40, 50))
        bucket = a_bucket(s3)
        for file in (file for file in tmp_path.rglob("*") if file.is_file()):
            key = file.relative_to(tmp_path).as_posix()
            bucket.put(key, file.read_bytes(), "private" if "private" in key else "public-read")
        return bucket.url

    def test_ome_zarr(self, bucket: str) -> None:
        source = open_source(f"{bucket}/a.ome.zarr", level=1)
        assert (source.name, source.axes, source.pixel_size["x"]) == ("a", "czyx", 1.0)
        assert_reads(source, pixels(2, 6, 40, 50)[:, :, ::2, ::2])
        assert_reads(open_source(f"{bucket}/old.zarr"), pixels(2, 20, 30))

    def test_a_bucket_lists_what_is_in_a_group(self, bucket: str) -> None:
        assert_reads(open_source(f"{bucket}/group.zarr"), pixels(40, 50))

    def test_what_is_private_takes_credentials(self, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(SourceError, match="for a private S3 bucket set AWS_ACCESS_KEY_ID"):
            open_source(f"{bucket}/private.zarr")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
        assert_reads(open_source(f"{bucket}/private.zarr"), pixels(40, 50))

    def test_objects_have_an_etag(self, bucket: str) -> None:
        documents = open_source(f"{bucket}/a.ome.zarr").fingerprint()["documents"]
        assert all(document["etag"] for document in documents.values())

    def test_nothing_there_is_one_clear_error(self, bucket: str) -> None:
        for address in (f"{bucket}/none.zarr", bucket, "s3://nobody/a.zarr"):
            with pytest.raises(SourceError, match=f"^{address}: there is no Zarr at this address"):
                open_source(address)
