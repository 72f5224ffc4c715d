"""The sweep of the noise amplitude, its table, its picture and its command."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import Array, a_network, an_image
from napari_mgbpv2.cli.sweep import main
from napari_mgbpv2.errors import ImageError, MGBPv2Error, ModelError
from napari_mgbpv2.inspection import SweepRow, as_csv, noise_sweep, plot_sweep
from napari_mgbpv2.metrics.niqe import niqe
from napari_mgbpv2.metrics.scores import luma, psnr, rmse_y
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.training.feature_networks import VGG19
from napari_mgbpv2.training.losses import contextual_loss

NOISY = a_network(ModelConfig(features=(6, 4), steps=1), scale=2)
COMMAND = [str(Path(sys.executable).parent / "mgbpv2-sweep")]


def a_sharp_image(height: int = 200, width: int = 210, samples: int | None = 3) -> Array:
    """Noise that is smooth over some pixels, so that shrinking leaves something of it."""
    coarse = an_image(height // 5, width // 5, 3)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture)
    return pixels if samples == 3 else pixels[..., 0]


def planes(image: Array) -> Array:
    return np.moveaxis(np.atleast_3d(image), 2, 0).astype(np.float32) / 255


class TestScores:
    def test_every_amplitude_is_scored_by_the_trainer_s_metrics(self) -> None:
        target = a_sharp_image()
        source = an_image(100, 105, 3)
        rows = noise_sweep(NOISY, target, source, amplitudes=(0.0, 0.5), seed=3)
        for row, amplitude in zip(rows, (0.0, 0.5), strict=True):
            result = planes(mgbp.upscale(source, model=NOISY, noise=amplitude, seed=3).compute())
            assert row.amplitude == amplitude
            assert row.psnr == pytest.approx(psnr(result, planes(target)), abs=1e-4)
            assert row.rmse == pytest.approx(rmse_y([result], [planes(target)]), abs=1e-4)
            assert row.niqe == pytest.approx(niqe(luma(result)), abs=1e-4)
        assert rows[0].psnr != rows[1].psnr

    def test_without_a_source_the_target_is_shrunk_and_rounded(self) -> None:
        target = a_sharp_image(201, 211)
        cut = target[:200, :210]
        source = np.asarray(Image.fromarray(cut).resize((105, 100), Image.Resampling.BICUBIC))
        [row] = noise_sweep(NOISY, target, amplitudes=(1.0,))
        [given] = noise_sweep(NOISY, cut, source, amplitudes=(1.0,))
        assert row.psnr == pytest.approx(given.psnr, abs=0.05)

    def test_by_default_there_are_eleven_amplitudes_from_fidelity_to_perception(self) -> None:
        rows = noise_sweep(NOISY, a_sharp_image(40, 40))
        assert [row.amplitude for row in rows] == pytest.approx(np.linspace(0, 1, 11))

    @pytest.mark.parametrize(("shape", "axes"), [((60, 64), "yx"), ((1, 60, 64), "zyx"), ((3, 60, 64), "syx")])
    def test_grey_and_colour_images_are_scored(self, shape: tuple[int, ...], axes: str) -> None:
        [row] = noise_sweep(NOISY, an_image(*shape), amplitudes=(0.5,), axes=axes)
        assert math.isfinite(row.psnr)

    def test_values_beyond_8_bits_are_scored_in_their_range(self) -> None:
        target = a_sharp_image(samples=None)
        [row] = noise_sweep(NOISY, target, amplitudes=(0.5,))
        wide = (100 + target.astype(np.uint16) * 4).astype(np.uint16)
        [other] = noise_sweep(NOISY, wide, amplitudes=(0.5,), value_range=(100, 1120))
        assert other.psnr == pytest.approx(row.psnr, abs=0.05)

    def test_an_image_too_small_for_niqe_has_none(self) -> None:
        [row] = noise_sweep(NOISY, a_sharp_image(100, 180), amplitudes=(0.5,))
        assert row.niqe is None

    def test_progress_is_told(self) -> None:
        told: list[tuple[int, int]] = []
        noise_sweep(NOISY, a_sharp_image(40, 40), amplitudes=(0, 1), progress=lambda *step: told.append(step))
        assert told == [(0, 2), (1, 2), (2, 2)]


class TestContextualSimilarity:
    def features(self) -> VGG19:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return VGG19()

    def test_with_features_it_is_scored(self) -> None:
        target, features = a_sharp_image(64, 64), self.features()
        source = an_image(32, 32, 3)
        [row] = noise_sweep(NOISY, target, source, amplitudes=(0.5,), features=features)
        result = mgbp.upscale(source, model=NOISY, noise=0.5).compute()
        found, wanted = (features(torch.from_numpy(planes(each))[None]) for each in (result, target))
        assert row.contextual == pytest.approx(math.exp(-float(contextual_loss(found, wanted))), abs=1e-4)

    def test_without_features_it_is_left_out(self) -> None:
        [row] = noise_sweep(NOISY, a_sharp_image(64, 64), amplitudes=(0.5,))
        assert row.contextual is None

    def test_equal_images_are_wholly_similar(self) -> None:
        network = an_identity()
        [row] = noise_sweep(network, a_sharp_image(64, 64), scale=1, amplitudes=(0.0,), features=self.features())
        assert row.contextual == pytest.approx(1, abs=1e-3)
        assert row.psnr == math.inf


class TestRefusals:
    def test_a_model_without_noise_is_refused(self) -> None:
        with pytest.raises(ModelError, match="the model x4 has no noise input"):
            noise_sweep("x4", a_sharp_image())

    @pytest.mark.parametrize(
        ("target", "source", "options", "sentence"),
        [
            ((60, 60), (20, 30), {}, r"source \(20, 30\) uint8 and target \(60, 60\) uint8 do not belong together"),
            ((60, 60, 4), None, {"axes": "yxs"}, "a single grey or RGB plane"),
            ((2, 60, 60), None, {"axes": "zyx"}, "a single grey or RGB plane"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, target: tuple[int, ...], source: tuple[int, ...] | None, options: dict[str, Any], sentence: str
    ) -> None:
        given = None if source is None else an_image(*source)
        with pytest.raises(ImageError, match=sentence):
            noise_sweep(NOISY, an_image(*target), given, **options)


ROWS = [SweepRow(0.0, 25.5, 9.25, 6.5, None), SweepRow(1.0, 24.0, 11.5, 4.125, None)]


class TestTableAndPicture:
    def test_the_table_has_a_line_a_row_and_leaves_out_what_is_missing(self) -> None:
        assert as_csv(ROWS) == "amplitude,psnr,rmse,niqe,contextual\n0.0,25.5,9.25,6.5,\n1.0,24.0,11.5,4.125,\n"

    @pytest.mark.parametrize(
        ("rows", "panels"),
        [
            (ROWS, 2),
            ([SweepRow(0.0, 25.5, 9.25, None, None)], 1),
            ([SweepRow(w, 25.5 - w, 9.25 + w, 6.5 - w, 0.3 + w) for w in (0.0, 0.5)], 3),
        ],
    )
    def test_the_picture_has_a_panel_for_every_pair_of_scores_that_there_is(
        self, rows: list[SweepRow], panels: int
    ) -> None:
        picture = Image.open(BytesIO(plot_sweep(rows)))
        assert picture.format == "PNG"
        assert picture.size == (600 * panels, 480)
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10

    def test_without_matplotlib_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MGBPv2Error, match=r'pip install "napari-mgbpv2\[plot\]"'):
            plot_sweep(ROWS)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], Path]:
    """A model with a noise input and a picture, by name; anything else is a free name."""
    save_model(NOISY, tmp_path / "noisy.safetensors", scale=2, guard=16)
    Image.fromarray(a_sharp_image()).save(tmp_path / "sharp.png")
    Image.fromarray(a_sharp_image(100, 105)).save(tmp_path / "small.png")
    return lambda name: tmp_path / name


class TestCommand:
    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)

    def test_it_writes_the_table_and_the_picture_and_prints_where(self, files: Callable[[str], Path]) -> None:
        done = self.run(
            files("sharp.png"), "--source", files("small.png"), "--model", files("noisy.safetensors"), "-o",
            files("out.csv"), "--plot", files("out.png"), "--amplitudes", 0, 0.5, 1,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{files('out.csv')}\n{files('out.png')}\n")
        with files("out.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["amplitude"]) for row in rows] == [0, 0.5, 1]
        assert all(float(row["niqe"]) > 0 for row in rows)
        assert Image.open(files("out.png")).width == 1200

    def test_it_says_that_a_score_is_left_out_and_why(
        self, files: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [files("sharp.png"), "--model", files("noisy.safetensors"), "-o", files("out.csv")]
        assert main([*map(str, arguments), "--amplitudes", "1"]) == 0
        assert "contextual similarity is left out" in capsys.readouterr().err
        assert files("out.csv").read_text().splitlines()[1].endswith(",")

    def test_with_the_weights_of_a_feature_network_it_is_there(self, files: Callable[[str], Path]) -> None:
        weights = TestContextualSimilarity().features().state_dict()
        torch.save(weights, files("vgg.pth"))
        arguments = [files("sharp.png"), "--model", files("noisy.safetensors"), "-o", files("out.csv")]
        assert main([*map(str, arguments), "--amplitudes", "1", "--feature-network", str(files("vgg.pth"))]) == 0
        assert 0 < float(files("out.csv").read_text().splitlines()[1].split(",")[-1]) <= 1

    def test_nothing_is_overwritten_unasked(
        self, files: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        files("out.csv").write_text("mine")
        arguments = [files("sharp.png"), "--model", files("noisy.safetensors"), "-o", files("out.csv")]
        assert main([*map(str, arguments), "--amplitudes", "1"]) == 1
        assert files("out.csv").read_text() == "mine"
        assert "exists already" in capsys.readouterr().err
        assert main([*map(str, arguments), "--amplitudes", "1", "--overwrite"]) == 0
        assert files("out.csv").read_text() != "mine"

    def test_a_packaged_model_is_refused_in_one_line(
        self, files: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(files("sharp.png")), "--model", "x4", "-o", str(files("out.csv"))]) == 1
        assert capsys.readouterr().err == (
            "mgbpv2-sweep: the model x4 has no noise input, so it invents nothing that an amplitude could change; "
            "choose a model with one.\n"
        )
        assert not files("out.csv").exists()


def an_identity() -> mgbp.MGBPv2:
    """A network that returns its input, and takes noise."""
    network = a_network(ModelConfig(features=(4, 3), steps=1), scale=None)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(torch.eye(3).reshape(3, 3, 1, 1) if name in ("Analysis_1.weight", "Synthesis.weight") else 0)
    return network
