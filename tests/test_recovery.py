"""What faults of the disk, kills and late tasks leave: work is never deleted unasked, and no image is lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.conversion.verification import faults_of
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.locks import Lock
from napari_mgbpv2.io.writers.ome_tiff import write_ome_tiff
from napari_mgbpv2.io.writers.ome_zarr import (
    DamagedShards,
    ImageLayout,
    OMEZarrWriter,
    complete_interrupted_publish,
    find_partial_output,
    halve,
)
from napari_mgbpv2.io.writers.ome_zarr import writer as writing
from test_ome_zarr import a_layout, an_image, names, stored, write_image, write_levels

JOB = {"scale": 4, "seed": 0}
OTHER = {"scale": 4, "seed": 1}
JOURNAL = ".mgbpv2-journal.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.ome.zarr"


def layout_of(job: dict[str, int], **changes: Any) -> ImageLayout:
    return a_layout((100, 90), provenance=job, **changes)


def begin(path: Path, job: dict[str, int] = JOB, shards: int = 5, **changes: Any) -> Path:
    """Leave unfinished work, and return its folder."""
    layout = layout_of(job, **changes)
    image = an_image(layout, job["seed"])
    with OMEZarrWriter(path, layout, job=job, overwrite=True) as writer:
        for region in list(writer.shards())[:shards]:
            writer.write(region, image[region])
    return path.with_name(f"{path.name}.partial")


def finish(path: Path, job: dict[str, int] = JOB, *, options: Any = None, **changes: Any) -> int:
    """Complete an image; return how many of its shards were there."""
    layout = layout_of(job, **changes)
    image = an_image(layout, job["seed"])
    with OMEZarrWriter(path, layout, job=job, **(options or {})) as writer:
        before = sum(1 for level in range(3) for _ in writer.stored(level))
        for region in writer.shards():
            if not writer.is_stored(layout.shard_index(region)):
                writer.write(region, image[region])
        for level in (1, 2):
            writer.build_level(level)
        writer.commit()
    return before


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class TestUnreadableJournal:
    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
    def test_one_that_cannot_be_read_deletes_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
    ) -> None:
        partial = begin(path)
        before, read = content(partial), Path.read_bytes

        def failing(self: Path) -> bytes:
            if self.name == JOURNAL:
                raise OSError(errno.EIO, "Input/output error")
            return read(self)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", failing)
            with pytest.raises(
                DestinationError, match=r"jsonl cannot be read \(Input/output error\).* nothing was changed"
            ):
                OMEZarrWriter(path, layout_of(JOB), job=JOB, **options)
        assert content(partial) == before
        assert finish(path, options={"resume": True}) == 5

    @pytest.mark.parametrize("options", [{}, {"resume": True}])
    def test_one_with_a_damaged_first_line_deletes_nothing(self, path: Path, options: dict[str, bool]) -> None:
        partial = begin(path)
        text = bytearray((partial / JOURNAL).read_bytes())
        text[9] ^= 1
        (partial / JOURNAL).write_bytes(text)
        before = content(partial)
        with pytest.raises(DestinationError, match="is damaged, so finished shards are unknown; nothing was"):
            OMEZarrWriter(path, layout_of(JOB), job=JOB, **options)
        assert content(partial) == before

    def test_one_that_cannot_be_read_at_the_end_keeps_the_work(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layout = layout_of(JOB)
        writer = OMEZarrWriter(path, layout, job=JOB)
        region = next(writer.shards())
        writer.write(region, an_image(layout)[region])
        with monkeypatch.context() as patched:

            def failing(self: Path) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

            patched.setattr(Path, "read_bytes", failing)
            writer.close()
        assert finish(path, options={"resume": True}) == 1

    def test_a_damaged_line_costs_its_own_shard(self, path: Path) -> None:
        partial = begin(path)
        lines = (partial / JOURNAL).read_bytes().splitlines(keepends=True)
        lines[2] = lines[2].replace(b"level", b"leVel")
        (partial / JOURNAL).write_bytes(b"".join(lines))
        assert finish(path, options={"resume": True}) == 4

    def test_lines_of_the_version_before_are_read(self, path: Path) -> None:
        """They had no checksums, and neither had the chunks."""
        partial = begin(path, checksums=False)
        lines = [json.loads(line) for line in (partial / JOURNAL).read_text().splitlines()]
        old = "".join(json.dumps({name: line[name] for name in line if name != "crc32c"}) + "\n" for line in lines)
        (partial / JOURNAL).write_text(old)
        assert finish(path, options={"resume": True}) == 5
        assert not list(faults_of(path))


class TestOverwriting:
    @pytest.mark.parametrize("options", [{"overwrite": True}, {"overwrite": True, "resume": True}])
    def test_an_interrupted_one_is_gone_on_with(self, path: Path, options: dict[str, bool]) -> None:
        finish(path, OTHER)
        begin(path, JOB)
        np.testing.assert_array_equal(stored(path), an_image(layout_of(OTHER), 1))
        assert finish(path, JOB, options=options) == 5
        np.testing.assert_array_equal(stored(path), an_image(layout_of(JOB), 0))
        assert names(path.parent) == [path.name]

    def test_unfinished_work_of_another_job_is_dropped(self, path: Path) -> None:
        begin(path, OTHER)
        assert finish(path, JOB, options={"overwrite": True, "resume": True}) == 0

    def test_work_whose_metadata_are_damaged_is_dropped_only_then(self, path: Path) -> None:
        partial = begin(path)
        (partial / "1" / "zarr.json").write_bytes(b"\0" * 40)
        with pytest.raises(DestinationError, match=r"the metadata of .*partial are damaged"):
            finish(path, options={"resume": True})
        assert finish(path, options={"overwrite": True}) == 0


class TestPublishing:
    """A kill at any operation of it: `tests/soak.py`."""

    @pytest.mark.parametrize("number", range(1, 9))
    def test_killed_while_it_replaces_the_new_or_the_old_image_is_there(self, path: Path, number: int) -> None:
        finish(path, OTHER)
        program = (
            "import os, sys; sys.path.insert(0, sys.argv[2]); import test_recovery as t; from pathlib import Path\n"
            "left = [int(sys.argv[3])]\n"
            "def killing(function):\n"
            "    def call(*a, **k):\n"
            "        left[0] -= 1\n"
            "        if not left[0]: os._exit(9)\n"
            "        return function(*a, **k)\n"
            "    return call\n"
            "from napari_mgbpv2.io.storage.local_transaction import OutputTransaction\n"
            "publish = OutputTransaction.publish\n"
            "def armed(self, *a):\n"
            "    for name in ('replace', 'rename', 'unlink', 'rmdir', 'link'):\n"
            "        setattr(os, name, killing(getattr(os, name)))\n"
            "    publish(self, *a)\n"
            "OutputTransaction.publish = armed\n"
            "t.finish(Path(sys.argv[1]), t.JOB, options={'overwrite': True})\n"
        )
        command = [sys.executable, "-c", program, str(path), str(Path(__file__).parent), str(number)]
        subprocess.run(command, check=False, capture_output=True)
        if path.exists():
            assert np.array_equal(stored(path), an_image(layout_of(OTHER), 1)) or np.array_equal(
                stored(path), an_image(layout_of(JOB), 0)
            )
        finish(path, JOB, options={"overwrite": True})
        np.testing.assert_array_equal(stored(path), an_image(layout_of(JOB), 0))
        assert names(path.parent) == [path.name]

    def test_killed_between_its_two_moves_the_new_image_gets_its_place(self, path: Path) -> None:
        finish(path, OTHER)
        new = path.with_name("new.ome.zarr")
        finish(new, JOB)
        new.rename(path.with_name(f"{path.name}.partial"))
        path.rename(path.with_name(f"{path.name}.replaced"))
        (path.with_name(f"{path.name}.partial") / ".mgbpv2-publishing.json").write_text('{"file": null}')
        complete_interrupted_publish(path)
        np.testing.assert_array_equal(stored(path), an_image(layout_of(JOB), 0))
        assert names(path.parent) == [path.name]
        assert not [name for name in names(path) if "mgbpv2" in name]

    def test_what_appeared_between_its_two_moves_loses_neither_image(self, path: Path) -> None:
        finish(path, OTHER)
        new = path.with_name("new.ome.zarr")
        finish(new, JOB)
        new.rename(path.with_name(f"{path.name}.partial"))
        path.rename(path.with_name(f"{path.name}.replaced"))
        (path.with_name(f"{path.name}.partial") / ".mgbpv2-publishing.json").write_text('{"file": null}')
        write_image(path.with_name("other.ome.zarr"), a_layout()).rename(path)
        before = content(path.parent)
        with pytest.raises(DestinationError, match="appeared while it was being replaced; the old image is"):
            complete_interrupted_publish(path)
        assert content(path.parent) == before

    def test_what_a_tiff_was_made_of_goes_at_the_next_run(self, tmp_path: Path) -> None:
        path, partial = tmp_path / "a.ome.tif", tmp_path / "a.ome.tif.partial"
        write_tiff(path)
        begin(path.with_name("work"))
        path.with_name("work.partial").rename(partial)
        (partial / ".mgbpv2-publishing.json").write_text('{"file": "image.ome.tif"}')
        complete_interrupted_publish(path, is_file=True)
        assert names(tmp_path) == ["a.ome.tif"]

    def test_a_name_that_leaves_no_room_is_refused_at_the_start(self, tmp_path: Path) -> None:
        name = "x" * (255 - len(".replaced") + 1 - len(".ome.zarr")) + ".ome.zarr"
        with pytest.raises(DestinationError, match="shorten it by 1"):
            OMEZarrWriter(tmp_path / name, a_layout())
        assert names(tmp_path) == []

    def test_metadata_that_ome_zarr_does_not_allow_are_refused_at_the_start(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from napari_mgbpv2.io.writers.ome_zarr import shards

        wrong = {"ome": {"version": "0.5", "multiscales": [{"axes": [], "datasets": []}]}}
        monkeypatch.setattr(shards, "ome_attributes", lambda layout, ranges: wrong)
        with pytest.raises(DestinationError, match=r"OME-Zarr 0\.5 does not allow such an image"):
            OMEZarrWriter(path, a_layout())
        assert names(path.parent) == []


class TestLock:
    def test_one_is_taken_after_its_process_was_killed_at_any_moment(self, tmp_path: Path) -> None:
        lock = tmp_path / "a.lock"
        program = (
            "import sys, time; from pathlib import Path; from napari_mgbpv2.io.storage.locks import Lock\n"
            "held = Lock(Path(sys.argv[1]), Path('a')); print('held', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DestinationError, match="is already being written by another run"):
            Lock(lock, Path("a"))
        process.kill()
        process.communicate()
        Lock(lock, Path("a")).release()
        assert names(tmp_path) == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks there")
    def test_a_forked_process_does_not_hold_it(self, tmp_path: Path) -> None:
        lock = Lock(tmp_path / "a.lock", Path("a"))
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            os.write(writes, b"running")
            time.sleep(60)
            os._exit(0)
        try:
            os.read(reads, 7)
            os.close(lock._descriptor or -1)  # as the end of this process would
            Lock(tmp_path / "a.lock", Path("a")).release()
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    def test_one_that_was_deleted_by_who_held_it_is_not_taken_for_the_new_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was opened before, and can be locked."""
        import fcntl

        path, flock, held = tmp_path / "a.lock", fcntl.flock, []

        def slow(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            path.unlink()
            held.append(Lock(path, Path("a")))
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", slow)
        with pytest.raises(DestinationError, match="is already being written"):
            Lock(path, Path("a"))
        held[0].release()

    def test_a_writer_that_fails_to_begin_lets_go(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(*_: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(writing, "ShardStore", failing)
            with pytest.raises(MemoryError):
                OMEZarrWriter(path, a_layout())
        write_image(path, a_layout())


class TestLateTasks:
    """Tasks of a run that has ended, on a machine that was asleep meanwhile."""

    def test_one_that_wakes_up_after_its_run_writes_nothing(self, path: Path) -> None:
        layout = layout_of(OTHER)
        with OMEZarrWriter(path, layout, job=OTHER) as writer:
            store = pickle.loads(pickle.dumps(writer.store))  # as a worker has it
            region = next(writer.shards())
            store.write(region, an_image(layout, 1)[region])
        with pytest.raises(DestinationError, match="was removed, or taken over by another run"):
            store.write(region, an_image(layout, 1)[region])

    @pytest.mark.parametrize("resumed", [False, True])
    def test_one_that_was_held_back_as_it_wrote_replaces_no_shard_of_a_later_run(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
    ) -> None:
        layout, replace = layout_of(OTHER), os.replace
        held, goes_on, errors = threading.Event(), threading.Event(), []
        writer = OMEZarrWriter(path, layout, job=OTHER)
        store, region = pickle.loads(pickle.dumps(writer.store)), next(writer.shards())
        writer.write(list(writer.shards())[1], an_image(layout, 1)[list(writer.shards())[1]])

        def slow(source: Any, target: Any) -> None:
            if threading.current_thread() is late:
                held.set()
                goes_on.wait(60)
            replace(source, target)

        def write() -> None:
            try:
                store.write(region, an_image(layout, 1)[region])
            except DestinationError as error:
                errors.append(str(error))

        late = threading.Thread(target=write)
        monkeypatch.setattr(os, "replace", slow)
        late.start()
        assert held.wait(60)
        writer.close()
        job = OTHER if resumed else JOB
        new, image = layout_of(job), an_image(layout_of(job), job["seed"])
        with OMEZarrWriter(path, new, job=job, resume=resumed, overwrite=not resumed) as later:
            later.write(region, image[region])
            goes_on.set()
            late.join()
            write_levels(later, image)
            later.commit()
        assert "taken over by another run" in errors[0]
        np.testing.assert_array_equal(stored(path), image)
        assert names(path.parent) == [path.name]


def flip(file: Path, position: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[position] ^= 1
    file.write_bytes(damaged)


class TestDamage:
    def test_a_damaged_shard_of_unfinished_work_is_made_again(self, path: Path) -> None:
        partial = begin(path)
        flip(partial / "0" / "c" / "0" / "0", 30)
        assert finish(path, options={"resume": True}) == 4
        assert not list(faults_of(path))
        np.testing.assert_array_equal(stored(path), an_image(layout_of(JOB)))

    @pytest.mark.parametrize("damage", ["flipped", "cut"])
    def test_a_damaged_shard_is_never_built_into_the_pyramid(self, path: Path, damage: str) -> None:
        layout = layout_of(JOB)
        with OMEZarrWriter(path, layout, job=JOB) as writer:
            for region in writer.shards():
                writer.write(region, an_image(layout)[region])
            file = path.with_name(f"{path.name}.partial") / "0" / "c" / "1" / "1"
            if damage == "flipped":
                flip(file, 30)
            else:
                file.write_bytes(file.read_bytes()[:-30])
            with pytest.raises(DamagedShards) as caught:
                writer.downsample_shard((0, 0), 1)
            assert pickle.loads(pickle.dumps(caught.value)).shards == ((0, (1, 1)),)
            assert writer.invalidate(caught.value.shards) == [(0, (1, 1))]
            region = layout.shard_region((1, 1))
            writer.write(region, an_image(layout)[region])
            for level in (1, 2):
                writer.build_level(level)
            writer.commit()
        assert not list(faults_of(path))

    def test_one_that_is_cut_short_before_the_end_is_not_published(self, path: Path) -> None:
        layout = layout_of(JOB)
        with OMEZarrWriter(path, layout, job=JOB) as writer:
            write_levels(writer, an_image(layout))
            file = path.with_name(f"{path.name}.partial") / "1" / "c" / "0" / "0"
            file.write_bytes(file.read_bytes()[:-30])
            with pytest.raises(DestinationError, match=r"1 file of .* changed its size"):
                writer.commit()
        finish(path, options={"resume": True})
        assert not list(faults_of(path))


def write_tiff(path: Path) -> Path:
    layout = a_layout((100, 90))
    image = an_image(layout)
    levels = [image, halve(image)]
    write_ome_tiff(
        path, levels, axes="yx", colour=False, pixel_size=(1, 1), units=(None, None), translation=(0, 0), name="x",
        channel_names=None, channel_colors=None, provenance={"scale": 4}, tile=16,
    )  # fmt: skip
    return path


class TestVerifying:
    def says(self, result: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
        """What the command says of a damaged result."""
        capsys.readouterr()
        assert main(["--verify", str(result)]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said.replace(f"mgbpv2-upscale: {result}: ", "").splitlines()

    @pytest.mark.parametrize("changes", [{}, {"format": "0.4"}, {"format": "zarr", "levels": 1}, {"codec": "none"}])
    def test_nothing_is_wrong_with_what_was_written(
        self, path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
    ) -> None:
        write_image(path, a_layout((100, 90), provenance=JOB, **changes))
        assert main(["--verify", str(path)]) == 0
        out = capsys.readouterr().out
        assert "nothing is wrong" in out
        assert ("with checksums" in out) == ("0.4" not in changes.values())

    def test_every_flipped_bit_of_a_shard_is_found(self, path: Path) -> None:
        finish(path)
        file = path / "0" / "c" / "0" / "0"
        whole = file.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 40)):
            flip(file, position)
            assert any("0/c/0/0" in line for line in faults_of(path)), position
            file.write_bytes(whole)

    def test_what_is_missing_or_cut_is_named(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        finish(path)
        (path / "0" / "c" / "1" / "2").unlink()
        file = path / "1" / "c" / "0" / "0"
        file.write_bytes(file.read_bytes()[:-9])
        assert self.says(path, capsys) == [
            "0/c/1/2 is missing",
            "1/c/0/0: its index is damaged, or it is cut short",
        ]

    @pytest.mark.parametrize("file", ["zarr.json", "0/zarr.json", "2/zarr.json"])
    @pytest.mark.parametrize("damage", ["emptied", "cut", "scrambled", "gone"])
    def test_damaged_metadata_are_one_line(
        self, path: Path, capsys: pytest.CaptureFixture[str], file: str, damage: str
    ) -> None:
        finish(path)
        whole = (path / file).read_bytes()
        left = {"emptied": b"", "cut": whole[:-20], "scrambled": whole.replace(b"[", b"{")}
        if damage == "gone":
            (path / file).unlink()
        else:
            (path / file).write_bytes(left[damage])
        assert self.says(path, capsys)

    def test_a_level_that_is_not_the_mean_of_the_one_before_is_named(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Where there are no checksums, as in results of the version before."""
        import zarr

        finish(path, checksums=False)
        zarr.open_group(path)["1"][0, 0] = 60000
        assert "level 1: the pixels [0:32, 0:32] are not the means of those of level 0" in self.says(path, capsys)

    @pytest.mark.parametrize("what", ["nothing", "unfinished", "foreign"])
    def test_what_is_no_result_is_named(self, path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
        if what == "unfinished":
            begin(path)
        if what == "foreign":
            path.mkdir()
        words = {
            "nothing": "it does not exist",
            "unfinished": "only unfinished work exists, cells.ome.zarr.partial",
            "foreign": "its metadata are damaged, or it is not a result of this package",
        }
        assert self.says(path, capsys) == [words[what]]

    def test_a_tiff_is_verified_too(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_tiff(tmp_path / "a.ome.tif")
        assert main(["--verify", str(path)]) == 0
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        assert self.says(path, capsys)
        path.write_bytes(whole[:-900] + bytes(900))
        assert self.says(path, capsys)

    def test_it_needs_no_torch(self, path: Path) -> None:
        finish(path)
        program = (
            "import sys; from napari_mgbpv2.cli.upscale import main\n"
            "assert main(['--verify', sys.argv[1]]) == 0; assert 'torch' not in sys.modules"
        )
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0


def test_unfinished_work_is_still_found_by_its_destination(path: Path) -> None:
    begin(path)
    kept = find_partial_output(path)
    assert kept is not None
    assert (kept.job, kept.shards) == (JOB, 5)
