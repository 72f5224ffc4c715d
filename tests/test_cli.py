"""The command `mgbpv2-upscale`, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.formatting import format_bytes
from napari_mgbpv2.imaging.resampling import bicubic_resize_array
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.model.checkpoints import save_model

COMMAND = [str(Path(sys.executable).parent / "mgbpv2-upscale")]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(an_image(60, 50, 3)).save(path)
    return path


class TestCommand:
    def test_it_upscales_and_prints_where_the_result_is(self, picture: Path, tmp_path: Path) -> None:
        done = command(picture, "-o", tmp_path / "cat.ome.zarr")
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'cat.ome.zarr'}\n")
        result = open_source(tmp_path / "cat.ome.zarr")
        assert (result.axes, result.data.shape) == ("syx", (3, 240, 200))

    def test_it_says_before_the_start_what_it_will_do_and_need(self, picture: Path, tmp_path: Path) -> None:
        said = command(picture, "-o", tmp_path / "cat.ome.zarr").stderr.splitlines()[0]
        for part in ("PNG, 60 x 50 x 3 yxs uint8", "-> 240 x 200 x 3 with x4 on", "1 tiles", "of memory", "of disk"):
            assert part in said

    def test_a_missing_file_is_one_line_and_status_1(self, tmp_path: Path) -> None:
        done = command(tmp_path / "gone.tif", "-o", tmp_path / "a.ome.zarr")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"mgbpv2-upscale: {tmp_path / 'gone.tif'}: there is no such file")

    def test_a_traceback_is_shown_only_for_debugging(self, tmp_path: Path) -> None:
        done = command(tmp_path / "gone.tif", "-o", tmp_path / "a.ome.zarr", "--debug")
        assert done.returncode == 1
        assert "Traceback" in done.stderr

    def test_wrong_options_are_status_2(self, picture: Path) -> None:
        done = command(picture)
        assert done.returncode == 2
        assert "-o/--output" in done.stderr


class TestOptions:
    """In this process: what an option does."""

    def test_help_reads_well(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        text = capsys.readouterr().out
        assert text.startswith("usage: mgbpv2-upscale")
        for part in ("SOURCE", "-o", "--preview", "--value-range BLACK WHITE", "examples:", "need not fit into memory"):
            assert part in text
        assert max(map(len, text.splitlines())) <= 120

    def test_the_version_is_the_packages(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--version"])
        assert capsys.readouterr().out == f"mgbpv2-upscale {mgbp.__version__}\n"

    def test_help_is_instant_it_loads_no_torch(self) -> None:
        code = (
            "import sys; from napari_mgbpv2.cli.upscale import main\n"
            "try: main(['--help'])\nexcept SystemExit: pass\nprint({'torch', 'dask', 'zarr'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "set()"

    def test_all_of_them_reach_the_conversion(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", an_image(3, 60, 50, dtype="u2"), photometric="minisblack")
        arguments = [tmp_path / "a.tif", "-o", tmp_path / "a.ome.zarr", "--axes", "cyx", "--value-range", 10, 5000]
        arguments += ["--scale", 4, "--model", "x4", "--tile", 200, "--overlap", 130, "--guard", 60, "--levels", 2]
        arguments += ["--window", "triangle", "--device", "cpu", "--precision", "bfloat16", "--seed", 3]
        assert main(list(map(str, arguments))) == 0
        result = open_source(tmp_path / "a.ome.zarr")
        assert (result.axes, result.data.shape) == ("cyx", (3, 240, 200))
        import zarr

        made = zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["napari_mgbpv2"]
        wanted = {"value_range": [10, 5000], "guard": 60, "window": "triangle", "precision": "bfloat16", "seed": 3}
        assert {name: made[name] for name in wanted} == wanted
        assert sorted(zarr.open_group(tmp_path / "a.ome.zarr", mode="r").array_keys()) == ["0", "1"]

    def test_an_existing_result_is_kept_unless_told_otherwise(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [str(picture), "-o", str(tmp_path / "a.ome.zarr")]
        assert [main(arguments), main(arguments), main([*arguments, "--overwrite"])] == [0, 1, 0]
        assert "exists already" in capsys.readouterr().err


class TestSeveral:
    """Several sources: one result each."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return save_model(a_network(), tmp_path / "small.safetensors")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Two images, and a file that is none."""
        folder = tmp_path / "scans"
        folder.mkdir()
        for name in ("a.png", "b.png"):
            Image.fromarray(an_image(20, 30)).save(folder / name)
        (folder / "c.tif").write_bytes(b"no image at all")
        return folder

    def test_a_file_that_fails_does_not_stop_the_rest(
        self, folder: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(folder), "-o", str(tmp_path / "out"), "--model", str(model)]) == 1
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_x4.ome.zarr", "b_x4.ome.zarr"]
        said = capsys.readouterr()
        assert said.out.splitlines() == [str(tmp_path / "out" / f"{name}_x4.ome.zarr") for name in "ab"]
        assert said.err.splitlines()[-1] == f"mgbpv2-upscale: 2 done, 1 failed: {folder / 'c.tif'}"

    def test_again_with_resume_what_is_complete_is_left_alone(
        self, folder: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "c.tif").unlink()
        arguments = [str(folder / "*.png"), "-o", str(tmp_path / "out"), "--model", str(model), "--resume"]
        assert [main(arguments), main(arguments)] == [0, 0]
        assert capsys.readouterr().err.count("was complete already") == 2

    def test_one_file_of_a_folder_still_goes_into_a_folder(self, folder: Path, tmp_path: Path, model: Path) -> None:
        for name in ("b.png", "c.tif"):
            (folder / name).unlink()
        assert main([str(folder), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0
        assert (tmp_path / "out" / "a_x4.ome.zarr").is_dir()

    def test_an_image_for_a_folder_is_refused(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(folder), "-o", str(tmp_path / "out.ome.zarr")]) == 1
        assert "several sources need a folder" in capsys.readouterr().err

    def test_two_of_one_name_are_refused_before_the_start(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.fromarray(an_image(20, 30)).save(folder / "a.jpg")
        assert main([str(folder), "-o", str(tmp_path / "out")]) == 1
        assert "would both become" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestTelling:
    @pytest.fixture
    def arguments(self, picture: Path, tmp_path: Path) -> list[str]:
        return [str(picture), "-o", str(tmp_path / "cat.ome.zarr")]

    def test_json_is_one_object_a_line_from_the_plan_to_the_end(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--json"]) == 0
        said = capsys.readouterr()
        events = [json.loads(line) for line in said.out.splitlines()]
        assert said.err == ""
        assert [events[0]["event"], events[-1]["event"]] == ["plan", "done"]
        assert {event["event"] for event in events[1:-1]} == {"progress"}
        assert events[0]["shape"] == [240, 200, 3]
        assert events[-2]["tiles"] == events[-2]["all_tiles"] == 1
        assert events[-1]["destination"] == str(tmp_path / "cat.ome.zarr")
        assert events[-1]["bytes_written"] > 0

    def test_json_tells_of_failures_of_several(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.tif").write_bytes(b"none")
        (tmp_path / "b.tif").write_bytes(b"none")
        assert main([str(tmp_path / "*.tif"), "-o", str(tmp_path / "out"), "--json"]) == 1
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [event["event"] for event in events] == ["failed", "failed", "end"]
        assert events[-1] == {"event": "end", "done": 0, "failed": [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]}

    def test_quiet_says_where_the_result_is_and_no_more(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--quiet"]) == 0
        assert capsys.readouterr() == (f"{tmp_path / 'cat.ome.zarr'}\n", "")

    def test_a_dry_run_says_what_would_be_done_and_how_long_it_takes(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert "-> 240 x 200 x 3 with x4 on cpu; 1 tiles" in said
        assert re.search(r"; about [\d.]+ (s|min)\n$", said)
        assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]

    def test_pixel_size_and_unit_may_be_said(self, arguments: list[str], tmp_path: Path) -> None:
        assert main([*arguments, "--pixel-size", "y=0.5,x=0.25", "--unit", "um"]) == 0
        result = open_source(tmp_path / "cat.ome.zarr")
        assert result.pixel_size == {"y": 0.125, "x": 0.0625}
        assert result.units == {"y": "micrometer", "x": "micrometer"}

    def test_a_pixel_size_that_is_none_is_told(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*arguments, "--pixel-size", "wide"]) == 1
        assert "--pixel-size wide: give a number" in capsys.readouterr().err

    def test_a_preset_is_the_papers_and_what_is_given_wins(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--preset", "boe-fidelity", "--model", "x4", "--scale", "4", "--tile", "767"]) == 0
        made = json.loads((tmp_path / "cat.ome.zarr" / "zarr.json").read_text())["attributes"]["napari_mgbpv2"]
        assert (made["model"], made["guard"], made["window"]) == ("x4", 0, "hamming")
        assert main([*arguments, "--preset", "none"]) == 1
        assert "boe-fidelity" in capsys.readouterr().err


class TestPreview:
    @pytest.mark.parametrize("shape", [(60, 50, 3), (60, 50), (300, 200, 3)])
    def test_it_shows_bicubic_beside_the_result(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        image = an_image(*shape)
        Image.fromarray(image).save(tmp_path / "a.png")
        out, preview = tmp_path / "a.ome.zarr", tmp_path / "preview.png"
        assert main([str(tmp_path / "a.png"), "-o", str(out), "--preview", str(preview)]) == 0
        shown = np.asarray(Image.open(preview))
        height, width = min(512, 4 * shape[0]), min(512, 4 * shape[1])
        assert shown.shape == (height, 2 * width, *shape[2:])
        result = mgbp.upscale(image, 4, axes="yxs"[: len(shape)]).compute()
        top, left = (4 * shape[0] - height) // 2, (4 * shape[1] - width) // 2
        np.testing.assert_array_equal(shown[:, width:], result[top : top + height, left : left + width])

    def test_bicubic_in_it_is_rounded_once(self, tmp_path: Path) -> None:
        image = an_image(30, 20, 3)
        Image.fromarray(image).save(tmp_path / "a.png")
        out, preview = tmp_path / "a.ome.zarr", tmp_path / "preview.png"
        assert main([str(tmp_path / "a.png"), "-o", str(out), "--preview", str(preview), "--scale", "2"]) == 0
        shown = np.asarray(Image.open(preview))
        np.testing.assert_array_equal(shown[:, :40], bicubic_resize_array(image, 60, 40))

    def test_the_colour_of_invisible_pixels_does_not_show_in_it(self, tmp_path: Path) -> None:
        image = np.full((24, 24, 4), (255, 0, 0, 0), np.uint8)
        image[:, :12] = 0, 100, 0, 255
        Image.fromarray(image).save(tmp_path / "a.png")
        out, preview = tmp_path / "a.ome.zarr", tmp_path / "preview.png"
        assert main([str(tmp_path / "a.png"), "-o", str(out), "--preview", str(preview), "--scale", "2"]) == 0
        left = np.asarray(Image.open(preview))[:, :48]
        assert (left[left[..., 3] > 0][:, :3] == (0, 100, 0)).all()
        assert (left[:, :20, 3] == 255).all()
        assert (left[:, 28:, 3] == 0).all()

    def test_deep_images_are_stretched_to_8_bits(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", an_image(2, 3, 40, 40, dtype="u2") // 50, imagej=True)
        arguments = [tmp_path / "a.tif", "-o", tmp_path / "a.ome.zarr", "--preview", tmp_path / "p.png"]
        assert main(list(map(str, arguments))) == 0
        shown = np.asarray(Image.open(tmp_path / "p.png"))
        assert shown.shape == (160, 320)
        assert np.ptp(shown) == 255

    def test_a_taken_name_is_refused_before_the_work(
        self, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(picture), "-o", str(tmp_path / "a.ome.zarr"), "--preview", str(picture)]) == 1
        assert "choose another name for the preview" in capsys.readouterr().err
        assert not (tmp_path / "a.ome.zarr").exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123456, "123 kB"), (4.2e12, "4.2 TB")]
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert format_bytes(count) == text
