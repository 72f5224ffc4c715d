"""The trainer and `mgbpv2-finetune`: runs that can be followed, stopped, resumed, and shared between processes."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2 import paths
from napari_mgbpv2.cli.finetune import main
from napari_mgbpv2.errors import Cancelled, MGBPv2Error, ModelError, SourceError, TrainingError
from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import configurations
from napari_mgbpv2.model.zoo import find_model, read_card
from napari_mgbpv2.training import optimization_step, trainer
from napari_mgbpv2.training import state as state_module
from napari_mgbpv2.training.feature_networks import VGG19
from napari_mgbpv2.training.initialization import add_noise_input
from napari_mgbpv2.training.objectives import Fidelity
from napari_mgbpv2.training.optimization_step import OptimizationStep
from napari_mgbpv2.training.optimizers import learning_rate_at, make_optimizer
from napari_mgbpv2.training.options import TrainingOptions, make_options, options_from_file
from napari_mgbpv2.training.process_group import ProcessGroup
from napari_mgbpv2.training.trainer import TrainingReport, train
from ranks import TwoRanks, resumed_run, run_cancelled_by_the_second, steps_in_half_precision, whole_run

on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows sends no SIGINT to one process")
SMALL = {"features": [6, 5, 4], "noise_channels": 1}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture with edges, from which something can be learnt."""
    squares = np.kron(an_image(12, 16, 3, seed=5), np.ones((12, 12, 1), "u1"))
    Image.fromarray(squares).save(tmp_path / "sharp.png")
    return tmp_path / "sharp.png"


@pytest.fixture
def options(picture: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "images": [picture],
        "output": tmp_path / "model.safetensors",
        "init": "scratch",
        "scale": 2,
        "config": SMALL,
        "steps": 6,
        "batch_size": 2,
        "patch_size": 39,
        "validate_every": 3,
        "workers": 0,
    }


def run(options: dict[str, Any], **how: Any) -> Path:
    return train(make_options(options), **how)


def weights(path: Path) -> list[torch.Tensor]:
    return list(mgbp.load_model(path).state_dict().values())


def assert_same_weights(one: Path, other: Path) -> None:
    assert all(torch.equal(mine, yours) for mine, yours in zip(weights(one), weights(other), strict=True))


