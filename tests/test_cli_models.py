"""The command `mgbpv2-models`, run as a user runs it, and what its subcommands do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import napari_mgbpv2 as mgbp
from examples import a_network
from napari_mgbpv2.cli.models import main
from napari_mgbpv2.model.checkpoints import export_model, load_model, save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.zoo import file_hash, find_model, find_published, preset, published
from web import serving, use_cache

COMMAND = str(Path(sys.executable).parent / "mgbpv2-models")
SMALL = ModelConfig(features=(4, 3), steps=1)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of ours with a card."""
    network = a_network(SMALL, scale=4, guard=8)
    return save_model(network, tmp_path / "cells.safetensors", trained_on="cells", scores={"PSNR": 31.5})


class TestCommand:
    def test_help_reads_well(self) -> None:
        text = command("--help").stdout
        assert text.startswith("usage: mgbpv2-models")
        for part in ("list", "info", "download", "export", "examples:", "MGBPV2_CACHE"):
            assert part in text
        assert max(map(len, (text + command("export", "--help").stdout).splitlines())) <= 120

    def test_help_and_list_are_instant_they_load_no_torch(self) -> None:
        code = (
            "import sys; from napari_mgbpv2.cli.models import main\n"
            "try: main(['--help'])\nexcept SystemExit: main(['list'])\n"
            "print({'torch', 'numpy', 'pooch', 'onnx'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "set()"

    def test_the_version_is_the_packages(self) -> None:
        assert command("--version").stdout == f"mgbpv2-models {mgbp.__version__}\n"

    def test_without_a_command_it_is_status_2(self) -> None:
        done = command()
        assert done.returncode == 2
        assert "COMMAND" in done.stderr

    def test_an_unknown_model_is_one_line_and_status_1(self) -> None:
        done = command("info", "x5")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("mgbpv2-models: there is no model 'x5'")
        assert done.stderr.count("\n") == 1


class TestList:
    def test_packaged_and_published_models_are_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list"]) == 0
        rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
        assert rows[0] == ["name", "scale", "channels", "weights"]
        assert ["x4", "x4", "3", f"{find_model('x4').parameters:,}"] in rows
        assert ["boe-perceptual", "x16", "3", "28,170,450"] in rows
        assert ["boe-fidelity", "x16", "3", "263,421,182"] in rows

    def test_json_says_all_that_is_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list", "--json"]) == 0
        models = {facts["name"]: facts for facts in json.loads(capsys.readouterr().out)}
        card = find_model("x4")
        assert (models["x4"]["guard"], models["x4"]["scores"], models["x4"]["here"]) == (card.guard, card.scores, True)
        fidelity = models["boe-fidelity"]
        assert (fidelity["here"], fidelity["scale"], fidelity["preset"]) == (False, 16, preset("boe-fidelity"))
        assert fidelity["url"] == find_published("boe-fidelity").url
        assert "LGPL" in fidelity["licence"]


class TestInfo:
    def test_a_file_of_ours_tells_card_network_and_hash(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", str(model)]) == 0
        said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert (said["name"], said["scale"], said["guard"]) == ("cells", "4", "8 px of the result")
        assert said["scores"] == "PSNR 31.5"
        assert said["sha256"] == file_hash(model)
        assert said["reach"] == f"{SMALL.reach} px of the result"
        assert said["network"].startswith("features 4-3 (lowest resolution first), 1 steps")

    def test_the_authors_file_tells_its_network(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = export_model(a_network(SMALL), tmp_path / "a.model")
        assert main(["info", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["scale"], facts["guard"], facts["networks"]) == (None, None, [SMALL.to_dict()])
        assert facts["parameters"] == sum(each.numel() for each in a_network(SMALL).parameters())

    def test_a_published_model_tells_what_it_is_before_it_is_here(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "boe-fidelity", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["here"], facts["bytes"], facts["parameters"]) == (False, 1_100_000_000, 263_421_182)
        assert [network["kernel"] for network in facts["networks"]] == [3, 5, 7]
        assert "sha256" not in facts

    def test_a_damaged_file_is_one_line_and_status_1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.safetensors").write_bytes(b"weights")
        assert main(["info", str(tmp_path / "a.safetensors")]) == 1
        assert capsys.readouterr().err.count("\n") == 1


class TestDownload:
    def test_it_brings_a_published_model_and_says_where_it_is(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = export_model(a_network(SMALL), tmp_path / "a.model").read_bytes()
        with serving(content) as server:
            small = replace(find_published("boe-perceptual"), name="small", configs=(SMALL,), url=server.address)
            monkeypatch.setitem(published.PUBLISHED, "small", small)
            assert main(["download", "small"]) == 0
            said = capsys.readouterr()
            assert said.out == f"{cache / 'small.model'}\n"
            assert "the authors' weights" in said.err
            assert main(["download", "small"]) == 0
            assert server.requests == [None]
        capsys.readouterr()
        assert main(["info", "small", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["here"], facts["bytes"], facts["sha256"]) == (True, len(content), small.recorded_hash)

    def test_a_file_may_be_given_instead(self, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mine.model").write_bytes(b"no model")
        assert main(["download", "boe-perceptual", "--from", str(tmp_path / "mine.model")]) == 1
        assert "mine.model: is not the file of boe-perceptual and was discarded" in capsys.readouterr().err

    def test_an_unknown_name_is_an_error_that_lists_the_known_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["download", "x4"]) == 1
        assert "no published model 'x4'; those are boe-perceptual, boe-fidelity" in capsys.readouterr().err


class TestExport:
    def test_all_options_reach_the_export(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        destination = tmp_path / "a.safetensors"
        destination.write_bytes(b"old")
        arguments = ["export", model, destination, "--to", "safetensors", "--scale", 8, "--grey"]
        arguments += ["--precision", "float16", "--overwrite"]
        assert main(list(map(str, arguments))) == 0
        assert capsys.readouterr().out == f"{destination}\n"
        network = load_model(destination)
        assert (network.scale, next(network.parameters()).shape[1]) == (8, SMALL.features[1])
        assert destination.stat().st_size < model.stat().st_size

    def test_the_ending_says_the_form(self, model: Path, tmp_path: Path) -> None:
        assert main(["export", str(model), str(tmp_path / "a.pt")]) == 0
        assert torch.jit.load(tmp_path / "a.pt")(torch.zeros(1, 3, 4, 5)).shape == (1, 3, 16, 20)

    def test_noise_becomes_an_input(self, model: Path, tmp_path: Path) -> None:
        assert main(["export", str(model), str(tmp_path / "a.pt"), "--noise", "0.5"]) == 0
        run, noise = torch.jit.load(tmp_path / "a.pt"), torch.randn(1, 3, 16, 20)
        image = torch.zeros(1, 3, 4, 5)
        assert not torch.equal(run(image, noise), run(image, -noise))

    def test_nothing_is_overwritten_unasked(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.onnx").write_bytes(b"mine")
        assert main(["export", str(model), str(tmp_path / "a.onnx")]) == 1
        assert "a.onnx: exists already" in capsys.readouterr().err
        assert (tmp_path / "a.onnx").read_bytes() == b"mine"
