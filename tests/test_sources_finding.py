"""`find_sources`: which images a user means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import zarr

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import find_sources
from source_files import pixels


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative(found: list[str], folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in found]


class TestFiles:
    def test_any_file_may_be_named_whatever_its_suffix(self, tmp_path: Path) -> None:
        touch(tmp_path / "image.001")
        assert find_sources(tmp_path / "image.001") == [str(tmp_path / "image.001")]

    def test_paths_become_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path / "a.tif")
        monkeypatch.chdir(tmp_path)
        assert find_sources(["a.tif"]) == [str(tmp_path / "a.tif")]

    def test_several_stay_in_the_order_given_each_once(self, tmp_path: Path) -> None:
        touch(*(tmp_path / name for name in ("1.tif", "2.tif", "3.tif")))
        found = find_sources([tmp_path / "3.tif", f"{tmp_path}/*.tif", tmp_path / "1.tif"])
        assert relative(found, tmp_path) == ["3.tif", "1.tif", "2.tif"]


class TestFolders:
    def test_images_are_found_by_their_suffix_with_all_below(self, tmp_path: Path) -> None:
        images = ["a/10.tif", "a/9.tif", "B.PNG", "brain.nii.gz", "cells.zarr.zip"]
        touch(*(tmp_path / name for name in [*images, "notes.txt", "a/Thumbs.db", ".hidden/a.tif", ".a.tif"]))
        found = find_sources(tmp_path)
        assert relative(found, tmp_path) == ["a/9.tif", "a/10.tif", "B.PNG", "brain.nii.gz", "cells.zarr.zip"]

    @pytest.mark.parametrize("version", [2, 3])
    def test_a_zarr_is_one_image(self, tmp_path: Path, version: int) -> None:
        for name in ("b.ome.zarr", "a/c"):
            zarr.open_group(tmp_path / name, zarr_format=version).create_array("0", data=pixels(4, 4))
        assert relative(find_sources(tmp_path), tmp_path) == ["a/c", "b.ome.zarr"]
        assert relative(find_sources(tmp_path / "a" / "c"), tmp_path) == ["a/c"]

    @pytest.mark.skipif(sys.platform == "win32", reason="links are a privilege there")
    def test_links_that_go_round_are_not_followed(self, tmp_path: Path) -> None:
        touch(tmp_path / "a" / "1.tif")
        (tmp_path / "a" / "round").symlink_to(tmp_path, target_is_directory=True)
        assert relative(find_sources(tmp_path), tmp_path) == ["a/1.tif"]

    def test_a_folder_without_images_is_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path / "notes.txt")
        with pytest.raises(SourceError, match="this folder holds no image"):
            find_sources(tmp_path)


class TestPatterns:
    def test_numbers_count_as_numbers(self, tmp_path: Path) -> None:
        touch(*(tmp_path / f"s{number}_t{other}.tif" for number in (1, 2, 10) for other in (1, 11, 3)))
        names = relative(find_sources(f"{tmp_path}/*.tif"), tmp_path)
        assert names == [f"s{number}_t{other}.tif" for number in (1, 2, 10) for other in (1, 3, 11)]

    def test_what_lies_in_a_zarr_that_matches_is_no_image_of_its_own(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a" / "b.zarr").create_array("0", data=pixels(4, 4))
        touch(tmp_path / "a" / "c.tif")
        assert relative(find_sources(f"{tmp_path}/a/**/*"), tmp_path) == ["a/b.zarr", "a/c.tif"]
        assert relative(find_sources(f"{tmp_path}/a/*.zarr/0"), tmp_path) == ["a/b.zarr/0"]

    def test_a_folder_that_matches_is_searched(self, tmp_path: Path) -> None:
        touch(tmp_path / "day1" / "a.tif", tmp_path / "day2" / "b.tif", tmp_path / "other" / "c.tif")
        assert relative(find_sources(f"{tmp_path}/day*"), tmp_path) == ["day1/a.tif", "day2/b.tif"]

    def test_a_file_with_brackets_in_its_name_is_found(self, tmp_path: Path) -> None:
        touch(tmp_path / "cells [1].tif")
        assert relative(find_sources(tmp_path / "cells [1].tif"), tmp_path) == ["cells [1].tif"]

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [("*.tif", r"\*\.tif: no file or folder matches this pattern"), ("a.tif", r"a\.tif: there is no such file")],
    )
    def test_nothing_found_is_one_clear_error(self, tmp_path: Path, pattern: str, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            find_sources(f"{tmp_path}/{pattern}")

    def test_no_pattern_at_all_is_an_error(self) -> None:
        with pytest.raises(SourceError, match="no image is given"):
            find_sources([])


@pytest.mark.parametrize("address", ["https://example.org/a%20b/x.ome.zarr?v=1", "s3://bucket/x.zarr", "S3://b/*.zarr"])
def test_addresses_are_left_as_they_are(address: str) -> None:
    assert find_sources([address, address]) == [address]
