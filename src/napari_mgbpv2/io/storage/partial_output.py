"""Images by their destination, wherever that is: finished ones, and work that has been kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination, parse_destination
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import provenance_in
from napari_mgbpv2.io.storage.journal import Kept, kept_in
from napari_mgbpv2.io.storage.local_transaction import (
    Place,
    complete_publishing,
    free_space_of_disk,
    has_leftovers,
    partial_of,
    telling_os_errors,
)
from napari_mgbpv2.io.storage.locks import Lock
from napari_mgbpv2.io.storage.object_stores import is_of_network, reason_of

if TYPE_CHECKING:
    import os

    from napari_mgbpv2.io.storage.object_store_transaction import ObjectPlace


def place_at(
    destination: str | os.PathLike[str],
    *,
    overwrite: bool,
    is_file: bool = False,
    waiting: Callable[[str], None] | None = None,
) -> Place | ObjectPlace:
    """Take hold of a destination, on a disk or in an object store.

    Parameters
    ----------
    destination
        Path or address.
    overwrite, is_file
        As `Place` has them, and so are the errors.
    waiting
        Called with a sentence where the lock of a run that may have died has to be waited for.
    """
    found = parse_destination(destination)
    if isinstance(found, Path):
        return Place(found, overwrite=overwrite, is_file=is_file)
    _check_address(found)
    if is_file:
        raise DestinationError(f"{found}: a TIFF is written to a disk only; write it there, and copy it")
    from napari_mgbpv2.io.storage.object_store_transaction import ObjectPlace

    with telling_errors(found):
        return ObjectPlace(found, overwrite=overwrite, waiting=waiting)


def kept_at(destination: Destination) -> Kept | None:
    """Tell what work is kept that has not been completed; None where there is none."""
    if isinstance(destination, Path):
        return kept_in(partial_of(destination))
    from napari_mgbpv2.io.storage.object_store_backend import Bucket
    from napari_mgbpv2.io.storage.object_store_transaction import kept_in_bucket

    _check_address(destination)
    with telling_errors(destination):
        return kept_in_bucket(Bucket(destination))


def provenance_of(destination: Destination) -> dict[str, Any] | None:
    """Return how a store of ours came to be; None of anything else."""
    if isinstance(destination, Path):
        return provenance_in(lambda name: (destination / name).read_bytes())
    from napari_mgbpv2.io.storage.object_store_backend import Bucket

    _check_address(destination)
    with telling_errors(destination):
        return provenance_in(lambda name: Bucket(destination).find(name) or b"")


def tidy_finished(destination: Destination, *, is_file: bool = False) -> None:
    """Complete the publishing that a kill has cut short, and delete what it has left beside a finished image.

    Parameters
    ----------
    destination
        Path or address.
    is_file
        Whether the finished thing is a TIFF.

    Raises
    ------
    DestinationError
        Somebody is writing there.
    """
    if isinstance(destination, Path):
        if has_leftovers(destination):
            with telling_os_errors(destination):
                lock = Lock(destination.with_name(f"{destination.name}.lock"), destination)
                try:
                    complete_publishing(destination, is_file=is_file)
                finally:
                    lock.release()
        return
    from napari_mgbpv2.io.storage.object_store_backend import HIDDEN, Bucket

    with telling_errors(destination):
        bucket = Bucket(destination)
        if provenance_of(destination) is not None:
            bucket.delete(bucket.listed(HIDDEN))


def free_space(destination: Destination) -> int | None:
    """Free bytes on the disk of a destination; None in an object store, which has no such bound."""
    return free_space_of_disk(destination) if isinstance(destination, Path) else None


@contextmanager
def telling_errors(destination: Destination) -> Iterator[None]:
    """Say in one sentence what the operating system refuses, or the network.

    Raises
    ------
    DestinationError
        It does.
    """
    try:
        with telling_os_errors(destination):
            yield
    except DestinationError:
        raise
    except Exception as error:
        if not is_of_network(error):
            raise
        raise DestinationError(
            f"{destination}: it cannot be written ({reason_of(error)}); check the address, the network and the "
            "permissions to list, read, write and delete"
        ) from error


def _check_address(url: str) -> None:
    if not url.lower().startswith("s3://"):
        raise DestinationError(f"{url}: only s3:// is written to; write to a disk, and upload it")