class TestRun:
    def test_it_learns(self, options: dict[str, Any]) -> None:
        gains: list[float] = []

        def on_report(report: TrainingReport) -> None:
            if report.validation is not None:
                gains.append(report.validation["gain"])

        run(options | {"steps": 60, "validate_every": 20, "learning_rate": 3e-3, "averaging": 0.9}, on_report=on_report)
        assert gains[-1] > gains[0] + 0.1

    def test_the_model_upscales_at_once_and_tells_of_its_training(self, options: dict[str, Any]) -> None:
        path = run(options)
        assert mgbp.upscale(an_image(30, 30, 3), model=path).compute().shape == (60, 60, 3)
        card = read_card(path)
        assert (card.scale, card.channels) == (2, 3)
        assert card.guard is not None
        assert "sharp.png" in card.trained_on
        assert {"gain", "psnr", "bicubic_psnr", "ssim", "rmse_y"} <= set(card.scores)
        assert card.training["options"]["optimizer"] == "adamw"

    def test_a_model_says_no_path_of_its_images_unless_asked(self, options: dict[str, Any], picture: Path) -> None:
        broken = picture.parent / "broken.png"
        broken.write_bytes(b"no picture")
        options |= {"images": [picture, broken], "steps": 1, "validation": [picture]}
        with pytest.warns(UserWarning, match="broken.png"):
            path = run(options)
        folder = str(picture.parent).encode()
        assert folder not in path.read_bytes()
        assert folder not in (options["output"].with_name("model.training") / "options.json").read_bytes()
        assert read_card(path).training["options"]["images"] == ["sharp.png", "broken.png"]
        assert read_card(path).training["skipped"][0][0] == "broken.png"
        with pytest.warns(UserWarning, match="broken.png"):
            path = run(options | {"record_paths": True}, overwrite=True)
        assert read_card(path).training["options"]["images"] == [str(picture), str(broken)]

    def test_a_run_is_not_resumed_with_images_of_another_folder(
        self, options: dict[str, Any], picture: Path, tmp_path: Path
    ) -> None:
        run(options | {"steps": 1})
        (tmp_path / "other").mkdir()
        other = picture.rename(tmp_path / "other" / picture.name)
        with pytest.raises(TrainingError, match="was begun with other images, or from another model, by their paths"):
            run(options | {"images": [other], "steps": 2}, resume=True)

    def test_it_starts_from_the_packaged_model_of_the_scale(self, options: dict[str, Any]) -> None:
        del options["init"], options["config"]
        path = run(options | {"scale": 4, "steps": 1, "learning_rate": 1e-12})
        for mine, packaged in zip(weights(path), weights(find_model("x4").path), strict=True):
            torch.testing.assert_close(mine, packaged, atol=1e-6, rtol=0)

    def test_what_is_kept_is_the_best_validation(self, options: dict[str, Any], picture: Path) -> None:
        """With a learning rate that ruins the weights, that is what the run started from."""
        model = save_model(a_network(scale=2), picture.with_name("start.safetensors"))
        path = run(options | {"init": str(model), "learning_rate": 10.0, "schedule": "constant", "averaging": 0})
        assert_same_weights(path, model)

    def test_scores_are_written_as_csv(self, options: dict[str, Any]) -> None:
        run(options)
        with (options["output"].with_name("model.training") / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["0", "3", "6"]
        assert all(math.isfinite(float(row["gain"])) for row in rows)
        assert all(math.isfinite(float(row["loss"])) for row in rows[1:])

    def test_scores_are_written_for_tensorboard(self, options: dict[str, Any]) -> None:
        run(options)
        assert list(options["output"].with_name("model.training").glob("events.out.tfevents.*"))

    def test_a_contact_sheet_shows_every_validation(self, options: dict[str, Any]) -> None:
        """Source, bicubic, W = 0, W = 1 and target side by side."""
        run(options)
        sheets = sorted(options["output"].with_name("model.training").glob("sheet_*.png"))
        assert [sheet.name for sheet in sheets] == [f"sheet_{step:07d}.png" for step in (0, 3, 6)]
        width, height = Image.open(sheets[0]).size
        assert (width, height % 192) == (5 * 192, 0)

    def test_the_options_are_written_before_the_first_step(self, options: dict[str, Any]) -> None:
        with pytest.raises(Cancelled):
            run(options, cancelled=lambda: True)
        written = json.loads((options["output"].with_name("model.training") / "options.json").read_text())
        assert (written["steps"], written["scale"]) == (6, 2)

    def test_grey_images_train_a_network_of_one_channel(self, options: dict[str, Any]) -> None:
        path = run(options | {"config": {**SMALL, "channels": 1}})
        assert read_card(path).channels == 1

    def test_scenes_are_a_source(self, options: dict[str, Any]) -> None:
        assert "synthetic scenes" in read_card(run(options | {"images": "scenes", "steps": 1})).trained_on

    @pytest.mark.parametrize("optimizer", ["qhadam", "lookahead-radam"])
    def test_the_published_optimisers_train(self, options: dict[str, Any], optimizer: str) -> None:
        run(options | {"optimizer": optimizer, "schedule": "constant", "steps": 2})

    def test_minutes_end_a_run(self, options: dict[str, Any]) -> None:
        del options["steps"]
        begun = time.monotonic()
        run(options | {"minutes": 0.03, "validate_every": None})
        assert time.monotonic() - begun < 60


class TestPerceptual:
    def test_the_track_runs_from_end_to_end(self, options: dict[str, Any], tmp_path: Path) -> None:
        torch.manual_seed(0)
        torch.save(VGG19().state_dict(), tmp_path / "vgg.pth")
        names = {"adversarial", "contextual", "sharp", "coarse", "coarse_noisy", "discriminator"}
        path = run(options | {"track": "perceptual", "feature_network": str(tmp_path / "vgg.pth"), "steps": 2})
        with (options["output"].with_name("model.training") / "scores.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert all(math.isfinite(float(last[name])) for name in names)
        assert read_card(path).training["contextual_term"] is True
        assert mgbp.upscale(an_image(20, 20, 3), model=path, noise=1.0).compute().shape == (40, 40, 3)

    def test_the_discriminator_may_do_without_local_statistics(self, options: dict[str, Any]) -> None:
        run(options | {"track": "perceptual", "feature_network": "none", "steps": 1, "discriminator_statistics": False})

    def test_it_runs_without_the_contextual_term_and_says_so(self, options: dict[str, Any]) -> None:
        path = run(options | {"track": "perceptual", "feature_network": "none", "steps": 1})
        assert read_card(path).training["contextual_term"] is False

    @pytest.mark.slow
    def test_large_images_are_scored_by_niqe_against_ones_own(self, options: dict[str, Any], tmp_path: Path) -> None:
        textured = np.kron(an_image(100, 200, 3, seed=1), np.ones((4, 4, 1), "u1"))
        Image.fromarray(textured).save(tmp_path / "large.png")
        wanted = {"images": [tmp_path / "large.png"], "validation": [tmp_path / "large.png"], "steps": 1}
        perceptual = {"track": "perceptual", "feature_network": "none", "fit_pristine": True}
        path = run(options | wanted | perceptual)
        assert math.isfinite(read_card(path).scores["niqe"])
        assert (options["output"].with_name("model.training") / "pristine.npz").exists()

    def test_a_network_without_a_noise_input_gets_one(self, options: dict[str, Any]) -> None:
        del options["init"], options["config"]
        path = run(options | {"track": "perceptual", "scale": 4, "feature_network": "none", "steps": 1})
        network = load_model(path)
        assert isinstance(network, mgbp.MGBPv2)
        assert network.config == replace(configurations(load_model("x4"))[0], noise_channels=1)

    @pytest.mark.parametrize("bias", [False, True])
    def test_one_that_has_been_given_is_not_heard_before_it_is_trained(self, bias: bool) -> None:
        before = a_network(ModelConfig(features=(6, 5, 4), noise_channels=0, bias=bias), guard=8)
        after = add_noise_input(before)
        image, noise = torch.rand(2, 1, 3, 47, 47)
        torch.testing.assert_close(after(image, noise, 1.0), before(image), rtol=0, atol=1e-6)
        assert (after.scale, after.guard) == (before.scale, before.guard)
        after(image, noise, 1.0).sum().backward()
        upscalings = [
            after.get_submodule(f"{name}.1") for name, _ in after.named_children() if name.startswith("Upscale")
        ]
        assert all(bool(layer.weight.grad[-1].any()) for layer in upscalings)  # so that training makes them heard

    def test_where_niqe_cannot_tell_which_is_better_the_last_is_kept(self, options: dict[str, Any]) -> None:
        perceptual = {"track": "perceptual", "feature_network": "none", "steps": 3, "validate_every": 1}
        assert read_card(run(options | perceptual)).training["steps"] == 3


class TestResume:
    @pytest.mark.parametrize("track", ["fidelity", "perceptual"])
    def test_a_resumed_run_ends_with_the_same_bits(self, options: dict[str, Any], tmp_path: Path, track: str) -> None:
        options |= {"track": track, "feature_network": "none"}
        whole = run(options | {"output": tmp_path / "whole.safetensors"})
        asked = iter([False] * 4 + [True])
        with pytest.raises(Cancelled, match=r"stopped after step 4; .* --resume continues"):
            run(options, cancelled=lambda: next(asked))
        assert_same_weights(run(options, resume=True), whole)

    @pytest.mark.skipif(os.name != "posix", reason="Windows sends no SIGINT to one process")
    def test_an_interruption_within_a_step_saves_no_half_of_it(
        self, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The weights have been changed, their average and the number of the step not yet."""
        whole = run(options | {"output": tmp_path / "whole.safetensors"})
        average, calls = torch.optim.swa_utils.AveragedModel.update_parameters, 0

        def interrupted(self: Any, model: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
            average(self, model)

        monkeypatch.setattr(torch.optim.swa_utils.AveragedModel, "update_parameters", interrupted)
        with pytest.raises(Cancelled, match="stopped after step 3; "):
            run(options)
        monkeypatch.undo()
        assert_same_weights(run(options, resume=True), whole)

    def test_the_scores_of_a_resumed_run_have_no_gap_and_no_double(self, options: dict[str, Any]) -> None:
        asked = iter([False] * 4 + [True])
        with pytest.raises(Cancelled):
            run(options, cancelled=lambda: next(asked))
        run(options, resume=True)
        with (options["output"].with_name("model.training") / "scores.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["0", "3", "6"]

    def test_other_options_are_refused_by_name(self, options: dict[str, Any]) -> None:
        with pytest.raises(Cancelled):
            run(options, cancelled=lambda: True)
        with pytest.raises(TrainingError, match=r"was begun with batch_size = 2, and the options now give 1"):
            run(options | {"batch_size": 1}, resume=True)

    def test_a_run_may_be_prolonged(self, options: dict[str, Any]) -> None:
        run(options)
        assert read_card(run(options | {"steps": 9}, resume=True)).training["options"]["steps"] == 9

    def test_there_must_be_a_run(self, options: dict[str, Any]) -> None:
        with pytest.raises(TrainingError, match="there is no run to resume"):
            run(options, resume=True)

    def test_a_damaged_state_is_told(self, options: dict[str, Any]) -> None:
        with pytest.raises(Cancelled):
            run(options, cancelled=lambda: True)
        path = options["output"].with_name("model.training") / "last.state"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(TrainingError, match=r"last\.state: is damaged"):
            run(options, resume=True)

    @pytest.mark.slow
    def test_ctrl_c_saves_and_says_how_to_go_on(self, picture: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "napari_mgbpv2.cli.finetune", picture, "-o", tmp_path / "m.safetensors"]
        running = subprocess.Popen([*command, "--patch-size", "63"], stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        assert "step 0" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "--resume continues from there" in told.splitlines()[-1], told
        assert "Traceback" not in told
        done = subprocess.run([*command, "--patch-size", "63", "--resume", "--minutes", "0.05"], check=False)
        assert done.returncode == 0


class TestTrust:
    def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best(self, options: dict[str, Any]) -> None:
        """The last good weights stay where they were saved."""
        original = Fidelity.losses
        calls = 0

        def broken(self: Any, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            losses = original(self, *arguments)
            if calls > 4:
                losses.total = losses.total * math.nan
                losses.parts["loss"] = torch.tensor(math.nan)
            return losses

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Fidelity, "losses", broken)
            with pytest.raises(TrainingError, match=r"the loss is nan .* at step 4: training has diverged.*--lr"):
                run(options)
        folder = options["output"].with_name("model.training")
        assert all(torch.isfinite(each).all() for each in weights(folder / "best.safetensors"))
        assert not options["output"].exists()
        run(options, resume=True)

    def test_a_full_disk_keeps_the_state_before(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(Cancelled):
            run(options, cancelled=lambda: True)
        path = options["output"].with_name("model.training") / "last.state"
        before = path.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(paths.os, "fsync", full)
        with pytest.raises(TrainingError, match=r"cannot be written \(No space left on device\); what was there"):
            state_module.save_state(path.parent, {"step": 99})
        assert path.read_bytes() == before
        assert sorted(each.name for each in path.parent.iterdir() if each.name.startswith(".")) == []

    def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
        self, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options |= {"batch_size": 4, "steps": 2}
        whole = run(options | {"output": tmp_path / "whole.safetensors"})
        original, sizes = Fidelity.losses, []

        def small_device(self: Any, network: Any, image: torch.Tensor, *rest: Any) -> Any:
            if len(image) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(len(image))
            return original(self, network, image, *rest)

        monkeypatch.setattr(Fidelity, "losses", small_device)
        halved = run(options)
        assert sizes == [1] * 8
        for one, other in zip(weights(halved), weights(whole), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)

    def test_a_patch_that_does_not_fit_at_all_is_told(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Fidelity, "losses", no_memory)
        with pytest.raises(TrainingError, match=r"a single patch of 39 px does not fit .* --patch-size"):
            run(options)

    def test_an_existing_model_is_kept(self, options: dict[str, Any]) -> None:
        run(options)
        before = options["output"].read_bytes()
        with pytest.raises(TrainingError, match="exists already; --resume continues the run, --overwrite replaces it"):
            run(options | {"seed": 1})
        assert options["output"].read_bytes() == before
        run(options | {"seed": 1}, overwrite=True)
        assert options["output"].read_bytes() != before

    def test_unreadable_images_among_good_ones_are_left_out_and_counted(
        self, options: dict[str, Any], picture: Path
    ) -> None:
        (picture.parent / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        with pytest.warns(UserWarning, match="broken.png"):
            path = run(options | {"images": [picture, picture.parent / "broken.png"]})
        assert [Path(name).name for name, _ in read_card(path).training["skipped"]] == ["broken.png"]


class TestManyProcesses:
    @pytest.fixture(scope="class")
    def ranks(self) -> Iterator[TwoRanks]:
        found = TwoRanks()
        yield found
        found.close()

    @pytest.mark.parametrize("by_signal", [False, pytest.param(True, marks=on_posix)], ids=["cancelled", "signal"])
    def test_one_that_is_asked_to_stop_stops_all_after_the_same_step_with_a_whole_state(
        self, ranks: TwoRanks, options: dict[str, Any], tmp_path: Path, by_signal: bool
    ) -> None:
        options |= {"steps": 4, "batch_size": 1, "device": "cpu"}
        whole = ranks.run(whole_run, options | {"output": tmp_path / "whole.safetensors"})[0]
        ends = ranks.run(run_cancelled_by_the_second, options, 2, by_signal)
        steps = {re.match(r"stopped after step (\d+); .*--resume continues", end).group(1) for end in ends}  # type: ignore[union-attr]
        assert len(steps) == 1
        assert torch.load(options["output"].with_name("model.training") / "last.state")["step"] == int(steps.pop())
        assert_same_weights(ranks.run(resumed_run, options)[0], whole)

    def test_infinite_gradients_of_one_leave_the_step_out_in_all(
        self, ranks: TwoRanks, options: dict[str, Any]
    ) -> None:
        """In half precision: else their weights would part."""
        one, other = ranks.run(steps_in_half_precision, options | {"batch_size": 1, "device": "cpu"})
        for (scale, mine), (its_scale, its) in zip(one, other, strict=True):
            assert scale == its_scale
            assert all(torch.equal(each, same) for each, same in zip(mine, its, strict=True))
        changed = [
            not all(torch.equal(new, old) for new, old in zip(after, before, strict=True))
            for (_, before), (_, after) in itertools.pairwise(one)
        ]
        assert changed == [False, True]
        assert one[1][0] == one[0][0] / 2

    @pytest.mark.slow
    def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(
        self, options: dict[str, Any], tmp_path: Path
    ) -> None:
        """Through torchrun, with gloo on the CPU: the weights agree after several steps."""
        options |= {"batch_size": 4, "steps": 3, "optimizer": "adamw"}
        whole = run(options | {"output": tmp_path / "whole.safetensors"})
        config = tmp_path / "config.toml"
        config.write_text("[config]\nfeatures = [6, 5, 4]\nnoise_channels = 1\n")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [
            "-m",
            "napari_mgbpv2.cli.finetune",
            options["images"][0],
            "-o",
            options["output"],
            "--config",
            config,
        ]
        command += ["--init", "scratch", "--scale", "2", "--steps", "3", "--batch-size", "2", "--patch-size", "39"]
        command += ["--validate-every", "3", "--workers", "0", "--device", "cpu"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for one, other in zip(weights(options["output"]), weights(whole), strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)

    def test_one_process_is_a_team_of_its_own(self) -> None:
        process_group = ProcessGroup()
        assert (process_group.mean({"loss": 2.0}), process_group.agree(0.5), process_group.is_leader) == (
            {"loss": 2.0},
            0.5,
            True,
        )


class TestOptimizers:
    def test_qhadam_has_the_published_parameters(self) -> None:
        parameter = torch.nn.Parameter(torch.ones(1))
        group = make_optimizer("qhadam", [parameter], 1e-4).param_groups[0]
        assert (tuple(group["nus"]), tuple(group["betas"]), group["lr"]) == ((0.7, 1.0), (0.995, 0.999), 1e-4)

    def test_lookahead_has_the_published_parameters(self) -> None:
        optimizer: Any = make_optimizer("lookahead-radam", [torch.nn.Parameter(torch.ones(1))], 1e-4)
        assert (optimizer.k, optimizer.alpha) == (5, 0.5)
        assert isinstance(optimizer.optimizer, torch.optim.RAdam)

    def test_the_rate_rises_and_falls_along_half_a_cosine(self) -> None:
        rates = [learning_rate_at(1.0, "cosine", 9, step, step / 100) for step in (0, 9, 50, 100)]
        assert rates == pytest.approx([0.1, 0.98, 0.5, 0.001], abs=2e-3)

    def test_the_published_rate_is_constant(self) -> None:
        assert learning_rate_at(1e-4, "constant", 0, 10**6, 0.99) == 1e-4


class TestOptions:
    def test_a_file_holds_the_same_options(self, tmp_path: Path) -> None:
        path = tmp_path / "run.toml"
        path.write_text('images = "a.png"\noutput = "m.safetensors"\nbatch-size = 3\n[config]\nfeatures = [9, 8]\n')
        options = make_options(options_from_file(path))
        assert (options.images, options.batch_size, options.config.features) == (("a.png",), 3, (9, 8))

    def test_the_command_line_wins_over_the_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "run.toml"
        path.write_text('images = ["a.png"]\noutput = "m.safetensors"\nbatch-size = 3\nsteps = 7\n')
        assert main(["--config", str(path), "--batch-size", "5", "--dry-run"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["batch_size"], shown["steps"], shown["images"]) == (5, 7, ["a.png"])

    def test_ten_minutes_are_the_default(self) -> None:
        options = TrainingOptions(("a.png",), Path("m.safetensors"))
        assert options.end == (None, 10.0)

    def test_a_run_of_a_version_with_fewer_options_is_the_same_run(self) -> None:
        options = make_options({"images": ["scenes"], "output": "model.safetensors", "scale": 2, "init": "scratch"})
        before = options.to_dict()
        del before["smooth_share"]
        assert options.first_difference(before) == ""
        assert options.first_difference(before | {"smooth_share": 0.5}) == "smooth_share"

    def test_help_reads_well_and_loads_no_torch(self) -> None:
        code = (
            "import sys; from napari_mgbpv2.cli.finetune import main\n"
            "try: main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("usage: mgbpv2-finetune")
        assert "Naming the images and -o is enough" in done.stdout
        assert done.stdout.splitlines()[-1] == "False"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": []}, "no images to train on"),
            ({"images": ["scenes", "microscopy", "a.png"]}, "microscopy and scenes are two kinds of synthetic images"),
            ({"images": ["scenes", "a.png"], "synthetic_share": 1.5}, "synthetic_share is 1.5; it must be from 0 to 1"),
            ({"smooth_share": -0.1}, "smooth_share is -0.1; it must be from 0 to 1"),
            ({"smooth_share": 0.1, "low_resolution": "low"}, "smooth_share blurs images that are shrunk here"),
            ({"output": "model.pth"}, "ends in .safetensors"),
            ({"output": None}, "output must be given"),
            ({"track": "fast"}, "track is 'fast'; choose one of fidelity, perceptual"),
            ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
            ({"steps": 0}, "steps is 0; it must be greater than 0"),
            ({"batch_size": -1}, "batch_size is -1"),
            ({"averaging": 1.0}, "averaging is 1.0"),
            ({"steps": "many"}, "wrong kind"),
            ({"scale": None}, "a network from scratch needs a scale"),
            ({"config": {"depth": 3}}, "configuration|config has 'depth'"),
            ({"value_range": [1]}, "wrong kind"),
        ],
    )
    def test_bad_options_are_one_clear_error(
        self, options: dict[str, Any], change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(TrainingError, match=message) as caught:
            make_options(options | change)
        assert "\n" not in str(caught.value)

    def test_an_unknown_option_in_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_text("batchsize = 3\n")
        with pytest.raises(TrainingError, match=r"run\.toml: has the option 'batchsize', which there is none of"):
            options_from_file(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": ["gone.png"]}, SourceError, "gone.png"),
        ({"images": ["empty-folder"]}, SourceError, "empty-folder"),
        ({"patch_size": 5000}, MGBPv2Error, "5000"),
        ({"init": "x4", "scale": 2}, TrainingError, "upscales 4 times, not 2; choose another --init or --scale"),
        ({"init": "gone.safetensors"}, ModelError, "there is no such file"),
        ({"device": "tpu"}, MGBPv2Error, "device 'tpu' is not available"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_input_is_one_clear_error_and_leaves_nothing(
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: type[MGBPv2Error],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(error, match=message):
        run(options | change)
    assert not options["output"].with_name("model.training").exists()


def test_a_step_is_a_function_of_its_number(options: dict[str, Any]) -> None:
    """Two optimizations that take the same step from the same weights end at the same weights."""
    made = make_options(options)
    ends = []
    for _ in range(2):
        network = a_network(ModelConfig(features=(6, 5, 4)), scale=2)
        optimization = OptimizationStep(network, Fidelity(), made, "float32", ProcessGroup())
        batch = torch.rand(2, 3, 39, 39, generator=torch.Generator().manual_seed(0))
        optimization.take_step(3, (batch, batch.flip(0)), 1e-3)
        ends.append(list(network.state_dict().values()))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    assert optimization_step.MAX_GRADIENT_NORM == 1.0


def test_the_former_name_of_a_training_report_warns_and_gives_it() -> None:
    with pytest.warns(DeprecationWarning, match="Report is now TrainingReport"):
        assert trainer.Report is TrainingReport
