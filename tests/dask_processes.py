"""Schedulers and workers of dask as processes of their own, as on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGE = "napari_mgbpv2"


@contextmanager
def a_process(*command: object, site: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start Python with a command line, and kill it at the end.

    Parameters
    ----------
    command
        What follows ``python``.
    site
        A folder that comes before all others where modules are looked for.
    """
    paths = [str(site)] if site else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    arguments = [sys.executable, *(str(each) for each in command)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(arguments, env=environment, **silent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def a_scheduler(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler; yield its process and address."""
    port = folder / "scheduler.json"
    arguments = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", port)
    with a_process("-m", "distributed.cli.dask_scheduler", *arguments) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError, KeyError):
                address = str(json.loads(port.read_text())["address"])
                port.unlink()
                yield process, address
                return
            time.sleep(0.05)
        raise TimeoutError("the scheduler did not start")


@contextmanager
def a_worker(
    address: str, name: str, *, site: Path | None = None, bare: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker of one thread.

    Parameters
    ----------
    address
        Address of its scheduler.
    name
        Name of the worker.
    site
        See `a_process`.
    bare
        Whether only what is in ``site`` can be imported beside the standard library.
    """
    arguments = (address, "--name", name, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--memory-limit", 0)
    isolated = ("-S",) if bare else ()
    with a_process(*isolated, "-m", "distributed.cli.dask_worker", *arguments, site=site) as process:
        yield process


def site_of_another_version(folder: Path, version: str) -> Path:
    """Make a folder that lets Python find another version of this package installed."""
    site = folder / f"site-{version}"
    metadata = site / f"{PACKAGE}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: napari-mgbpv2\nVersion: {version}\n")
    return site


def site_without_the_package(folder: Path) -> Path:
    """Make a folder with all packages that are installed but this one."""
    site = folder / "site-without"
    site.mkdir()
    for each in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if PACKAGE not in each.name and "napari-mgbpv2" not in each.name and each.suffix != ".pth":
            (site / each.name).symlink_to(each)
    return site
