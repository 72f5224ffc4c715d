"""Zarr on the network: https://, http:// and s3:// through obstore.

An address is first asked for metadata with little patience, so that a wrong one is told within seconds; pixels are then
read with much, as connections break during work of hours. Stores pickle by address and options: keys and passwords are
taken from the environment of the process that reads, and never travel.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zarr.storage import ObjectStore

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.finding import ZARR_MARKERS
from napari_mgbpv2.sources.urls import last_part

if TYPE_CHECKING:
    from obstore.store import HTTPStore, RetryConfig, S3Store
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    Upstream = HTTPStore | S3Store

ZARR_METADATA = (*ZARR_MARKERS, ".zattrs", ".zmetadata")
_SCHEMES = ("https", "http", "s3")
_IMPATIENT: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_PATIENT: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}  # in steps of up to 15 seconds
_REQUEST_SECONDS = 300  # for a chunk over a slow line
# Either of them says that there is somebody to sign requests for.
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


class RemoteStore(ObjectStore["Upstream"]):
    """A Zarr below an address; read only."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a value, None if there is none."""
        from obstore.exceptions import PermissionDeniedError

        _check_not_forked()
        try:
            return await super().get(key, prototype, byte_range)
        except PermissionDeniedError:
            # Public buckets that may not be listed answer so where there is nothing, and Zarr asks for metadata of
            # every version. A chunk is another matter: what may not be read must not become the fill value.
            if last_part(key) in ZARR_METADATA:
                return None
            raise

    def identity(self, url: str, folders: Iterable[str]) -> dict[str, Any]:
        """Tell a Zarr by the metadata in some of its folders.

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
        Of its root: https://, http:// or s3://. For S3, the usual variables of the environment apply (AWS_REGION,
        AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...); without credentials there, requests are not signed.

    Raises
    ------
    SourceError
        obstore is not installed, the server cannot be reached or refuses, or there is no Zarr.
    """
    impatient = _upstream(url, _IMPATIENT)
    refused = None
    for marker in ZARR_MARKERS:
        try:
            if _document(url, impatient, marker) is not None:
                return RemoteStore(_upstream(url, _PATIENT), read_only=True)
        except _Refused as error:  # where a bucket may not be listed, it is the answer for what is not there
            refused = error
    raise refused or _no_zarr(url)


def is_of_network(error: BaseException) -> bool:
    """Tell an error of a request from one of damaged data."""
    return type(error).__module__.startswith("obstore") or isinstance(error, SourceError)


def reason_of(error: BaseException) -> str:
    """Say in a few words what went wrong; what obstore says of a request has many lines."""
    text = str(error)
    if not is_of_network(error):
        return text
    if "configured region" in text:
        return "the bucket is in another region: set AWS_REGION"
    if "dns error" in text:
        return "there is no such host"
    if "kind: Connect" in text:
        return "no connection"
    if "Range request not supported" in text:
        return "the server gives no parts of files"
    answer = re.search(r"status code: (\d{3}[ A-Za-z-]*)", text)
    return f"the server answers {answer[1]}" if answer else text.partition("\n")[0].rpartition(" - ")[2]


_used_in: int | None = None  # the process that used the network first


def _check_not_forked() -> None:
    # The threads of obstore do not come along into a fork, where its requests would wait for them forever.
    global _used_in
    _used_in = _used_in or os.getpid()
    if _used_in != os.getpid():
        raise SourceError("a forked process cannot use the network after the first one has; use a single process")


class _Refused(SourceError):
    """The server wants to know who asks, or does not let them."""


def _upstream(url: str, retries: RetryConfig) -> Upstream:
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise SourceError(f"{url}: {scheme}:// is not read; give https://, http:// or s3://, or download it first.")
    try:
        from obstore.store import HTTPStore, S3Store
    except ImportError:
        raise SourceError(
            f'{url}: reading from the network needs obstore; install it with: pip install "napari-mgbpv2[remote]"'
        ) from None
    if urlsplit(url).password:
        raise SourceError("the address holds a password, which would be written into the result; give it without.")
    options: dict[str, Any] = {
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=_REQUEST_SECONDS)},
        "retry_config": retries,
    }
    try:
        if scheme != "s3":
            return HTTPStore.from_url(url, **options)
        # Given only where it is so: otherwise obstore looks into the environment, also where it is unpickled.
        anonymous: dict[str, Any] = {} if any(name in os.environ for name in _CREDENTIALS) else {"skip_signature": True}
        return S3Store.from_url(url, **options, **anonymous)
    except Exception as error:  # each part of an address is refused in its own way
        raise SourceError(f"{url}: is no address of a Zarr ({reason_of(error)}); check it.") from error


def _document(url: str, store: Upstream, key: str) -> dict[str, str | None] | None:
    """Fetch a small document and tell it from others; None if there is none."""
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        _check_not_forked()
        found = obstore.get(store, key)
        content, meta = found.bytes(), found.meta
    except FileNotFoundError:
        return None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _Refused(
            f"{url}: may not be read, or is not there; check the address, and for a private S3 bucket set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    except (BaseError, SourceError) as error:
        raise SourceError(f"{url}: cannot be read ({reason_of(error)}); check the address and the network.") from error
    changed = meta["last_modified"]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "etag": meta["e_tag"],
        "last_modified": changed.isoformat() if changed.timestamp() > 0 else None,  # 0 where the server is silent
    }


def _no_zarr(url: str) -> SourceError:
    """Return the error for an address without a Zarr: whether there is something else, or nothing."""
    import obstore

    above, _, name = url.rstrip("/").rpartition("/")
    try:
        obstore.head(_upstream(above, _IMPATIENT), name)
    except Exception:  # whatever the reason, nothing is known to be there
        return SourceError(f"{url}: there is no Zarr at this address (no {', '.join(ZARR_MARKERS)}); check it.")
    return SourceError(f"{url}: is no Zarr, and only Zarr is read from the network; download it first.")
