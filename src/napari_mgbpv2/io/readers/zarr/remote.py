"""Zarr on the network: https://, http:// and s3:// through obstore.

An address is first asked for metadata with little patience, so that a wrong one is told within seconds; pixels are then
read with much, as connections break during work of hours. Stores pickle by address and options.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zarr.storage import ObjectStore

from napari_mgbpv2.addresses import public_address, redact
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers.discovery import ZARR_MARKERS
from napari_mgbpv2.io.storage.object_stores import (
    ForkedError,
    check_not_forked,
    check_redirect,
    open_upstream,
    redacted,
    short_reason,
)

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from napari_mgbpv2.io.storage.object_stores import Upstream

ZARR_METADATA = (*ZARR_MARKERS, ".zattrs", ".zmetadata")
_SCHEMES = ("https", "http", "s3")


class RemoteStore(ObjectStore["Upstream"]):
    """A read-only Zarr at an address."""

    def __str__(self) -> str:
        return redact(super().__str__())

    def __repr__(self) -> str:
        return redact(super().__repr__())

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a value, or None if it is missing."""
        from obstore.exceptions import PermissionDeniedError

        check_not_forked()
        try:
            return await super().get(key, prototype, byte_range)
        except PermissionDeniedError:
            # Public buckets without permission to list respond like this to missing keys, and zarr requests metadata
            # of every version. Chunks are different: an unreadable chunk must not be read as the fill value.
            if key.rpartition("/")[2] in ZARR_METADATA:
                return None
            raise

    def identity(self, url: str, folders: Iterable[str]) -> dict[str, Any]:
        """Identify a Zarr by the metadata in some of its folders.

        Returns
        -------
        dict
            ``url``, and in ``documents`` for each document of metadata its SHA-256, and its ETag and time of change
            where the server says them.

        Raises
        ------
        SourceError
            It cannot be read, or has gone.
        """
        documents = {}
        for key in sorted({f"{folder}/{name}".lstrip("/") for folder in folders for name in ZARR_METADATA}):
            document = _document(url, self.store, key)
            if document is not None:
                documents[key] = document
        if not documents:
            raise SourceError(f"{url}: has gone; check the address.")
        return {"url": url, "documents": documents}


def remote_store(url: str) -> RemoteStore:
    """Return the store of the Zarr at an address.

    Parameters
    ----------
    url
        Address of the root: https://, http:// or s3://. For S3, the usual environment variables apply (AWS_REGION,
        AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...); without credentials there, requests are not signed.

    Raises
    ------
    SourceError
        obstore is not installed, the server cannot be reached or refuses, or there is no Zarr.
    """
    impatient = _upstream(url, long_retries=False)
    check_redirect(url, ZARR_MARKERS[0], SourceError)
    refused = None
    for marker in ZARR_MARKERS:
        try:
            if _document(public_address(url), impatient, marker) is not None:
                return RemoteStore(_upstream(url, long_retries=True), read_only=True)
        except _Refused as error:  # buckets without permission to list respond like this to missing keys
            refused = error
    raise refused or _no_zarr(url)


class _Refused(SourceError):
    """The server requires credentials, or denies access."""


def _upstream(url: str, *, long_retries: bool) -> Upstream:
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise SourceError(
            f"{public_address(url)}: {scheme}:// is not read; give https://, http:// or s3://, or download it first."
        )
    return open_upstream(url, SourceError, long_retries=long_retries)


def _document(url: str, store: Upstream, key: str) -> dict[str, str | None] | None:
    """Fetch a small document and return its hash, ETag and modification time; None if it is missing."""
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        check_not_forked()
        found = obstore.get(store, key)
        content, meta = found.bytes(), found.meta
    except FileNotFoundError:
        return None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _Refused(
            f"{url}: may not be read, or is not there; check the address, and for a private S3 bucket set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from redacted(error)
    except (BaseError, ForkedError) as error:
        raise SourceError(
            f"{url}: cannot be read ({short_reason(error)}); check the address and the network."
        ) from redacted(error)
    changed = meta["last_modified"]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "etag": meta["e_tag"],
        "last_modified": changed.isoformat() if changed.timestamp() > 0 else None,  # 0 if the server does not report it
    }


def _no_zarr(url: str) -> SourceError:
    """Return the error for an address without a Zarr, which depends on whether anything else exists there."""
    import obstore

    address, _, query = url.partition("#")[0].partition("?")
    above, _, name = address.rstrip("/").rpartition("/")
    url = public_address(url)
    try:
        obstore.head(_upstream(f"{above}?{query}" if query else above, long_retries=False), name)
    except Exception:  # for any reason, nothing is known to exist there
        return SourceError(f"{url}: there is no Zarr at this address (no {', '.join(ZARR_MARKERS)}); check it.")
    return SourceError(f"{url}: is no Zarr, and only Zarr is read from the network; download it first.")
