"""Object stores and web servers through obstore: opened by their address, and what they refuse in a few words.

Keys and passwords are taken from the environment of the process that opens a store, and never travel.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from napari_mgbpv2.errors import MGBPv2Error

if TYPE_CHECKING:
    from obstore.store import HTTPStore, RetryConfig, S3Store

    Upstream = HTTPStore | S3Store

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


class ForkedError(MGBPv2Error):
    """A forked process wants to use the network after the first one has."""


def open_upstream(url: str, error: type[MGBPv2Error], *, patient: bool) -> Upstream:
    """Open a store by its address; nothing is asked of it yet.

    Parameters
    ----------
    url
        https://, http:// or s3://. For S3, the usual variables of the environment apply (AWS_REGION, AWS_ENDPOINT_URL,
        AWS_ACCESS_KEY_ID, ...); without credentials there, requests are not signed.
    error
        Raised where obstore is not installed or the address is none.
    patient
        Whether requests are tried again for minutes, as for pixels in work of hours, or for seconds.
    """
    scheme = url.partition("://")[0].lower()
    try:
        from obstore.store import HTTPStore, S3Store
    except ImportError:
        raise error(f'{url}: the network needs obstore; install it with: pip install "napari-mgbpv2[remote]"') from None
    if urlsplit(url).password:
        raise error("the address holds a password, which would be written into the result; give it without.")
    options: dict[str, Any] = {
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=_REQUEST_SECONDS)},
        "retry_config": _PATIENT if patient else _IMPATIENT,
    }
    try:
        if scheme != "s3":
            return HTTPStore.from_url(url, **options)
        # Given only where it is so: otherwise obstore looks into the environment, also where it is unpickled.
        anonymous: dict[str, Any] = {} if any(name in os.environ for name in _CREDENTIALS) else {"skip_signature": True}
        return S3Store.from_url(url, **options, **anonymous)
    except Exception as refused:  # each part of an address is refused in its own way
        raise error(f"{url}: is no address of a Zarr ({reason_of(refused)}); check it.") from refused


def is_of_network(error: BaseException) -> bool:
    """Tell an error of a request from others."""
    return type(error).__module__.startswith("obstore") or isinstance(error, ForkedError)


def reason_of(error: BaseException) -> str:
    """Say in a few words what went wrong; what obstore says of a request has many lines."""
    text = str(error)
    if not type(error).__module__.startswith("obstore"):
        return text
    if "configured region" in text:
        return "the bucket is in another region: set AWS_REGION"
    if "NoSuchBucket" in text:
        return "there is no such bucket"
    if "dns error" in text:
        return "there is no such host"
    if "kind: Connect" in text:
        return "no connection"
    if "Range request not supported" in text:
        return "the server gives no parts of files"
    answer = re.search(r"status code: (\d{3}[ A-Za-z-]*)", text)
    return f"the server answers {answer[1]}" if answer else text.partition("\n")[0].rpartition(" - ")[2]


_used_in: int | None = None  # the process that used the network first


def check_not_forked() -> None:
    """Refuse the network in a fork of a process that has used it.

    The threads of obstore do not come along there, and requests would wait for them forever.
    """
    global _used_in
    _used_in = _used_in or os.getpid()
    if _used_in != os.getpid():
        raise ForkedError("a forked process cannot use the network after the first one has; use a single process")
