"""S3 as moto plays it: a server of this machine, buckets of one's own, and all that is in them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import obstore
import pytest
from obstore.store import S3Store


@dataclass(frozen=True)
class TestBucket:
    """A bucket that everybody may write to."""

    endpoint: str
    name: str

    __test__ = False

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def content(self, folder: str) -> dict[str, bytes]:
        """All objects below a folder by their keys within it."""
        store = self._store(folder)
        return {key: bytes(obstore.get(store, key).bytes()) for key in self.keys(folder)}

    def keys(self, folder: str = "") -> list[str]:
        return sorted(each["path"] for some in obstore.list(self._store(folder)) for each in some)

    def put(self, key: str, content: bytes, acl: str = "public-read") -> None:
        put(f"{self.endpoint}/{self.name}/{key}", content, acl)

    def delete(self, key: str) -> None:
        obstore.delete(self._store(""), key)

    def _store(self, folder: str) -> Any:
        options: Any = {"skip_signature": True, "client_options": {"allow_http": True}}
        return S3Store.from_url(f"s3://{self.name}/{folder}", endpoint=self.endpoint, **options)


@contextmanager
def serving_s3(port: int = 0) -> Iterator[str]:
    """Let moto play S3 until the block ends; gives its address. What it holds, this process keeps."""
    server = pytest.importorskip("moto.server", reason="moto plays S3").ThreadedMotoServer(
        "127.0.0.1", port, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def a_bucket(endpoint: str, name: str = "") -> TestBucket:
    """Make a new one."""
    name = name or f"images-{uuid.uuid4().hex}"
    put(f"{endpoint}/{name}", b"", "public-read-write")
    return TestBucket(endpoint, name)


def put(address: str, content: bytes, acl: str) -> None:
    headers = {"x-amz-acl": acl, "Content-Type": "application/octet-stream"}
    urlopen(Request(address, content, headers, method="PUT"), timeout=30).close()
