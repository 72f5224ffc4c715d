"""Names and output of the commands: any file name, any encoding, closed pipes, the same command twice, secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.cli.command import make_parser, run_command
from napari_mgbpv2.cli.output import CLOSED_PIPE, write_line, write_path
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.conversion import ConversionJob, prepare
from napari_mgbpv2.conversion.destinations import check_ending, destinations_of, name_of
from napari_mgbpv2.errors import DestinationError, ModelError
from napari_mgbpv2.io.readers import find_sources
from napari_mgbpv2.io.readers.discovery import search
from napari_mgbpv2.io.results import is_result
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.network import Ensemble
from napari_mgbpv2.upscaling.options import UpscaleOptions

ODD = ["plate [x]1", "a::b", "star *", "what ?", "#1", "{x}", "%20 +", "a\\b", "~", "new\nline", "quote'\"", "-o"]
posix = pytest.mark.skipif(os.name == "nt", reason="names there are no bytes")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(a_network(), tmp_path / "small.safetensors")


def a_picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(an_image(20, 30, seed=seed)).save(path, format="PNG")
    return path


def upscale(*arguments: object) -> int:
    return main(list(map(str, arguments)))


class TestResultsAsSources:
    """What this program has made is a source where it is named, and nowhere else."""

    def test_a_folder_is_upscaled_once_however_often(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scans = a_picture(tmp_path / "scans" / "a.png").parent
        for output in (scans, scans / "upscaled"):
            for _ in range(2):
                assert upscale(scans, "-o", output, "--resume", "--model", model) == 0
            assert sorted(path.name for path in output.iterdir() if "a_" in path.name) == ["a_x4.ome.zarr"]
        assert f"left out, a result of this program: {scans / 'a_x4.ome.zarr'}" in capsys.readouterr().err

    def test_a_result_is_known_by_its_metadata_whatever_its_name(self, tmp_path: Path, model: Path) -> None:
        source = a_picture(tmp_path / "a.png")
        for name in ("plain.tif", "old.zarr"):
            assert upscale(source, "-o", tmp_path / name, "--model", model) == 0
        (tmp_path / "old.zarr").rename(tmp_path / "photograph")
        (tmp_path / "plain.tif").rename(tmp_path / "photograph.tif")
        assert [is_result(str(tmp_path / name)) for name in ("photograph", "photograph.tif", "a.png")] == [1, 1, 0]
        assert find_sources(tmp_path) == [str(source)]
        assert find_sources(f"{tmp_path}/*a*.*") == [str(source), str(model)]
        assert find_sources(tmp_path / "photograph") == [str(tmp_path / "photograph")]
        assert find_sources(tmp_path / "photograph.tif") == [str(tmp_path / "photograph.tif")]

    def test_a_preview_is_no_source_of_its_folder(self, tmp_path: Path, model: Path) -> None:
        source = a_picture(tmp_path / "scans" / "a.png")
        arguments = [source, "-o", tmp_path / "r.ome.zarr", "--preview", source.with_name("p.png"), "--model", model]
        assert upscale(*arguments) == 0
        assert find_sources(source.parent) == [str(source)]

    def test_a_folder_of_results_alone_says_so(self, tmp_path: Path) -> None:
        group = zarr.open_group(tmp_path / "results" / "a.zarr", mode="w")
        group.create_array("0", data=np.zeros((4, 4)))
        group.attrs["napari_mgbpv2"] = {"scale": 4}
        with pytest.raises(OSError, match="holds no image but 1 that this program has made"):
            find_sources(tmp_path / "results")


class TestFolders:
    def test_every_picture_that_a_single_source_could_be_is_taken(self, tmp_path: Path) -> None:
        made = Image.fromarray(an_image(20, 30, 3))
        formats = {"a.png": "PNG", "b.jfif": "JPEG", "c.ppm": "PPM", "d.tga": "TGA", "f.jpe": "JPEG", "g.bmp": "BMP"}
        for name, form in {**formats, "h.jpg_large": "JPEG", "bare": "GIF", "w.img": "WEBP"}.items():
            made.save(tmp_path / name, form)
        tifffile.imwrite(tmp_path / "scan.001", an_image(20, 30))
        assert {Path(path).name for path in find_sources(tmp_path)} == {path.name for path in tmp_path.iterdir()}

    def test_what_is_left_out_is_said_with_the_reason(self, tmp_path: Path) -> None:
        a_picture(tmp_path / "a.png")
        (tmp_path / "notes.txt").write_text("hi")
        for ignored in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png"):
            (tmp_path / ignored).write_bytes(b"\xff\xd8\xff")
        left_out = search(tmp_path).skipped
        assert [(Path(each.path).name, each.reason) for each in left_out] == [("notes.txt", "no image")]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none")
    def test_pipes_and_links_that_lead_nowhere_or_round_are_left_out(self, tmp_path: Path) -> None:
        a_picture(tmp_path / "a.png")
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "gone.png").symlink_to("/nowhere/at/all")
        (tmp_path / "loop.png").symlink_to("loop.png")
        found = search(tmp_path)
        assert [Path(image.path).name for image in found.images] == ["a.png"]
        said = {Path(each.path).name: (each.reason.split(";")[0], each.is_failure) for each in found.skipped}
        assert said == {
            "pipe.png": ("a pipe (FIFO), no file", False),
            "gone.png": ("is a link that leads nowhere", True),
            "loop.png": ("is a link that leads to itself", True),
        }

    def test_a_tree_becomes_the_same_tree(self, tmp_path: Path, model: Path) -> None:
        for day in ("d1", "d2"):
            a_picture(tmp_path / "days" / day / "img.png")
        for number, source in enumerate((tmp_path / "days", f"{tmp_path}/days/*/img.png")):
            assert upscale(source, "-o", tmp_path / f"out{number}", "--model", model, "--quiet") == 0
            made = {
                path.parent.relative_to(tmp_path / f"out{number}") for path in tmp_path.rglob(f"out{number}/*/*.zarr")
            }
            assert made == {Path("d1"), Path("d2")}

    def test_one_that_is_missing_does_not_stop_the_rest(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [a_picture(tmp_path / "a.png"), tmp_path / "gone.png", "-o", tmp_path / "out", "--model", model]
        assert upscale(*arguments, "--quiet") == 1
        said = capsys.readouterr()
        assert said.out == f"{tmp_path / 'out' / 'a_x4.ome.zarr'}\n"
        assert said.err.splitlines() == [
            f"mgbpv2-upscale: {tmp_path / 'gone.png'}: there is no such file or folder; check the path.",
            f"mgbpv2-upscale: 1 done, 1 failed: {tmp_path / 'gone.png'}",
        ]

    def test_an_unexpected_error_of_one_does_not_stop_the_rest(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from napari_mgbpv2.cli import upscale as command

        def fail_at_first(job: ConversionJob) -> Any:
            if str(job.source).endswith("a.png"):
                raise KeyError("something")
            return prepare(job)

        monkeypatch.setattr(command, "prepare", fail_at_first)
        folder = a_picture(tmp_path / "scans" / "a.png").parent
        a_picture(folder / "b.png")
        assert upscale(folder, "-o", tmp_path / "out", "--model", model, "--quiet") == 1
        said = capsys.readouterr()
        assert "unexpected KeyError: 'something'" in said.err
        assert said.out == f"{tmp_path / 'out' / 'b_x4.ome.zarr'}\n"


class TestNames:
    @posix
    @pytest.mark.parametrize("name", ODD)
    def test_every_character_of_a_path_is_a_character(
        self, tmp_path: Path, model: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = a_picture(tmp_path / name / f"{name}.png")
        made = tmp_path / name / f"{name}.ome.zarr"
        assert find_sources(source) == [str(source)]
        assert mgbp.convert(source, made, model=model) == made
        monkeypatch.chdir(tmp_path / name)
        assert find_sources("*.png") == find_sources(f"{tmp_path}/{name}/*.png") == [str(source)]
        assert destinations_of([str(source)], tmp_path / "out", 4) == [tmp_path / "out" / f"{name}_x4.ome.zarr"]

    @posix
    @pytest.mark.parametrize("name", ODD)
    @pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
    def test_a_result_of_any_name_is_verified(
        self, tmp_path: Path, model: Path, name: str, ending: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = a_picture(tmp_path / name / f"{name}.png")
        made = mgbp.convert(source, tmp_path / name / f"{name}{ending}", model=model)
        monkeypatch.chdir(made.parent)
        assert upscale("--verify", made) == upscale("--verify", f"./{made.name}") == 0
        longest = max(
            (file for file in (made, *made.rglob("*")) if file.is_file()), key=lambda file: file.stat().st_size
        )
        longest.write_bytes(longest.read_bytes()[:-1000])
        assert upscale("--verify", made) == 1

    @posix
    @pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
    def test_a_name_that_is_no_utf8_goes_through_to_the_result(self, tmp_path: Path, model: Path, ending: str) -> None:
        source = a_picture(tmp_path / os.fsdecode(b"K\xfcche.png"))
        made = mgbp.convert(source, tmp_path / f"{os.fsdecode(b'K' + bytes([252]))}{ending}", model=model)
        assert made.exists()
        result = prepare(ConversionJob(source, tmp_path / "b.ome.zarr", UpscaleOptions(model=model))).layout
        assert (result.name, result.provenance["source"]) == (r"K\xfcche", r"K\xfcche.png")

    def test_the_name_of_an_address_says_nothing_of_its_query(self) -> None:
        assert name_of("https://user@host.org/a/cells.ome.zarr?sig=SECRET") == "cells"

    @pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.npy", "a.zarr.zip", "a.btf", "a.nii.gz", "a.h5"])
    def test_an_ending_of_another_format_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DestinationError, match="is not written; end the name in"):
            check_ending(tmp_path / name)
        with pytest.raises(DestinationError, match="is not written"):
            mgbp.convert(an_image(20, 30), tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["a.ome.zarr", "a", "a.OME.TIF", "cells.2024", "a.tiff"])
    def test_other_endings_are_not(self, tmp_path: Path, name: str) -> None:
        check_ending(tmp_path / name)

    def test_an_axis_whose_pixel_size_is_given_twice_is_refused(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [a_picture(tmp_path / "a.png"), "-o", tmp_path / "a.ome.zarr", "--model", model]
        assert upscale(*arguments, "--pixel-size", "y=0.25,x=0.25,y=3") == 1
        assert "an axis is named twice" in capsys.readouterr().err

    def test_a_new_folder_is_meant_by_a_slash(self, tmp_path: Path, model: Path) -> None:
        assert upscale(a_picture(tmp_path / "a.png"), "-o", f"{tmp_path}/new/", "--model", model, "--quiet") == 0
        assert (tmp_path / "new" / "a_x4.ome.zarr").is_dir()

    def test_a_tilde_is_the_home_folder(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        a_picture(tmp_path / "a.png")
        assert upscale("~/a.png", "-o", "~/a.ome.zarr", "--model", f"~/{model.name}", "--quiet") == 0
        assert (tmp_path / "a.ome.zarr").is_dir()

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none")
    def test_a_pipe_is_refused_at_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        os.mkfifo(tmp_path / "pipe.tif")
        assert upscale(tmp_path / "pipe.tif", "-o", tmp_path / "a.ome.zarr") == 1
        assert "is a pipe (FIFO), not a file" in capsys.readouterr().err
        assert upscale("/dev/null", "-o", tmp_path / "a.ome.zarr") == 1
        assert "is a device, not a file" in capsys.readouterr().err


class TestOutput:
    @posix
    def test_control_characters_of_names_are_escaped(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert upscale(tmp_path / "a\n\x1b[2J.png", "-o", tmp_path / "a.ome.zarr") == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert r"a\n\x1b[2J.png: no file or folder matches this pattern" in said

    @posix
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_any_name_is_said_in_any_encoding(self, tmp_path: Path, encoding: str) -> None:
        code = (
            "from napari_mgbpv2.cli.output import *\n"
            "accept_any_text(); write_path('細胞\\udcfc'); write_line('細胞\\udcfc'); write_error('c', '細胞\\udcfc')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            check=True,
        )
        assert done.stdout == "細胞".encode() + b"\xfc\n" + rb"\u7d30\u80de\xfc" + b"\n"
        assert done.stderr == rb"c: \u7d30\u80de\xfc" + b"\n"

    @posix
    def test_a_closed_pipe_ends_a_command_quietly(self) -> None:
        code = "import sys; from napari_mgbpv2.cli.models import main; sys.exit(main(['list']))"
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
        os.close(writing)
        assert (done.returncode, done.stderr) == (CLOSED_PIPE, b"")

    @posix
    def test_a_complete_image_is_not_called_failed_when_nobody_reads(self, tmp_path: Path, model: Path) -> None:
        folder = a_picture(tmp_path / "scans" / "a.png").parent
        a_picture(folder / "b.png")
        code = "import sys; from napari_mgbpv2.cli.upscale import main; sys.exit(main(sys.argv[1:]))"
        reading, writing = os.pipe()
        os.close(reading)
        arguments = [folder, "-o", tmp_path / "out", "--model", model, "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=writing, stderr=subprocess.PIPE, check=False
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (CLOSED_PIPE, b"")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_x4.ome.zarr"]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is none")
    def test_an_output_that_is_full_is_one_line(self) -> None:
        code = "import sys; from napari_mgbpv2.cli.models import main; sys.exit(main(['list']))"
        with open("/dev/full", "wb") as full:
            done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1
        assert b"the disk is full" in done.stderr or b"No space left" in done.stderr

    def test_an_unexpected_error_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        def fail(_: object) -> None:
            raise KeyError("x")

        assert run_command(make_parser("command", "", ""), fail, []) == 1
        assert capsys.readouterr().err.startswith("command: unexpected KeyError: 'x'; this is a fault of the program")

    def test_json_says_what_is_left_out(self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = a_picture(tmp_path / "scans" / "a.png").parent
        (folder / "notes.txt").write_text("hi")
        assert upscale(folder, "-o", tmp_path / "out", "--model", model, "--json") == 0
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        assert first == {"event": "left_out", "path": str(folder / "notes.txt"), "reason": "no image"}

    def test_a_path_is_written_as_it_is_where_no_terminal_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_path("a\x07b")
        write_line("a\x07b")
        assert capsys.readouterr().out == "a\x07b\n" + r"a\x07b" + "\n"


class TestTheSameCommandTwice:
    def test_a_preview_is_written_again_with_resume_and_overwrite(self, tmp_path: Path, model: Path) -> None:
        preview = tmp_path / "p.png"
        arguments = [
            a_picture(tmp_path / "a.png"),
            "-o",
            tmp_path / "a.ome.zarr",
            "--preview",
            preview,
            "--model",
            model,
        ]
        assert [upscale(*arguments, option) for option in ("--resume", "--resume", "--overwrite")] == [0, 0, 0]
        assert preview.is_file()

    def test_no_other_picture_is_replaced_by_a_preview(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = a_picture(tmp_path / "a.png")
        before = source.read_bytes()
        arguments = [source, "-o", tmp_path / "a.ome.zarr", "--preview", source, "--model", model, "--overwrite"]
        assert upscale(*arguments) == 1
        assert "choose another name for the preview" in capsys.readouterr().err
        assert source.read_bytes() == before

    @pytest.mark.parametrize("preview", ["a.ome.zarr", "a.ome.zarr/p.png", "p.jpg"])
    def test_a_preview_that_cannot_be_is_refused_before_the_work(
        self, tmp_path: Path, model: Path, preview: str
    ) -> None:
        arguments = [a_picture(tmp_path / "a.png"), "-o", tmp_path / "a.ome.zarr", "--model", model]
        assert upscale(*arguments, "--preview", tmp_path / preview) == 1
        assert not (tmp_path / "a.ome.zarr").exists()


class TestRecords:
    """What a result says of where its source is."""

    def test_a_result_holds_no_absolute_path(self, tmp_path: Path, model: Path) -> None:
        source = a_picture(tmp_path / "secret folder" / "a.png")
        made = mgbp.convert(source, tmp_path / "a.ome.zarr", model=model)
        attributes = json.loads((made / "zarr.json").read_text())["attributes"]["napari_mgbpv2"]
        assert (attributes["source"], list(attributes["source_identity"]["files"])) == ("a.png", ["a.png"])
        for path in made.rglob("*"):
            assert path.is_dir() or b"secret folder" not in path.read_bytes()
        tiff = mgbp.convert(source, tmp_path / "a.ome.tif", model=model)
        assert b"secret folder" not in tiff.read_bytes()

    def test_whole_paths_are_recorded_for_those_who_want_them(self, tmp_path: Path, model: Path) -> None:
        source = a_picture(tmp_path / "a.png")
        assert upscale(source, "-o", tmp_path / "a.ome.zarr", "--model", model, "--record-paths", "--quiet") == 0
        attributes = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["napari_mgbpv2"]
        assert (attributes["source"], list(attributes["source_identity"]["files"])) == (str(source), [str(source)])

    def test_a_complete_result_is_known_again_whether_it_records_paths_or_not(
        self, tmp_path: Path, model: Path
    ) -> None:
        arguments = [a_picture(tmp_path / "a.png"), "-o", tmp_path / "a.ome.zarr", "--model", model, "--resume"]
        assert [upscale(*arguments), upscale(*arguments, "--record-paths")] == [0, 0]


class TestNoise:
    def test_an_ensemble_refuses_noise_that_it_would_ignore(self) -> None:
        from examples import TINY

        member = TINY if TINY.noise_channels else None
        assert member is not None
        network = Ensemble([member, member])
        network.scale = 4
        for call in (mgbp.upscale, lambda image, **options: mgbp.convert(image, "never.ome.zarr", **options)):
            with pytest.raises(ModelError, match="is an ensemble, which noise does not enter"):
                call(an_image(20, 30), model=network, noise=1)
