"""Conversion by several processes: the same bytes as by one, also when workers die."""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, Future, LocalCluster

import napari_mgbpv2 as mgbp
from dask_processes import a_worker, site_without_the_package
from examples import Array, a_network, an_image
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.conversion import ConversionJob, Report, cluster, prepare, run, workers
from napari_mgbpv2.conversion.worker_checks import Event, Requirements, WorkerChecks
from napari_mgbpv2.conversion.worker_plugin import ConversionPlugin
from napari_mgbpv2.errors import Cancelled, ClusterError, SourceError
from napari_mgbpv2.io.storage.backends import LocalBackend
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.upscaling.options import UpscaleOptions
from test_resume import content


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two processes of one thread each."""
    with workers.local_workers(2) as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(a_network(), tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "source.npy", an_image(200, 140, dtype="u2"))
    return tmp_path / "source.npy"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "result.ome.zarr"


def job(source: Any, destination: Path, model: Path, **changes: Any) -> ConversionJob:
    """800 x 560 px in 35 shards, and two further levels."""
    return ConversionJob(
        source, destination, options=UpscaleOptions(model=model, tile=150), chunk=64, shard=128, levels=3, **changes
    )


def alone(source: Path, model: Path) -> dict[str, bytes]:
    """What one process writes."""
    destination = source.with_name("alone") / "result.ome.zarr"
    run(prepare(job(source, destination, model)))
    return content(destination)


class TestSameAnswer:
    def test_workers_write_what_one_process_writes(
        self, client: Client, source: Path, destination: Path, model: Path
    ) -> None:
        told: list[Report] = []
        run(prepare(job(source, destination, model)), client=client, tell=told.append)
        assert content(destination) == alone(source, model)
        last = told[-1]
        assert (last.tiles, last.shards) == (last.all_tiles, last.all_shards)
        assert last.repeated_tiles > 0  # those across the border of the two areas

    def test_an_array_in_memory_travels(self, client: Client, destination: Path, model: Path) -> None:
        image = an_image(40, 40, 3)
        mgbp.convert(image, destination, model=model, client=client)
        expected = mgbp.upscale(image, model=model).compute()
        import zarr

        np.testing.assert_array_equal(np.asarray(zarr.open(destination)["0"]).transpose(1, 2, 0), expected)

    def test_a_run_that_one_process_began_is_ended_by_workers(
        self, client: Client, source: Path, destination: Path, model: Path
    ) -> None:
        told: list[Report] = []
        with pytest.raises(Cancelled, match="what is done is kept"):
            run(
                prepare(job(source, destination, model)),
                cancelled=lambda: bool(told) and told[-1].shards >= 10,
                tell=told.append,
            )
        run(prepare(job(source, destination, model, resume=True)), client=client)
        assert content(destination) == alone(source, model)

    def test_cancelling_keeps_what_workers_have_done(
        self, client: Client, source: Path, destination: Path, model: Path
    ) -> None:
        told: list[Report] = []
        with pytest.raises(Cancelled, match="what is done is kept"):
            run(
                prepare(job(source, destination, model)),
                cancelled=lambda: bool(told),
                client=client,
                tell=told.append,
            )
        run(prepare(job(source, destination, model, resume=True)))
        assert content(destination) == alone(source, model)


class TestErrors:
    def test_an_error_of_a_worker_ends_the_run_with_its_sentence(
        self, client: Client, tmp_path: Path, destination: Path, model: Path
    ) -> None:
        path = tmp_path / "gone.npy"
        np.save(path, an_image(200, 140, dtype="u2"))
        prepared = prepare(job(path, destination, model))
        path.unlink()
        with pytest.raises(SourceError, match=r"gone.npy"):
            run(prepared, client=client)
        assert not destination.exists()

    def test_a_cluster_without_workers_is_told(
        self, source: Path, destination: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "NO_WORKER_TIMEOUT", 0.5)
        with (
            LocalCluster(n_workers=0, dashboard_address=None) as nobody,
            Client(nobody) as found,
            pytest.raises(ClusterError, match="no workers for"),
        ):
            run(prepare(job(source, destination, model)), client=found)
        assert not destination.with_name("result.ome.zarr.partial").exists()

    def test_workers_that_do_not_see_the_output_are_told_by_name(
        self, client: Client, source: Path, destination: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of = Requirements.of
        elsewhere = LocalBackend(Path("no such place"))
        monkeypatch.setattr(Requirements, "of", lambda *given: replace(of(*given), storage=elsewhere))
        with pytest.raises(ClusterError, match=r"worker tcp://\S+ .*does not see .*storage that all of them share"):
            run(prepare(job(source, destination, model)), client=client)

    @pytest.mark.parametrize(("gone", "said"), [(True, "has no model file"), (False, "has another model file at")])
    def test_workers_with_another_model_file_are_told_by_name(
        self, client: Client, source: Path, destination: Path, tmp_path: Path, gone: bool, said: str
    ) -> None:
        model = save_model(a_network(), tmp_path / "mine.safetensors")
        prepared = prepare(job(source, destination, model))
        model.unlink()
        if not gone:
            save_model(a_network(seed=1), model)
        with pytest.raises(ClusterError, match=rf"worker tcp://\S+ .*{said} {re.escape(str(model))}"):
            run(prepared, client=client)

    def test_nobody_at_the_address_is_told(self, source: Path, destination: Path, capsys: Any) -> None:
        workers_timeout = workers.CONNECT_SECONDS
        workers.CONNECT_SECONDS = 0.5
        try:
            status = main([str(source), "-o", str(destination), "--scheduler", "tcp://127.0.0.1:9"])
        finally:
            workers.CONNECT_SECONDS = workers_timeout
        assert status == 1
        assert "no dask scheduler answers" in capsys.readouterr().err

    def test_a_result_that_has_died_with_its_worker_is_made_again(
        self, client: Client, source: Path, destination: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Asking for it, one might wait for ever."""
        result, lost = Future.result, []

        def die(self: Future, timeout: float | None = None) -> Any:
            assert timeout is not None
            if len(lost) < 3:
                lost.append(self.key)
                raise TimeoutError
            return result(self, timeout)

        monkeypatch.setattr(Future, "result", die)
        run(prepare(job(source, destination, model)), client=client)
        assert len(set(lost)) == 3
        assert content(destination) == alone(source, model)

    def test_an_error_that_is_no_dead_worker_is_not_called_one(
        self, client: Client, source: Path, destination: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Future, timeout: float | None = None) -> Any:
            raise ZeroDivisionError("a fault")

        monkeypatch.setattr(Future, "result", fail)
        with pytest.raises(ZeroDivisionError, match="a fault"):
            run(prepare(job(source, destination, model)), client=client)

    def test_processes_that_have_been_started_anew_get_the_work_again(
        self, client: Client, source: Path, destination: Path, model: Path
    ) -> None:
        """A worker may come back at the address that it had."""
        told: list[Report] = []

        def tell(report: Report) -> None:
            told.append(report)
            if len(told) == 5:
                client.run(lose_all_plugins)

        run(prepare(job(source, destination, model)), client=client, tell=tell)
        assert content(destination) == alone(source, model)

    def test_a_shard_at_which_workers_die_again_and_again_is_told(
        self, client: Client, source: Path, destination: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "MAX_WORKER_FAILURES", 1)
        with pytest.raises(ClusterError, match="die again and again at shard"):
            run(prepare(job(Deadly(), destination, model)), client=client)


