"""Faults of where the result is to be: nothing of the user's is touched, and nothing looks finished that is not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zarr
from folder import SMALL_SHARDS, Folder, on_posix, wait_for_shards
from table import Row

from examples import an_image
from napari_mgbpv2.io.writers.ome_zarr import shards


class Disk:
    """A small file system in memory, where this user may mount one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def mount(self, options: str) -> bool:
        """Mount it, or mount it otherwise; tell whether that is possible."""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:  # there is no such command
            return False


@pytest.fixture
def disk(folder: Folder) -> Iterator[Disk]:
    """A file system beside the user's files."""
    disk = Disk(folder.path / "disk")
    folder.destination = disk.path / "result.ome.zarr"
    yield disk
    while disk.path.is_mount():
        subprocess.run(["umount", str(disk.path)], check=True)


def meanwhile(folder: Folder, happens: Callable[[], object], shards: int = 20) -> threading.Thread:
    """Let something happen as soon as some shards are stored."""

    def watch() -> None:
        wait_for_shards(folder.destination, shards)
        happens()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_disk_full(row: Row, folder: Folder, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is really full, where one can be made; else the system says so when a file is to be written."""
    source = folder.image()
    if disk.mount("size=700k"):
        row.is_shown_by(folder.upscale(source, *SMALL_SHARDS))
        disk.mount("remount,size=100m")
    else:
        flush, calls = shards.flush, []

        def full(file: Path) -> None:
            calls.append(file)
            if len(calls) > 12:
                raise OSError(errno.ENOSPC, "No space left on device")
            flush(file)

        with monkeypatch.context() as patched:
            patched.setattr(shards, "flush", full)
            row.is_shown_by(folder.upscale(source, *SMALL_SHARDS))
    assert folder.upscale(source, *SMALL_SHARDS, "--resume").status == 0
    whole = folder.path / "whole.ome.zarr"
    assert folder.upscale(source, *SMALL_SHARDS, destination=whole).status == 0
    for file in (file for file in whole.rglob("*") if file.is_file()):
        assert (folder.destination / file.relative_to(whole)).read_bytes() == file.read_bytes()


def test_disk_full_at_the_start(row: Row, folder: Folder, disk: Disk) -> None:
    if not disk.mount("size=8k"):
        pytest.skip("no file system may be mounted here")
    row.is_shown_by(folder.upscale(folder.image(), *SMALL_SHARDS))


def test_disk_full_for_a_tiff(row: Row, folder: Folder, disk: Disk) -> None:
    """It is made when all shards are there, and needs as much again."""
    folder.destination = disk.path / "result.ome.tif"
    if not disk.mount("size=1800k"):
        pytest.skip("no file system may be mounted here")
    source = folder.image()
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS))
    disk.mount("remount,size=100m")
    assert folder.upscale(source, *SMALL_SHARDS, "--resume").status == 0


def test_disk_too_small(row: Row, folder: Folder) -> None:
    source = folder.path / "image.zarr"
    zarr.create_array(source, shape=(10**6, 10**6), chunks=(1024, 1024), dtype="u2")  # without a single chunk
    outcome = folder.upscale(source, "--dry-run")
    row.is_shown_by(outcome)
    assert "WARNING: the disk may not suffice" in outcome.printed


@on_posix
def test_removed(row: Row, folder: Folder) -> None:
    partial = folder.destination.with_name("result.ome.zarr.partial")
    watching = meanwhile(folder, lambda: shutil.rmtree(partial, ignore_errors=True))
    row.is_shown_by(folder.upscale(folder.image(300, 200), *SMALL_SHARDS))
    watching.join()


def test_partly_removed(row: Row, folder: Folder) -> None:
    """Readers would take what is missing for black; so does what levels are made of."""
    source = folder.image(300, 200)
    level = folder.destination.with_name("result.ome.zarr.partial") / "0" / "c"
    watching = meanwhile(folder, lambda: (level / "0" / "0").unlink())
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS))
    watching.join()
    assert folder.upscale(source, *SMALL_SHARDS, "--resume").status == 0
    whole = folder.path / "whole.ome.zarr"
    assert folder.upscale(source, *SMALL_SHARDS, destination=whole).status == 0
    for file in (file for file in whole.rglob("*") if file.is_file()):
        assert (folder.destination / file.relative_to(whole)).read_bytes() == file.read_bytes()


@on_posix
def test_read_only(row: Row, folder: Folder, disk: Disk) -> None:
    """A folder without the permission, or for who needs none, a read-only file system."""
    if os.name == "posix" and os.geteuid():
        disk.path.chmod(0o555)
    elif not disk.mount("ro"):
        pytest.skip("permissions do not bind this user, and no file system may be mounted here")
    try:
        row.is_shown_by(folder.upscale(folder.image()))
    finally:
        if not disk.path.is_mount():
            disk.path.chmod(0o755)


def test_below_a_file(row: Row, folder: Folder) -> None:
    notes = folder.path / "notes.txt"
    notes.write_text("precious")
    folder.destination = notes / "result.ome.zarr"
    row.is_shown_by(folder.upscale(folder.image()))


@on_posix
def test_name_too_long(row: Row, folder: Folder) -> None:
    folder.destination = folder.path / f"{'x' * 300}.ome.zarr"
    row.is_shown_by(folder.upscale(folder.image()))


def test_exists(row: Row, folder: Folder) -> None:
    source = folder.image(20, 20)
    assert folder.upscale(source).status == 0
    row.is_shown_by(folder.upscale(folder.image(20, 20, name="other.npy")))


def test_result_damaged(row: Row, folder: Folder) -> None:
    source = folder.image(20, 20)
    assert folder.upscale(source).status == 0
    (folder.destination / "0" / "c" / "0" / "0").unlink()
    row.is_shown_by(folder.upscale(source, "--resume"))


def test_exists_and_is_no_image(row: Row, folder: Folder) -> None:
    folder.destination.write_text("precious")
    row.is_shown_by(folder.upscale(folder.image(20, 20), "--overwrite"))


def test_exists_and_is_a_folder_of_other_files(row: Row, folder: Folder) -> None:
    folder.destination.mkdir()
    (folder.destination / "thesis.txt").write_text("precious")
    zarr.open_group(folder.destination, mode="a")  # by mistake
    row.is_shown_by(folder.upscale(folder.image(20, 20), "--overwrite"))


@on_posix
def test_link(row: Row, folder: Folder) -> None:
    precious = folder.path / "precious.zarr"
    zarr.create_array(precious, data=an_image(64, 64))
    folder.destination.symlink_to(precious)
    row.is_shown_by(folder.upscale(folder.image(20, 20), "--overwrite"))


def test_is_the_source(row: Row, folder: Folder) -> None:
    folder.destination = folder.path / "image.zarr"
    zarr.create_array(folder.destination, data=an_image(64, 64))
    row.is_shown_by(folder.upscale(folder.destination, "--overwrite"))


def test_within_the_source(row: Row, folder: Folder) -> None:
    source = folder.path / "image.zarr"
    zarr.create_array(source, data=an_image(64, 64))
    folder.destination = source / "result.ome.zarr"
    row.is_shown_by(folder.upscale(source))


def test_holds_the_source(row: Row, folder: Folder) -> None:
    folder.destination = folder.path / "images.zarr"
    zarr.open_group(folder.destination, mode="w").create_array("a", data=an_image(64, 64))
    row.is_shown_by(folder.upscale(folder.destination / "a", "--overwrite"))


def test_appears_meanwhile(row: Row, folder: Folder) -> None:
    """Somebody else's result of the same name is not replaced."""
    source = folder.image(300, 200)
    other = folder.path / "other.zarr"
    zarr.create_array(other, data=an_image(64, 64))
    watching = meanwhile(folder, lambda: shutil.copytree(other, folder.destination))
    outcome = folder.upscale(source, *SMALL_SHARDS)
    watching.join()
    assert (folder.destination / "zarr.json").read_bytes() == (other / "zarr.json").read_bytes()
    shutil.rmtree(folder.destination)
    row.is_shown_by(outcome)


def test_strange_name(row: Row, folder: Folder) -> None:
    folder.destination = folder.path / "größer (4 mal) 日本語 #1.ome.zarr"
    row.is_shown_by(folder.upscale(folder.image(20, 20, name="Bild µm %20 [1].npy")))
