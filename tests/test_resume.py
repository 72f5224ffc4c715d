"""Nothing lost: a conversion that is stopped in any way goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import napari_mgbpv2 as mgbp
from examples import Array, a_network, an_image
from napari_mgbpv2.conversion import ConversionJob, Report, prepare, run
from napari_mgbpv2.errors import Cancelled, DestinationError, SourceError
from napari_mgbpv2.io.storage.backends import LocalBackend
from napari_mgbpv2.io.writers.ome_zarr import ShardStore, StoredShard
from napari_mgbpv2.upscaling.options import UpscaleOptions

NETWORK = a_network()
# 200 x 140 px make 800 x 560: 7 x 5 shards, and 6 of two further levels
SHARDS: dict[str, Any] = {"chunk": 64, "shard": 128, "levels": 3}
OPTIONS: dict[str, Any] = {"model": NETWORK, "tile": 150} | SHARDS
ALL_SHARDS = 35 + 12 + 4
JOURNAL = ".mgbpv2-journal.jsonl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.npy"
    np.save(path, an_image(200, 140, dtype="u2"))
    return path


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "result.ome.zarr"


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their names within it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def convert(source: Any, destination: Path, **changes: Any) -> list[Report]:
    """Convert, and return all that has been told."""
    told: list[Report] = []
    options = OPTIONS | changes
    of_job = {name: options.pop(name) for name in list(options) if name in ConversionJob.__dataclass_fields__}
    run(prepare(ConversionJob(source, destination, UpscaleOptions(**options), **of_job)), tell=told.append)
    return told


def interrupt(source: Any, destination: Path, *, after: int = 10, **changes: Any) -> None:
    """Convert until that many shards are stored."""
    told: list[Report] = []
    options = OPTIONS | changes
    of_job = {name: options.pop(name) for name in list(options) if name in ConversionJob.__dataclass_fields__}
    prepared = prepare(ConversionJob(source, destination, UpscaleOptions(**options), **of_job))
    with pytest.raises(Cancelled, match="what is done is kept"):
        run(prepared, cancelled=lambda: bool(told) and told[-1].shards >= after, tell=told.append)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    """What an uninterrupted conversion leaves."""
    convert(source, tmp_path / "whole" / "result.ome.zarr")
    return content(tmp_path / "whole" / "result.ome.zarr")


class TestGoingOn:
    @pytest.mark.parametrize("output", ["0.5", "0.4", "zarr"])
    def test_it_ends_with_the_same_bytes(self, source: Path, destination: Path, tmp_path: Path, output: str) -> None:
        levels = 1 if output == "zarr" else 3
        convert(source, tmp_path / "whole" / "result.ome.zarr", format=output, levels=levels)
        interrupt(source, destination, format=output, levels=levels)
        convert(source, destination, resume=True, format=output, levels=levels)
        assert content(destination) == content(tmp_path / "whole" / "result.ome.zarr")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["result.ome.zarr", "source.npy", "whole"]

    def test_only_what_is_missing_is_done_again(self, source: Path, destination: Path) -> None:
        interrupt(source, destination, after=20)
        done = len((destination.with_name(f"{destination.name}.partial") / JOURNAL).read_text().splitlines()) - 1
        assert done >= 20
        told = convert(source, destination, resume=True)
        assert told[-1].shards == ALL_SHARDS
        written = {report.shards for report in told}
        assert min(written) >= done
        assert told[-1].tiles == told[-1].all_tiles

    def test_a_tiff_is_resumed_too(self, source: Path, tmp_path: Path) -> None:
        convert(source, tmp_path / "whole.ome.tif")
        interrupt(source, tmp_path / "result.ome.tif")
        convert(source, tmp_path / "result.ome.tif", resume=True)
        for level in range(3):
            whole, resumed = (
                tifffile.imread(tmp_path / name, level=level) for name in ("whole.ome.tif", "result.ome.tif")
            )
            np.testing.assert_array_equal(resumed, whole)

    def test_without_anything_to_go_on_with_it_begins(
        self, source: Path, destination: Path, expected: dict[str, bytes]
    ) -> None:
        convert(source, destination, resume=True)
        assert content(destination) == expected

    def test_a_complete_result_is_left_as_it_is(self, source: Path, destination: Path) -> None:
        convert(source, destination)
        before = {file: file.stat().st_mtime_ns for file in destination.rglob("*")}
        assert convert(source, destination, resume=True) == []
        assert {file: file.stat().st_mtime_ns for file in destination.rglob("*")} == before

    def test_the_shown_range_of_a_channel_is_that_of_all_of_it(self, tmp_path: Path, destination: Path) -> None:
        image = an_image(2, 200, 140, dtype="u2") // 7
        np.save(tmp_path / "c.npy", image)
        interrupt(tmp_path / "c.npy", destination, after=40, axes="cyx")
        convert(tmp_path / "c.npy", destination, axes="cyx", resume=True)
        convert(tmp_path / "c.npy", tmp_path / "whole.ome.zarr", axes="cyx")
        resumed, whole = (
            json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["omero"]
            for path in (destination, tmp_path / "whole.ome.zarr")
        )
        assert resumed == whole

    def test_two_stops_are_no_more_than_one(self, source: Path, destination: Path, expected: dict[str, bytes]) -> None:
        interrupt(source, destination, after=8)
        interrupt(source, destination, after=25, resume=True)
        convert(source, destination, resume=True)
        assert content(destination) == expected


class TestWhatIsDoneIsNotDroppedUnasked:
    def test_a_new_run_over_unfinished_work_is_refused(self, source: Path, destination: Path) -> None:
        interrupt(source, destination)
        before = content(destination.with_name("result.ome.zarr.partial"))
        with pytest.raises(DestinationError, match=r"left result.ome.zarr.partial, .* resume it, or ask to overwrite"):
            convert(source, destination)
        assert content(destination.with_name("result.ome.zarr.partial")) == before

    def test_overwriting_starts_anew(self, source: Path, destination: Path, expected: dict[str, bytes]) -> None:
        interrupt(source, destination, seed=1)
        convert(source, destination, overwrite=True)
        assert content(destination) == expected

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"value_range": (0, 4095)}, r"value range was \[0.0, 65535.0\] and is \[0.0, 4095.0\]"),
            ({"tile": 200}, r"tile was \["),
            ({"model": a_network(seed=5)}, "model sha256 was "),
            ({"shard": 192}, "output: shard was 128 and is 192"),
            ({"window": "flat"}, "window was hamming and is flat"),
        ],
    )
    def test_other_settings_are_refused_and_named(
        self, source: Path, destination: Path, changes: dict[str, Any], words: str
    ) -> None:
        interrupt(source, destination)
        with pytest.raises(DestinationError, match=f"started with other settings: .*{words}") as caught:
            convert(source, destination, resume=True, **changes)
        assert "\n" not in str(caught.value)

    def test_another_source_is_refused_and_named(self, source: Path, destination: Path) -> None:
        interrupt(source, destination)
        np.save(source, an_image(200, 140, dtype="u2", seed=9))
        with pytest.raises(DestinationError, match=r"source identity: files: .*mtime"):
            convert(source, destination, resume=True)

    def test_a_complete_result_of_other_settings_is_refused(self, source: Path, destination: Path) -> None:
        convert(source, destination)
        with pytest.raises(DestinationError, match="complete, but made with other settings: tile was"):
            convert(source, destination, resume=True, tile=200)

    def test_a_work_without_any_shard_leaves_nothing(self, source: Path, destination: Path, tmp_path: Path) -> None:
        with pytest.raises(Cancelled, match="nothing is left"):
            mgbp.convert(source, destination, cancelled=lambda: True, **OPTIONS)
        assert [path.name for path in tmp_path.iterdir()] == ["source.npy"]


class TestDamage:
    """What a power cut may leave of a shard or of the journal is redone."""

    @pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted", "overwritten"])
    @pytest.mark.parametrize("output", ["0.5", "0.4"])
    def test_a_damaged_shard_is_redone(
        self, source: Path, destination: Path, tmp_path: Path, damage: str, output: str
    ) -> None:
        convert(source, tmp_path / "whole" / "result.ome.zarr", format=output)
        interrupt(source, destination, format=output)
        partial = destination.with_name("result.ome.zarr.partial")
        first = json.loads((partial / JOURNAL).read_text().splitlines()[1])
        index = "/".join(map(str, first["index"] if output == "0.5" else [2 * each for each in first["index"]]))
        file = partial / "0" / ("c" if output == "0.5" else "") / index
        whole = file.read_bytes()
        if damage == "overwritten" and output == "0.4":
            pytest.skip("chunks have no index whose checksum could tell")
        if damage == "deleted":
            file.unlink()
        else:
            left = {"truncated": whole[:-7], "emptied": b"", "overwritten": bytes(len(whole))}
            file.write_bytes(left[damage])
        convert(source, destination, resume=True, format=output)
        assert content(destination) == content(tmp_path / "whole" / "result.ome.zarr")

    def test_a_torn_line_of_the_journal_is_redone(
        self, source: Path, destination: Path, expected: dict[str, bytes]
    ) -> None:
        interrupt(source, destination)
        journal = destination.with_name("result.ome.zarr.partial") / JOURNAL
        journal.write_bytes(journal.read_bytes()[:-9])
        convert(source, destination, resume=True)
        assert content(destination) == expected

    def test_a_temporary_file_of_a_killed_write_goes(
        self, source: Path, destination: Path, expected: dict[str, bytes]
    ) -> None:
        interrupt(source, destination)
        left = destination.with_name("result.ome.zarr.partial") / "0" / "c" / "0" / f"0.{'ab' * 16}.partial"
        left.write_bytes(b"half")
        convert(source, destination, resume=True)
        assert content(destination) == expected

    def test_a_kill_just_after_the_rename_leaves_a_complete_result(self, source: Path, destination: Path) -> None:
        """Its journal may still be within it, and goes with the next run."""
        convert(source, destination)
        (destination / JOURNAL).write_text("{}\n")
        assert convert(source, destination, resume=True) == []
        assert not (destination / JOURNAL).exists()

    def test_a_damaged_shard_is_recognised_by_the_checksum_of_its_index(self, source: Path, destination: Path) -> None:
        convert(source, destination)
        storage = LocalBackend(destination)
        layout = prepare(ConversionJob(source, destination, UpscaleOptions(model=NETWORK), **SHARDS)).layout
        file = destination / "0" / "c" / "0" / "0"
        shard = StoredShard(0, (0, 0), file.stat().st_size)
        assert ShardStore(storage, layout).is_whole(shard, storage.size_lookup())
        damaged = bytearray(file.read_bytes())
        damaged[-20] ^= 1
        file.write_bytes(damaged)
        assert not ShardStore(storage, layout).is_whole(shard, storage.size_lookup())


class TestWhatEndsIt:
    def test_a_source_that_fails_half_way_keeps_what_is_done(self, destination: Path) -> None:
        class Failing:
            shape, dtype = (200, 140), np.dtype("u2")
            image = an_image(200, 140, dtype="u2")
            broken = True

            def __getitem__(self, window: tuple[slice, ...]) -> Array:
                if self.broken and window[0].stop > 120:
                    raise SourceError("the disk has gone")
                return self.image[window]

        source = Failing()
        with pytest.raises(SourceError, match="the disk has gone"):
            convert(source, destination)
        source.broken = False
        told = convert(source, destination, resume=True)
        assert min(report.shards for report in told) > 0
        assert told[-1].shards == ALL_SHARDS


def test_a_journal_is_plain_json(source: Path, destination: Path) -> None:
    interrupt(source, destination)
    lines = (destination.with_name("result.ome.zarr.partial") / JOURNAL).read_text().splitlines()
    job = json.loads(lines[0])["job"]
    assert job["scale"] == 4
    assert job["source"].endswith("source.npy")
    assert all(set(json.loads(line)) == {"level", "index", "stored", "crc32c"} for line in lines[1:])