async def lose_all_plugins(dask_worker: Any) -> None:
    for name, plugin in list(dask_worker.plugins.items()):
        if isinstance(plugin, ConversionPlugin):
            await dask_worker.plugin_remove(name=name)


class TestChecks:
    """Of workers that join while a conversion is under way."""

    @pytest.fixture
    def checks(self, client: Client) -> Iterator[tuple[WorkerChecks, list[str]]]:
        """Checks in which the workers of the cluster have passed, and what is said of others."""
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        notes: list[str] = []
        requirements = Requirements(None, None, LocalBackend(Path(__file__).parent))
        checks = WorkerChecks(client, requirements, "a conversion", b"", self.events.put, notes.append)
        while len(client.nthreads()) != 2:  # workers of the tests before may be ending, or starting
            time.sleep(0.1)
        checks.update(client.nthreads())
        for _ in range(2):
            self.events.get(timeout=120)()
        assert len(checks.usable) == 2
        assert not notes
        yield checks, notes
        checks.close()

    def joined(self, client: Client, checks: WorkerChecks) -> None:
        """Wait for a third worker, and for its check."""
        client.wait_for_workers(3, timeout=120)
        checks.update(client.nthreads())
        self.events.get(timeout=120)()

    def test_one_without_the_package_is_refused_by_name(
        self, client: Client, checks: tuple[WorkerChecks, list[str]], tmp_path: Path
    ) -> None:
        site = site_without_the_package(tmp_path)
        with a_worker(client.scheduler.address, "bare", site=site, bare=True):
            self.joined(client, checks[0])
        assert len(checks[0].usable) == 2
        (note,) = checks[1]
        assert re.match(r"worker tcp://\S+ \(name bare\) lacks napari-mgbpv2: install napari-mgbpv2==", note)

    def test_one_that_can_do_the_work_is_used(self, client: Client, checks: tuple[WorkerChecks, list[str]]) -> None:
        with a_worker(client.scheduler.address, "late"):
            self.joined(client, checks[0])
            assert len(checks[0].usable) == 3
        assert not checks[1]

    def test_the_work_is_removed_from_the_workers_at_the_end(
        self, client: Client, checks: tuple[WorkerChecks, list[str]]
    ) -> None:
        assert all(client.run(has_plugins).values())
        checks[0].close()
        deadline = time.monotonic() + 60
        while any(client.run(has_plugins).values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(client.run(has_plugins).values())


def has_plugins(dask_worker: Any) -> bool:
    return "a conversion" in dask_worker.plugins


class Deadly:
    """An array that kills who reads it."""

    shape, dtype = (100, 100), np.dtype("u1")

    def __getitem__(self, window: tuple[slice, ...]) -> Array:
        os._exit(1)


@pytest.mark.slow
def test_the_command_starts_workers_of_its_own(source: Path, tmp_path: Path, model: Path) -> None:
    arguments = [str(source), "--model", str(model), "--tile", "150"]
    assert main([*arguments, "-o", str(tmp_path / "alone.ome.zarr")]) == 0
    assert main([*arguments, "-o", str(tmp_path / "two.ome.zarr"), "--workers", "2"]) == 0
    assert content(tmp_path / "two.ome.zarr") == content(tmp_path / "alone.ome.zarr")
