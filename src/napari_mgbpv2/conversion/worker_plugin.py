"""The dask plugin that holds the work of one conversion on a worker, with the tiles that its shards share."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker
from distributed.protocol.pickle import loads

if TYPE_CHECKING:
    from napari_mgbpv2.conversion.shards import ShardWork
    from napari_mgbpv2.conversion.worker_checks import Requirements
    from napari_mgbpv2.upscaling.lazy import ComputeTile, TiledImage, TilePixels

_STALE_SECONDS = 3600.0  # after which the work of a client that was killed is removed from a worker


class NotPreparedError(Exception):
    """A worker process does not hold the work: it has been started anew at the same address."""


class TileCounter:
    """Number of tiles that a worker has computed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def wrap_compute(self, compute: ComputeTile) -> ComputeTile:
        """Wrap the function that computes a tile, to count its calls."""

        def counted(plane: tuple[int, ...], group: int, row: int, column: int) -> TilePixels:
            with self._lock:
                self._count += 1
            return compute(plane, group, row, column)

        return counted

    def take(self) -> int:
        """Return the number of tiles since the last call, and start again from 0."""
        with self._lock:
            count, self._count = self._count, 0
        return count


class ConversionPlugin(WorkerPlugin):
    """The work of one conversion on one worker.

    It is added to each worker after its check and not registered with the scheduler: a worker that joins without this
    package could not unpickle it, and would fail to start.

    Parameters
    ----------
    payload
        A pickled `ShardWork`. It may hold a whole image, so each worker gets it once and unpickles it in its first
        task, in a thread: importing the network's packages takes seconds, and the worker must answer meanwhile.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload: bytes | None = payload
        self._loaded: tuple[ShardWork, TiledImage, TileCounter] | None = None
        self._lock = threading.Lock()
        self._used = time.monotonic()

    @property
    def is_stale(self) -> bool:
        """Whether no task has asked for the work for an hour."""
        return time.monotonic() - self._used > _STALE_SECONDS

    def load(self) -> tuple[ShardWork, TiledImage, TileCounter]:
        """Return the work, the image that all tasks of this worker share, and the counter of its tiles."""
        self._used = time.monotonic()
        with self._lock:
            if self._loaded is None:
                work, counter = loads(self._payload), TileCounter()  # type: ignore[no-untyped-call]
                self._loaded, self._payload = (work, work.image(counter.wrap_compute), counter), None
            return self._loaded


async def prepare_worker(requirements: Requirements, name: str, payload: bytes, dask_worker: Any) -> str | None:
    """Check a worker, and add the plugin of a conversion if it passes. Stale plugins of other conversions are removed.

    Parameters
    ----------
    requirements
        Requirements that the worker must meet.
    name
        Name of the plugin, a different one for each conversion.
    payload
        See `ConversionPlugin`.
    dask_worker
        The worker; `Client.run` provides it.

    Returns
    -------
    str or None
        Reason and remedy, if the worker cannot be used.
    """
    for other, plugin in list(dask_worker.plugins.items()):
        if isinstance(plugin, ConversionPlugin) and plugin.is_stale:
            await dask_worker.plugin_remove(name=other)
    try:  # in a thread: to hash a file on slow storage takes seconds, and the worker must answer meanwhile
        fault = await asyncio.to_thread(requirements.fault)
    except OSError as error:  # an OSError from here must not be taken for a connection that is lost
        fault = f"cannot read its files ({error}): check its storage and permissions, and restart it"
    if fault is None:
        await dask_worker.plugin_add(ConversionPlugin(payload), name=name)
    return fault


async def remove_plugin(name: str, dask_worker: Any) -> None:
    """Remove the plugin of a conversion from a worker. Parameters as those of `prepare_worker`."""
    if name in dask_worker.plugins:
        await dask_worker.plugin_remove(name=name)


def plugin_of_this_worker(name: str) -> ConversionPlugin:
    """Return the plugin of a conversion, within a task.

    Raises
    ------
    NotPreparedError
        This worker does not have it.
    """
    plugin = get_worker().plugins.get(name)
    if not isinstance(plugin, ConversionPlugin):
        raise NotPreparedError
    return plugin
