"""Results in an object store: the same bytes as on a disk, no image before it is complete, nothing lost or replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.errors import Cancelled, ClusterError, DestinationError, SourceError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.io.storage import lease, object_stores
from napari_mgbpv2.io.storage.object_store_backend import HIDDEN, LOCK, ObjectStoreBackend
from napari_mgbpv2.model.checkpoints import save_model
from s3 import TestBucket, a_bucket, serving_s3

# 120 x 100 px make 480 x 400: 4 x 4 shards, and 4 and 1 of two further levels
OPTIONS: dict[str, Any] = {"tile": 150, "chunk": 64, "shard": 128, "levels": 3}
COMMAND = ["--tile", "150", "--chunk", "64", "--shard", "128", "--levels", "3"]
SHARDS = 16 + 4 + 1


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving_s3() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> TestBucket:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    return a_bucket(s3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(a_network(guard=16), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.npy"
    np.save(path, an_image(120, 100, dtype="u2"))
    return path


def on_disk(source: Path, model: Path, folder: Path, **options: Any) -> dict[str, bytes]:
    """All files of the same conversion on a disk."""
    result = folder / "on_disk.ome.zarr"
    mgbp.convert(source, result, model=model, **(OPTIONS | options))
    return {file.relative_to(result).as_posix(): file.read_bytes() for file in result.rglob("*") if file.is_file()}


def interrupt(source: Path, destination: str, model: Path, steps: int = 8) -> None:
    """Convert until so many steps are done."""
    done = [0]
    with pytest.raises(Cancelled, match="what is done is kept"):
        mgbp.convert(
            source,
            destination,
            model=model,
            progress=lambda now, _: done.__setitem__(0, now),
            cancelled=lambda: done[0] >= steps,
            **OPTIONS,
        )


class TestResult:
    @pytest.mark.parametrize("output", ["0.5", "0.4", "zarr"])
    def test_it_has_the_bytes_of_one_on_a_disk_and_nothing_else(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path, output: str
    ) -> None:
        options = {"format": output, "levels": 1 if output == "zarr" else 3}
        result = mgbp.convert(source, f"{bucket.url}/a/result.ome.zarr/", model=model, **(OPTIONS | options))
        assert result == f"{bucket.url}/a/result.ome.zarr"
        assert bucket.content("a/result.ome.zarr") == on_disk(source, model, tmp_path, **options)

    def test_it_is_read_as_any_other(self, source: Path, model: Path, bucket: TestBucket) -> None:
        mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, **OPTIONS)
        found = open_source(f"{bucket.url}/result.ome.zarr")
        expected = mgbp.upscale(np.load(source), model=model, tile=150).compute()
        np.testing.assert_array_equal(found.data[slice(None), slice(None)], expected)

    def test_its_root_metadata_are_written_last(
        self, source: Path, model: Path, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[str] = []
        write = ObjectStoreBackend.write

        def noted(self: ObjectStoreBackend, key: str, *arguments: Any, **options: Any) -> Any:
            written.extend([key] if key != LOCK else [])
            return write(self, key, *arguments, **options)

        monkeypatch.setattr(ObjectStoreBackend, "write", noted)
        mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, **OPTIONS)
        assert written[-4:-1] == ["0/zarr.json", "1/zarr.json", "2/zarr.json"]
        assert written[-1] == "zarr.json"

    def test_two_workers_make_the_same(self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path) -> None:
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, client=client, **OPTIONS)
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)


class TestUnfinished:
    def test_no_reader_takes_it_for_an_image(self, source: Path, model: Path, bucket: TestBucket) -> None:
        interrupt(source, f"{bucket.url}/result.ome.zarr", model)
        assert [key for key in bucket.keys("result.ome.zarr") if key.startswith("0/c/")]
        for place in ("", "/0"):
            with pytest.raises(SourceError, match="there is no Zarr at this address"):
                open_source(f"{bucket.url}/result.ome.zarr{place}")

    def test_it_is_gone_on_with_to_the_same_bytes(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path
    ) -> None:
        interrupt(source, f"{bucket.url}/result.ome.zarr", model)
        steps: list[int] = []
        mgbp.convert(
            source,
            f"{bucket.url}/result.ome.zarr",
            model=model,
            resume=True,
            progress=lambda now, _: steps.append(now),
            **OPTIONS,
        )
        assert min(steps) > 1  # what was done is not done again
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)

    def test_killed_at_any_moment_it_ends_with_the_same_bytes(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path
    ) -> None:
        destination = f"{bucket.url}/result.ome.zarr"
        hasty = "import sys; from napari_mgbpv2.io.storage import lease; lease.LEASE_SECONDS = 1.0; "
        hasty += "from napari_mgbpv2.cli.upscale import main; sys.exit(main())"
        command = [sys.executable, "-c", hasty, str(source), "-o", destination, *COMMAND]
        command += ["--model", str(model), "--resume", "--quiet"]
        for shards in (1, 9):
            process = subprocess.Popen(command)
            deadline = time.monotonic() + 60
            while len([key for key in bucket.keys("result.ome.zarr") if "/c/" in key]) < shards:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert "zarr.json" not in bucket.keys("result.ome.zarr")
        assert subprocess.run(command, check=False).returncode == 0
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)

    def test_it_is_not_dropped_unasked_and_is_dropped_when_asked(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path
    ) -> None:
        destination = f"{bucket.url}/result.ome.zarr"
        interrupt(source, destination, model)
        with pytest.raises(DestinationError, match=r"an earlier run left .* resume it, or ask to overwrite it"):
            mgbp.convert(source, destination, model=model, **OPTIONS)
        with pytest.raises(DestinationError, match="started with other settings: seed was 0 and is 1"):
            mgbp.convert(source, destination, model=model, resume=True, seed=1, **OPTIONS)
        mgbp.convert(source, destination, model=model, overwrite=True, seed=1, **OPTIONS)
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path, seed=1)

    def test_what_went_missing_meanwhile_is_noticed_and_made_anew(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path
    ) -> None:
        destination = f"{bucket.url}/result.ome.zarr"
        interrupt(source, destination, model)
        bucket.delete(
            f"result.ome.zarr/{next(key for key in bucket.keys('result.ome.zarr') if key.startswith('0/c/'))}"
        )
        mgbp.convert(source, destination, model=model, resume=True, **OPTIONS)
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)

    def test_stopped_while_it_appears_it_is_gone_on_with(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        destination, write = f"{bucket.url}/result.ome.zarr", ObjectStoreBackend.write

        def failing(self: ObjectStoreBackend, key: str, *arguments: Any, **options: Any) -> Any:
            if key == "1/zarr.json":
                raise KeyboardInterrupt
            return write(self, key, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(ObjectStoreBackend, "write", failing)
            with pytest.raises(KeyboardInterrupt):
                mgbp.convert(source, destination, model=model, **OPTIONS)
        assert "0/zarr.json" in bucket.keys("result.ome.zarr")
        with pytest.raises(SourceError, match="there is no Zarr at this address"):
            open_source(destination)
        mgbp.convert(source, destination, model=model, resume=True, **OPTIONS)
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)

    def test_without_the_network_half_way_it_says_so_and_is_gone_on_with(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hasty = {"max_retries": 1, "retry_timeout": timedelta(seconds=1)}
        monkeypatch.setattr(object_stores, "_LONG_RETRIES", hasty)
        monkeypatch.setattr(object_stores, "_SHORT_RETRIES", hasty)
        with ExitStack() as server:
            endpoint = server.enter_context(serving_s3())
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            network_ends = lambda done, _: server.close() if done == 8 else None  # noqa: E731
            with pytest.raises(DestinationError, match=r"cannot be written .* what is done is kept, and resuming"):
                mgbp.convert(source, f"{bucket.url}/r.ome.zarr", model=model, progress=network_ends, **OPTIONS)
        with serving_s3(int(endpoint.rpartition(":")[2])):
            mgbp.convert(source, f"{bucket.url}/r.ome.zarr", model=model, resume=True, **OPTIONS)
        assert bucket.content("r.ome.zarr") == on_disk(source, model, tmp_path)

    def test_nothing_is_left_of_what_had_not_begun(self, source: Path, model: Path, bucket: TestBucket) -> None:
        with pytest.raises(Cancelled):
            mgbp.convert(source, f"{bucket.url}/r.ome.zarr", model=model, cancelled=lambda: True, **OPTIONS)
        assert bucket.keys() == []

    def test_a_kill_after_completion_leaves_what_resuming_tidies(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path
    ) -> None:
        destination = f"{bucket.url}/result.ome.zarr"
        mgbp.convert(source, destination, model=model, **OPTIONS)
        bucket.put(f"result.ome.zarr/{HIDDEN}/journal/00000000.jsonl", b"{}\n")
        mgbp.convert(source, destination, model=model, resume=True, **OPTIONS)
        assert bucket.content("result.ome.zarr") == on_disk(source, model, tmp_path)


class TestRefusals:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_finished_image_is_never_replaced(
        self, source: Path, model: Path, bucket: TestBucket, overwrite: bool
    ) -> None:
        destination = f"{bucket.url}/result.ome.zarr"
        mgbp.convert(source, destination, model=model, **OPTIONS)
        before = bucket.content("")
        with pytest.raises(DestinationError, match="choose another name, or delete it first"):
            mgbp.convert(source, destination, model=model, overwrite=overwrite, seed=1, **OPTIONS)
        assert bucket.content("") == before

    @pytest.mark.parametrize("key", ["notes.txt", "0/c/0/0", "sub/zarr.json"])
    def test_what_is_not_ours_is_in_the_way(self, source: Path, model: Path, bucket: TestBucket, key: str) -> None:
        bucket.put(f"result.ome.zarr/{key}", b"precious")
        with pytest.raises(DestinationError, match=f"holds {key}, which was not written by this program"):
            mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, overwrite=True, **OPTIONS)
        assert bucket.content("") == {f"result.ome.zarr/{key}": b"precious"}

    def test_one_that_somebody_writes_is_not_written_by_another(
        self, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "LEASE_SECONDS", 4.0)
        held = lease.Lease(ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run="first"))
        said: list[str] = []
        with pytest.raises(DestinationError, match="is already being written by another run"):
            lease.Lease(ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run="second"), said.append)
        assert "waiting up to 4 s" in said[0]
        held.confirm()
        held.release(delete=True)
        assert bucket.keys() == []

    @pytest.mark.parametrize("content", [b"", b'{"pid": 1, "host": "elsewhere", "token": "0"}'])
    def test_a_lock_that_nobody_renews_is_taken_over(
        self, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
        bucket.put(f"r.ome.zarr/{HIDDEN}/lock.json", content)
        lease.Lease(ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run="mine")).release(delete=True)
        assert bucket.keys() == []

    def test_of_two_that_find_a_lock_expired_one_gets_it(
        self, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
        bucket.put(f"r.ome.zarr/{HIDDEN}/lock.json", b"{}")

        def take(run: str) -> bool:
            try:
                lease.Lease(ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run=run))
            except DestinationError:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(take, "abcdef")) == 1

    def test_who_has_lost_its_lock_is_told_and_writes_nothing(
        self, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late = ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run="late")
        held = lease.Lease(late)
        bucket.put(f"r.ome.zarr/{HIDDEN}/lock.json", b'{"token": "other"}')
        with pytest.raises(DestinationError, match="taken over by another run"):
            late.put("0/c/0/0", b"old")
        with pytest.raises(DestinationError, match="taken over by another run"):
            held.confirm()
        held.release(delete=True)
        assert bucket.keys() == [f"r.ome.zarr/{HIDDEN}/lock.json"]

    def test_a_task_that_was_held_back_replaces_no_shard_of_a_later_run(
        self, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has found its run alive, and then slept."""
        url = f"{bucket.url}/r.ome.zarr"
        old, new = ObjectStoreBackend(url, run="old"), ObjectStoreBackend(url, run="new")
        first = lease.Lease(old)
        check = ObjectStoreBackend._check_run

        def slept(self: ObjectStoreBackend) -> None:
            check(self)
            if self.run == "old" and not first._ended.is_set():
                first.release()
                lease.Lease(new)
                new.put("0/c/0/0", b"new")

        monkeypatch.setattr(ObjectStoreBackend, "_check_run", slept)
        with pytest.raises(DestinationError, match="taken over by another run"):
            old.put("0/c/0/0", b"old")
        assert bucket.content("r.ome.zarr")["0/c/0/0"] == b"new"

    def test_what_a_late_task_has_left_is_replaced(self, bucket: TestBucket) -> None:
        new = ObjectStoreBackend(f"{bucket.url}/r.ome.zarr", run="new")
        held = lease.Lease(new)
        bucket.put("r.ome.zarr/0/c/0/0", b"old")
        new.put("0/c/0/0", b"new")
        new.put("0/c/0/0", b"new")
        held.release()
        assert bucket.content("r.ome.zarr")["0/c/0/0"] == b"new"

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("{bucket}/a.tif", "a TIFF is written to a disk only"),
            ("gs://bucket/a.ome.zarr", "only s3:// addresses can be written"),
            ("https://example.org/a.ome.zarr", "only s3:// addresses can be written"),
            ("s3://nobody/a.ome.zarr", "the bucket does not exist"),
        ],
    )
    def test_a_place_that_cannot_be_written_is_one_clear_sentence(
        self, source: Path, model: Path, bucket: TestBucket, place: str, message: str
    ) -> None:
        with pytest.raises(DestinationError, match=message):
            mgbp.convert(source, place.format(bucket=bucket.url), model=model, **OPTIONS)

    def test_without_the_network_it_says_so(
        self, source: Path, model: Path, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(DestinationError, match=r"it cannot be written \(no connection\); check the address"):
            mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, **OPTIONS)

    def test_its_own_source_is_refused(self, model: Path, bucket: TestBucket, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=an_image(60, 50))
        for file in (tmp_path / "a.zarr").rglob("*"):
            if file.is_file():
                bucket.put(f"a.zarr/{file.relative_to(tmp_path / 'a.zarr').as_posix()}", file.read_bytes())
        for place in ("a.zarr", "a.zarr/inner.ome.zarr"):
            with pytest.raises(DestinationError, match="is, holds, or lies within the source"):
                mgbp.convert(f"{bucket.url}/a.zarr", f"{bucket.url}/{place}", model=model, overwrite=True, **OPTIONS)

    def test_workers_that_do_not_see_it_are_told_of(
        self, source: Path, model: Path, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        distributed = pytest.importorskip("distributed")
        monkeypatch.setattr(ObjectStoreBackend, "exists_here", lambda self: False)
        with (
            distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
            pytest.raises(ClusterError, match="does not see the unfinished output"),
        ):
            mgbp.convert(source, f"{bucket.url}/result.ome.zarr", model=model, client=client, **OPTIONS)


class TestCommand:
    def test_several_sources_have_one_place_each(
        self, source: Path, model: Path, bucket: TestBucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = tmp_path / "other.npy"
        np.save(other, an_image(40, 50))
        assert main([str(source), str(other), "-o", f"{bucket.url}/all", "--model", str(model), *COMMAND]) == 0
        assert f"{bucket.url}/all/other_x4.ome.zarr" in capsys.readouterr().out
        assert open_source(f"{bucket.url}/all/source_x4.ome.zarr").data.shape == (480, 400)

    def test_a_dry_run_says_what_it_takes_and_asks_nothing_of_the_network(
        self, source: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(source), "-o", "s3://bucket/a.ome.zarr", "--model", str(model), "--dry-run", *COMMAND]) == 0
        assert "in the object store" in capsys.readouterr().out
