"""Faults that end a conversion half-way: nothing is lost, and what is resumed ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client
from folder import SMALL_SHARDS, Folder, wait_for_shards
from table import Row, content_of

from dask_processes import a_scheduler, a_worker, site_of_another_version
from examples import a_network, an_image
from napari_mgbpv2.conversion import ConversionJob, Report, cluster, prepare, run
from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")

ALL_SHARDS = 70 + 20 + 6


@pytest.fixture
def source(folder: Folder) -> Path:
    """An image of 1200 x 800 px when it is done, in 70 shards, and two further levels."""
    return folder.image(300, 200)


@pytest.fixture
def differing(folder: Folder, source: Path, tmp_path: Path) -> Callable[[], set[str]]:
    """Files of the result that are not, byte for byte, those of a conversion that nothing has ended."""

    def compare() -> set[str]:
        expected = tmp_path / "whole" / folder.destination.name
        run(prepare(replace(job(folder, source), destination=expected)))
        made, whole = (
            {name.removeprefix(str(store)): data for name, data in content_of(store).items()}
            for store in (folder.destination, expected)
        )
        return {name for name in made.keys() | whole.keys() if made.get(name, "gone") != whole.get(name, "gone")}

    return compare


def job(folder: Folder, source: Path) -> ConversionJob:
    """What the command does with `SMALL_SHARDS`."""
    return ConversionJob(
        source, folder.destination, options=UpscaleOptions(model=folder.model, tile=150), chunk=64, shard=128, levels=3
    )


def resumes(folder: Folder, source: Path, *options: object) -> None:
    """Go on to the end."""
    assert folder.upscale(source, *SMALL_SHARDS, "--resume", *options).status == 0


def test_killed(row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]]) -> None:
    """MGBPV2_SOAK=20 kills it 20 times."""
    kills = int(os.environ.get("MGBPV2_SOAK", "2"))
    generator = random.Random(kills)
    stored = 0
    for number in range(kills):
        stored += generator.randint(1, 2 * ALL_SHARDS // (kills + 1))  # on the average, all but a few in the end
        running = folder.starts(source, *(["--resume"] if number else []), shards=min(stored, ALL_SHARDS - 9))
        time.sleep(generator.uniform(0, 0.02))
        running.process.kill()
        if number == 0:
            row.is_shown_by(running.finished())
        else:
            running.finished()
    resumes(folder, source)
    assert differing() == set()


def test_terminated(row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]]) -> None:
    running = folder.starts(source)
    running.process.terminate()
    row.is_shown_by(running.finished())
    resumes(folder, source)
    assert differing() == set()


def test_interrupted(row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]]) -> None:
    running = folder.starts(source)
    running.process.send_signal(signal.SIGINT)
    row.is_shown_by(running.finished())
    assert not folder.destination.with_name("result.ome.zarr.lock").exists()
    resumes(folder, source)
    assert differing() == set()


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_interrupted_twice(row: Row, folder: Folder, source: Path, pause: float) -> None:
    running = folder.starts(source)
    for _ in range(3):
        running.process.send_signal(signal.SIGINT)
        time.sleep(pause)
    row.is_shown_by(running.finished())
    resumes(folder, source)


def test_begun_twice(row: Row, folder: Folder, source: Path) -> None:
    running = folder.starts(source)
    running.process.send_signal(signal.SIGSTOP)
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS, "--overwrite"))
    running.process.send_signal(signal.SIGCONT)
    assert running.finished().status == 0


def begins(folder: Folder, source: Path) -> None:
    """Leave unfinished work."""
    told: list[Report] = []
    with pytest.raises(Cancelled):
        run(prepare(job(folder, source)), cancelled=lambda: bool(told) and told[-1].shards > 9, tell=told.append)


def test_not_resumed(row: Row, folder: Folder, source: Path) -> None:
    begins(folder, source)
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS))


def test_source_changed(row: Row, folder: Folder, source: Path) -> None:
    begins(folder, source)
    np.save(source, an_image(300, 200, dtype="u2", seed=1))
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS, "--resume"))


def test_journal_damaged(row: Row, folder: Folder, source: Path) -> None:
    begins(folder, source)
    journal = folder.destination.with_name("result.ome.zarr.partial") / ".mgbpv2-journal.jsonl"
    damaged = bytearray(journal.read_bytes())
    damaged[20] ^= 1
    journal.write_bytes(damaged)
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS, "--resume"))


def test_shard_damaged(row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]]) -> None:
    begins(folder, source)
    partial = folder.destination.with_name("result.ome.zarr.partial")
    shard = next(file for file in (partial / "0" / "c").rglob("*") if file.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[30] ^= 1
    shard.write_bytes(damaged)
    moved = partial.rename(folder.path.parent / "moved")  # what is there before the command is to be left alone
    outcome = folder.upscale(source, *SMALL_SHARDS, "--resume", prepare=lambda: moved.rename(partial))
    # whether tiles run twice depends on which shards were done before the kill
    said = "\n".join(line for line in outcome.said.splitlines() if "ran twice" not in line)
    row.is_shown_by(replace(outcome, said=said))
    assert differing() == set()


def test_model_changed(row: Row, folder: Folder, source: Path) -> None:
    begins(folder, source)
    save_model(a_network(seed=1), folder.model, overwrite=True)
    row.is_shown_by(folder.upscale(source, *SMALL_SHARDS, "--resume"))


def test_worker_refused(
    row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]], tmp_path: Path
) -> None:
    site = site_of_another_version(tmp_path, "0.0.9")
    with (
        a_scheduler(tmp_path) as (_, address),
        a_worker(address, "old", site=site),
        a_worker(address, "right"),
        Client(address) as client,
    ):
        client.wait_for_workers(2, timeout=240)
        outcome = folder.upscale(source, *SMALL_SHARDS, "--scheduler", address)
    row.is_shown_by(outcome)
    assert differing() == set()


def test_scheduler_killed(row: Row, folder: Folder, source: Path, tmp_path: Path) -> None:
    with a_scheduler(tmp_path) as (scheduler, address), a_worker(address, "right"):
        running = folder.starts(source, "--scheduler", address)
        scheduler.kill()
        row.is_shown_by(running.finished())


def test_worker_killed(
    row: Row, folder: Folder, source: Path, differing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MGBPV2_SOAK=20 kills that many, faster than any shard could be thought to be the cause."""
    monkeypatch.setattr(cluster, "MAX_WORKER_FAILURES", 1000)
    kills = int(os.environ.get("MGBPV2_SOAK", "1"))
    generator, ended = random.Random(kills), threading.Event()
    killed = []

    def kill() -> None:
        wait_for_shards(folder.destination, 10, ended.is_set)
        while len(killed) < kills and not ended.wait(generator.uniform(0, 0.5)):
            with suppress(psutil.NoSuchProcess, IndexError):  # it has just gone, or the next is not there
                children = psutil.Process().children()
                generator.choice([child for child in children if "spawn_main" in " ".join(child.cmdline())]).kill()
                killed.append(True)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        row.is_shown_by(folder.upscale(source, *SMALL_SHARDS, "--workers", "2"))
    finally:
        ended.set()
        killer.join()
    assert killed
    assert differing() == set()
