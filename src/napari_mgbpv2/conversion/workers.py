"""The workers of a conversion: processes of this machine, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client


CONNECT_SECONDS = 20.0
NO_WORKER_TIMEOUT = 60.0  # seconds without any worker before a conversion ends
_MISSING = "several workers need dask.distributed: pip install 'napari-mgbpv2[distributed]'."


@contextlib.contextmanager
def local_workers(count: int) -> Iterator[Client]:
    """Start processes of this machine and end them; with GPUs, one for each, by dask-cuda.

    Parameters
    ----------
    count
        Number of processes; they share the machine's cores.

    Raises
    ------
    ClusterError
        dask.distributed is missing, or dask-cuda where there are GPUs.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError(_MISSING) from error
    from napari_mgbpv2.runtime import choose_device

    threads = max(1, (os.cpu_count() or 1) // count)
    with dask.config.set(
        {f"distributed.nanny.pre-spawn-environ.{name}": threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    ):
        cluster: Any
        if choose_device() == "cuda":
            try:
                from dask_cuda import LocalCUDACluster  # type: ignore[import-not-found, unused-ignore]
            except ImportError as error:
                raise ClusterError("several workers with GPUs need dask-cuda: pip install dask-cuda.") from error
            cluster = LocalCUDACluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
        else:
            cluster = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,  # what goes wrong there comes back, and is ours to deal with and to tell
            )
        cluster.adapt(minimum=count, maximum=count)  # replaces what dies for good
        with cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
            yield client


@contextlib.contextmanager
def cluster_at(address: str) -> Iterator[Client]:
    """Connect to a cluster that runs already.

    Parameters
    ----------
    address
        Of its scheduler, such as "tcp://10.0.0.1:8786".

    Raises
    ------
    ClusterError
        dask.distributed is missing, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(_MISSING) from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(f"{address}: no dask scheduler answers there; check the address.") from error
    with client:
        yield client
