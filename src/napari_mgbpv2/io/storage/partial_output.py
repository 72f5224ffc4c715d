"""Outputs by destination, on disks and in object stores: open transactions, find partial and finished outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination, parse_destination
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import provenance_in
from napari_mgbpv2.io.storage.journal import PartialOutput, read_partial_output
from napari_mgbpv2.io.storage.local_transaction import (
    OutputTransaction,
    complete_publishing,
    free_disk_space,
    has_leftovers,
    partial_path,
    translate_os_errors,
)
from napari_mgbpv2.io.storage.locks import Lock
from napari_mgbpv2.io.storage.object_stores import is_network_error, short_reason

if TYPE_CHECKING:
    import os

    from napari_mgbpv2.io.storage.object_store_transaction import ObjectStoreTransaction


def open_transaction(
    destination: str | os.PathLike[str],
    *,
    overwrite: bool,
    is_file: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> OutputTransaction | ObjectStoreTransaction:
    """Open a transaction on a destination, on a disk or in an object store.

    Parameters
    ----------
    destination
        Path or address.
    overwrite
        Whether the output may replace an existing one of the same kind.
    is_file
        Whether the finished output is a TIFF file instead of a Zarr store.
    waiting
        Called with a message before waiting for the lock of a run that may have died.

    Raises
    ------
    DestinationError
        If the destination exists and may not be replaced, another run is writing it, or it is not writable.
    """
    found = parse_destination(destination)
    if isinstance(found, Path):
        return OutputTransaction(found, overwrite=overwrite, is_file=is_file)
    _check_address(found)
    if is_file:
        raise DestinationError(f"{found}: a TIFF is written to a disk only; write it there, and copy it")
    from napari_mgbpv2.io.storage.object_store_transaction import ObjectStoreTransaction

    with translate_write_errors(found):
        return ObjectStoreTransaction(found, overwrite=overwrite, on_wait=on_wait)


def find_partial_output(destination: Destination) -> PartialOutput | None:
    """Return the partial output of a destination, if any."""
    if isinstance(destination, Path):
        return read_partial_output(partial_path(destination))
    from napari_mgbpv2.io.storage.object_store_backend import ObjectStoreBackend
    from napari_mgbpv2.io.storage.object_store_transaction import read_partial_output_in_store

    _check_address(destination)
    with translate_write_errors(destination):
        return read_partial_output_in_store(ObjectStoreBackend(destination))


def provenance_of(destination: Destination) -> dict[str, Any] | None:
    """Return the provenance that a store of this package records; None for any other store."""
    if isinstance(destination, Path):
        return provenance_in(lambda name: (destination / name).read_bytes())
    from napari_mgbpv2.io.storage.object_store_backend import ObjectStoreBackend

    _check_address(destination)
    with translate_write_errors(destination):
        return provenance_in(lambda name: ObjectStoreBackend(destination).find(name) or b"")


def complete_interrupted_publish(destination: Destination, *, is_file: bool = False) -> None:
    """Complete the publishing of a killed run, and delete its leftovers next to a finished image.

    Parameters
    ----------
    destination
        Path or address.
    is_file
        Whether the finished output is a TIFF.

    Raises
    ------
    DestinationError
        Another run is writing there.
    """
    if isinstance(destination, Path):
        if has_leftovers(destination):
            with translate_os_errors(destination):
                lock = Lock(destination.with_name(f"{destination.name}.lock"), destination)
                try:
                    complete_publishing(destination, is_file=is_file)
                finally:
                    lock.release()
        return
    from napari_mgbpv2.io.storage.object_store_backend import HIDDEN, ObjectStoreBackend

    with translate_write_errors(destination):
        backend = ObjectStoreBackend(destination)
        if provenance_of(destination) is not None:
            backend.delete(backend.list_sizes(HIDDEN))


def free_space(destination: Destination) -> int | None:
    """Return the free bytes on the disk of a destination; None for object stores."""
    return free_disk_space(destination) if isinstance(destination, Path) else None


@contextmanager
def translate_write_errors(destination: Destination) -> Iterator[None]:
    """Convert errors of the operating system and the network to a one-sentence `DestinationError`.

    Raises
    ------
    DestinationError
        The operating system or the network reports an error.
    """
    try:
        with translate_os_errors(destination):
            yield
    except DestinationError:
        raise
    except Exception as error:
        if not is_network_error(error):
            raise
        raise DestinationError(
            f"{destination}: it cannot be written ({short_reason(error)}); check the address, the network and the "
            "permissions to list, read, write and delete"
        ) from error


def _check_address(url: str) -> None:
    if not url.lower().startswith("s3://"):
        raise DestinationError(f"{url}: only s3:// addresses can be written; write to a disk, and upload it")
