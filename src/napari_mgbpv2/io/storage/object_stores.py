"""Object stores and web servers through obstore: opening them by address, and short messages for their errors.

Credentials are read from the environment of the process that opens a store. They are never pickled.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from napari_mgbpv2.addresses import has_secrets, public_address, redact
from napari_mgbpv2.errors import MGBPv2Error

if TYPE_CHECKING:
    from obstore.store import HTTPStore, RetryConfig, S3Store

    Upstream = HTTPStore | S3Store

_SHORT_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_LONG_RETRIES: RetryConfig = {
    "max_retries": 10,
    "retry_timeout": timedelta(minutes=3),
}  # retries are up to 15 seconds apart
_REQUEST_TIMEOUT_SECONDS = 300  # enough for one chunk over a slow connection
# Requests are signed if one of these is set.
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class ForkedError(MGBPv2Error):
    """A forked process tried to use the network after its parent did."""


def open_upstream(url: str, error: type[MGBPv2Error], *, long_retries: bool) -> Upstream:
    """Open a store by its address, without sending a request.

    Parameters
    ----------
    url
        https://, http:// or s3://. For S3, the usual variables of the environment apply (AWS_REGION, AWS_ENDPOINT_URL,
        AWS_ACCESS_KEY_ID, ...); without credentials there, requests are not signed.
    error
        Raised if obstore is not installed or the address is invalid.
    patient
        Whether to retry failed requests for minutes, as in long conversions, instead of seconds.
    """
    scheme = url.partition("://")[0].lower()
    try:
        from obstore.store import HTTPStore, S3Store
    except ImportError:
        raise error(
            f'{public_address(url)}: the network needs obstore; install it with: pip install "napari-mgbpv2[remote]"'
        ) from None
    address = public_address(url)
    try:
        password = urlsplit(url).password
    except ValueError as refused:
        raise error(f"{address}: is not the address of a Zarr ({refused}); check it.") from None
    if password:
        raise error("the address holds a password, which other users can see while this runs; remove it.")
    options: dict[str, Any] = {
        "client_options": {"allow_http": _may_be_plain(scheme), "timeout": timedelta(seconds=_REQUEST_TIMEOUT_SECONDS)},
        "retry_config": _LONG_RETRIES if long_retries else _SHORT_RETRIES,
    }
    try:
        if scheme != "s3":
            return HTTPStore.from_url(url, **options)
        # Set only without credentials: otherwise obstore reads the environment, also after unpickling.
        anonymous: dict[str, Any] = {} if any(name in os.environ for name in _CREDENTIALS) else {"skip_signature": True}
        return S3Store.from_url(url, **options, **anonymous)
    except Exception as refused:  # each part of an address is refused in its own way
        raise error(f"{address}: is not the address of a Zarr ({short_reason(refused)}); check it.") from redacted(
            refused
        )


def _may_be_plain(scheme: str) -> bool:
    """Return whether unencrypted requests are allowed: only for addresses and endpoints that start with http://."""
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    return scheme == "http" or (scheme == "s3" and endpoint.lower().startswith("http://"))


def check_redirect(url: str, key: str, error: type[MGBPv2Error]) -> None:
    """Refuse a server that redirects requests to another host, which would receive the credentials.

    obstore follows redirects, and forwards the query of the address and the session token of S3. The first document is
    therefore requested once without following redirects.

    Parameters
    ----------
    url, key
        The address, and the key of the first document below it.
    error
        Raised if the response redirects to another host, or from https to http.
    """
    target = _first_request(url, key)
    if target is None:
        return
    import requests

    try:
        with requests.get(target, allow_redirects=False, stream=True, timeout=10) as answer:
            location = answer.headers.get("Location", "") if answer.is_redirect else ""
    except (requests.RequestException, ValueError):  # obstore reports it more clearly
        return
    if not location:
        return
    here, there = urlsplit(target), urlsplit(urljoin(target, location))
    unencrypted = (here.scheme, there.scheme) == ("https", "http")
    if (here.hostname, here.port) != (there.hostname, there.port) or unencrypted:
        raise error(
            f"{public_address(url)}: the server redirects to {public_address(there.geturl())}, which must not "
            "receive the credentials for this one; give the address there."
        )


def _first_request(url: str, key: str) -> str | None:
    """Return the first address that is requested with credentials; None if no credentials are sent."""
    if url.lower().startswith("s3://"):
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        signed = any(name in os.environ for name in _CREDENTIALS)
        path = public_address(url).partition("://")[2]
        return f"{endpoint.rstrip('/')}/{path}/{key}" if endpoint and signed else None
    if not has_secrets(url):
        return None
    base, mark, query = url.partition("#")[0].partition("?")
    return f"{base.rstrip('/')}/{key}{mark}{query}"


def redacted(error: Exception) -> Exception:
    """Return a copy of an obstore error without secrets, for tracebacks; other errors are returned unchanged."""
    if not type(error).__module__.startswith("obstore") or redact(str(error)) == str(error):
        return error
    return type(error)(redact(str(error))).with_traceback(error.__traceback__)


def is_network_error(error: BaseException) -> bool:
    """Return whether an error comes from a network request."""
    return type(error).__module__.startswith("obstore") or isinstance(error, ForkedError)


def short_reason(error: BaseException) -> str:
    """Return the reason of an error in a few words; messages of obstore have many lines."""
    text = redact(str(error))
    if not type(error).__module__.startswith("obstore"):
        return text
    if "configured region" in text:
        return "the bucket is in another region: set AWS_REGION"
    if "NoSuchBucket" in text:
        return "the bucket does not exist"
    if "dns error" in text:
        return "the host does not exist"
    if "kind: Connect" in text:
        return "no connection"
    if "Range request not supported" in text:
        return "the server does not support range requests"
    answer = re.search(r"status code: (\d{3}[ A-Za-z-]*)", text)
    return f"the server responds with {answer[1]}" if answer else text.partition("\n")[0].rpartition(" - ")[2]


_used_in: int | None = None  # the process that used the network first


def check_not_forked() -> None:
    """Refuse the network in a fork of a process that has used it.

    A fork does not inherit the threads of obstore, so requests would wait forever.
    """
    global _used_in
    _used_in = _used_in or os.getpid()
    if _used_in != os.getpid():
        raise ForkedError("a forked process cannot use the network after the first one has; use a single process")
