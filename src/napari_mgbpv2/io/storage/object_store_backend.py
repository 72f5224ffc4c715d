"""Storage backend for partial outputs in object stores.

Objects cannot be renamed, but each one is written atomically. Shards are therefore written to their final keys. The
metadata, without which no reader recognises an image, are staged under `HIDDEN` until `publish` copies them to their
final keys, the root metadata last.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import ObjectStore

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import METADATA, RUN_ENDED_MESSAGE
from napari_mgbpv2.io.storage.object_stores import check_not_forked, is_network_error, open_upstream

if TYPE_CHECKING:
    from obstore import PutMode
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from napari_mgbpv2.io.storage.object_stores import Upstream

HIDDEN = ".mgbpv2"  # prefix of everything but shards until the image is complete
LOCK = f"{HIDDEN}/lock.json"
_STAGED_METADATA = f"{HIDDEN}/metadata/"


@dataclass(frozen=True)
class ObjectStoreBackend:
    """The objects below an address of an object store.

    Parameters
    ----------
    url
        Address, s3://bucket/key.
    patient
        Whether to retry failed requests for minutes, as in long conversions, instead of seconds.
    run
        Token of the writing run; empty for read-only use.
    """

    url: str
    long_retries: bool = True
    run: str = ""
    writes_atomically = True

    @property
    def name(self) -> str:
        """Address for messages; unfinished and finished images share it."""
        return self.url

    @property
    def destination(self) -> str:
        """Address of the finished image."""
        return self.url

    def zarr(self) -> ObjectStore[Any]:
        """Return a store that stages metadata."""
        return _StagedMetadataStore(self._upstream)

    def finished(self) -> ObjectStore[Any]:
        """Return a read-only store of the finished image."""
        return ObjectStore(self._upstream, read_only=True)

    def exists_here(self) -> bool:
        """Return whether this process can read the unfinished image."""
        try:
            return bool(self.list_sizes(HIDDEN))
        except Exception as error:
            if is_network_error(error):  # no credentials, or another network
                return False
            raise

    def size_lookup(self) -> Callable[[str], int | None]:
        """Return a function from a key to a size in bytes; one listing is faster than a request per object."""
        known = self.list_sizes()
        return lambda key: known.get(_staged_key(key))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys without an object."""
        import obstore

        gone = []
        for key in keys:
            try:
                obstore.head(self._upstream, _staged_key(key))
            except FileNotFoundError:
                gone.append(key)
        return gone

    def put(self, key: str, content: bytes) -> None:
        """Write an object if the run has not ended, and never overwrite an unknown version.

        A request cannot be conditional on another object, so a task may write after its run has ended. An object is
        therefore only created, or replaced if its version is the one that was just compared.

        Raises
        ------
        DestinationError
            The run has ended.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        check_not_forked()
        while True:
            self._check_run()
            try:
                obstore.put(self._upstream, key, content, mode="create", use_multipart=False)
                return
            except AlreadyExistsError:
                pass
            try:
                found = obstore.get(self._upstream, key)
                e_tag = found.meta["e_tag"]
                if bytes(found.bytes()) == content:
                    return
                self._check_run()
                obstore.put(self._upstream, key, content, mode={"e_tag": e_tag}, use_multipart=False)
                return
            except (FileNotFoundError, PreconditionError):  # another task was faster: read again
                continue

    def _check_run(self) -> None:
        try:
            owner = json.loads(self.find(LOCK) or b"{}")
            ours = owner.get("token") == self.run and not owner.get("released")
        except (ValueError, AttributeError):
            ours = False
        if not ours:
            raise DestinationError(RUN_ENDED_MESSAGE.format(self.url))

    def fsync(self, key: str) -> int:
        """Return the size of an object in bytes. Stored objects are durable."""
        import obstore

        return int(obstore.head(self._upstream, _staged_key(key))["size"])

    def read_tail(self, key: str, length: int) -> bytes:
        """Read the last ``length`` bytes of an object."""
        import obstore

        found = obstore.get(self._upstream, _staged_key(key), options={"range": {"suffix": length}})
        return bytes(found.bytes())

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects; missing ones are ignored."""
        self.delete(map(_staged_key, keys))

    def remove_temporaries(self) -> None:
        """Do nothing: writes are atomic."""

    @contextmanager
    def metadata_folder(self) -> Iterator[Path]:
        """Copy the metadata of a finished image to a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            for key in self.list_sizes():
                if key.rpartition("/")[2] not in METADATA or key.startswith(HIDDEN):
                    continue
                file = Path(folder) / key
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.find(key) or b"")
            yield Path(folder)

    def publish(self) -> None:
        """Copy the staged metadata to their final keys, the root last, and delete all hidden objects but the lock."""
        keys = sorted(
            (key.removeprefix(_STAGED_METADATA) for key in self.list_sizes(_STAGED_METADATA)), key=_depth_first
        )
        for key in keys:
            self.write(key, self.find(_STAGED_METADATA + key) or b"")
        self.delete(key for key in self.list_sizes(HIDDEN) if key != LOCK)

    def list_sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size in bytes of each object below a prefix, by key."""
        import obstore

        check_not_forked()
        return {each["path"]: each["size"] for some in obstore.list(self._upstream, prefix or None) for each in some}

    def read(self, key: str) -> bytes:
        """Read a whole object. Raises `FileNotFoundError` if it is missing."""
        import obstore

        check_not_forked()
        return bytes(obstore.get(self._upstream, _staged_key(key)).bytes())

    def find(self, key: str) -> bytes | None:
        """Return the content of a small object; None if it is missing. Keys are not redirected to staged metadata."""
        return self.read_versioned(key)[0]

    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Return the content of a small object and its ETag; None if it is missing."""
        import obstore

        check_not_forked()
        try:
            found = obstore.get(self._upstream, key)
            return bytes(found.bytes()), found.meta["e_tag"]
        except FileNotFoundError:
            return None, None

    def write(self, key: str, content: bytes, mode: PutMode = "overwrite") -> str | None:
        """Write a small object; return its ETag."""
        import obstore

        check_not_forked()
        return obstore.put(self._upstream, key, content, mode=mode, use_multipart=False)["e_tag"]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects in as few requests as possible."""
        import obstore

        if found := list(keys):
            obstore.delete(self._upstream, found)

    def __reduce__(self) -> tuple[type[ObjectStoreBackend], tuple[str, bool, str]]:
        return ObjectStoreBackend, (self.url, self.long_retries, self.run)

    @cached_property
    def _upstream(self) -> Upstream:
        return open_upstream(self.url, DestinationError, long_retries=self.long_retries)


class _StagedMetadataStore(ObjectStore["Upstream"]):
    """A store that redirects metadata keys to their staged keys."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        check_not_forked()
        return await super().get(_staged_key(key), prototype, byte_range)

    async def exists(self, key: str) -> bool:
        return await super().exists(_staged_key(key))

    async def set(self, key: str, value: Buffer) -> None:
        check_not_forked()
        await super().set(_staged_key(key), value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await super().set_if_not_exists(_staged_key(key), value)

    async def delete(self, key: str) -> None:
        await super().delete(_staged_key(key))


def _staged_key(key: str) -> str:
    return _STAGED_METADATA + key if key.rpartition("/")[2] in METADATA else key


def _depth_first(key: str) -> tuple[int, bool]:
    """Return a sort key: deepest first; in a folder, attributes before the metadata that make it a Zarr node."""
    return -key.count("/"), key.rpartition("/")[2] != ".zattrs"
