"""Synthetic images: the same for the same numbers, and microscopy as optics and cameras have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from examples import a_network
from napari_mgbpv2.model.checkpoints import load_model, save_model
from napari_mgbpv2.model.network import fold_channels
from napari_mgbpv2.training import training_data
from napari_mgbpv2.training.initialization import make_initial_network
from napari_mgbpv2.training.options import make_options
from napari_mgbpv2.training.synthetic import KINDS, numbered_image
from napari_mgbpv2.training.synthetic.camera import Camera
from napari_mgbpv2.training.synthetic.fields import blur_layer, random_field, random_light, random_micrograph
from napari_mgbpv2.training.synthetic.structures import STRUCTURES, Canvas, curves, deposit, outline

CAMERA = Camera(photons=200.0, read_noise=3.0, gain=0.5, offset=100.0)


def moments(canvas: Canvas) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum, centre (x, y) and variances of what lies on a canvas, pixel (0, 0) around (0.5, 0.5)."""
    weights, at = canvas.astype(np.float64), np.arange(len(canvas)) + 0.5
    total = weights.sum()
    shares = weights.sum(axis=0) / total, weights.sum(axis=1) / total
    centre = np.array([share @ at for share in shares])
    spread = np.array([share @ (at - middle) ** 2 for share, middle in zip(shares, centre, strict=True)])
    return total, centre, spread


@pytest.mark.parametrize("kind", KINDS)
class TestNumberedImages:
    def test_numbers_say_it_all(self, kind: str) -> None:
        image = numbered_image(kind, 1, 2, 40)
        assert image.shape == (40, 40, KINDS[kind].channels)
        assert np.array_equal(image, numbered_image(kind, 1, 2, 40))

    def test_another_seed_number_or_series_is_another_image(self, kind: str) -> None:
        numbers = ((0, 0, False), (1, 0, False), (0, 1, False), (0, 0, True))
        images = [numbered_image(kind, seed, number, 40, held_out=held_out) for seed, number, held_out in numbers]
        assert len({image.tobytes() for image in images}) == 4


class TestStructures:
    @pytest.mark.parametrize("structure", STRUCTURES, ids=lambda each: each.__name__)
    def test_there_is_some_and_never_less_than_nothing(self, structure: object) -> None:
        for seed in range(3):
            canvas = structure(np.random.default_rng(seed), 96)  # type: ignore[operator]
            assert (canvas.shape, canvas.dtype) == ((96, 96), np.float32)
            assert canvas.min() >= 0
            assert 0 < canvas.max() < np.inf

    def test_a_point_source_lies_where_it_is_put(self) -> None:
        total, centre, _ = moments(deposit(np.array([[10.3, 21.9]]), np.array([2.0]), 32))
        assert total == pytest.approx(2)
        assert centre == pytest.approx([10.3, 21.9], abs=1e-5)

    def test_what_lies_beside_the_canvas_is_not_on_it(self) -> None:
        points = np.array([[-5.0, 3.0], [3.0, 99.0], [16.0, 16.0]])
        assert deposit(points, np.ones(3), 32).sum() == pytest.approx(1)

    def test_a_curve_is_as_long_as_asked_and_smooth(self) -> None:
        stiffness = 200.0
        points = curves(np.random.default_rng(0), np.zeros((50, 2)), np.zeros(50), 100.0, stiffness)
        moves = np.diff(points, axis=1)
        assert np.hypot(*moves.transpose(2, 0, 1)).sum(axis=1) == pytest.approx(100.0, rel=0.02)
        turns = np.diff(np.arctan2(moves[..., 1], moves[..., 0]), axis=1)
        assert np.abs(turns).max() < 0.3

    def test_a_stiff_curve_keeps_its_direction(self) -> None:
        ends = [
            curves(np.random.default_rng(0), np.zeros((50, 2)), np.zeros(50), 100.0, s)[:, -1, 0] for s in (20, 2000)
        ]
        assert ends[0].mean() < 50 < 90 < ends[1].mean()

    def test_an_outline_is_closed_and_goes_around_its_middle(self) -> None:
        points = outline(np.random.default_rng(0), 30.0, corners=200)
        steps = np.hypot(*(points - np.roll(points, 1, axis=0)).T)
        assert steps.max() < 3 * np.median(steps)
        assert np.hypot(*points.T) == pytest.approx(30.0, rel=0.5)


class TestOptics:
    def test_blur_keeps_the_light_and_spreads_a_point_by_its_deviation(self) -> None:
        canvas = np.zeros((64, 64), np.float32)
        canvas[32, 32] = 1
        total, _, spread = moments(blur_layer(canvas, 2.5, 30.0, 0.0))
        assert total == pytest.approx(1, abs=1e-5)
        assert np.sqrt(spread) == pytest.approx([2.5, 2.5], rel=0.01)

    def test_a_share_of_the_light_can_be_out_of_focus(self) -> None:
        canvas = np.zeros((64, 64), np.float32)
        canvas[32, 32] = 1
        sharp, hazy = (blur_layer(canvas, 1.0, 10.0, share) for share in (0.0, 0.4))
        assert hazy[32, 32] / sharp[32, 32] == pytest.approx(0.6, abs=0.01)
        assert hazy.sum() == pytest.approx(1, abs=1e-5)

    def test_light_is_positive_and_about_one_where_it_is_bright(self) -> None:
        for seed in range(12):
            light = random_light(np.random.default_rng(seed), 64)
            assert light.min() >= 0
            assert 0.1 < np.percentile(light, 99) < 10


class TestCamera:
    def test_counts_are_light_on_a_pedestal(self) -> None:
        light = np.full((300, 300), 0.8, np.float32)
        counts = CAMERA.record(light, np.random.default_rng(0))
        assert counts.dtype == np.uint16
        assert counts.mean() == pytest.approx(100 + 0.5 * 200 * 0.8, rel=0.002)

    def test_noise_is_that_of_photons_and_of_reading(self) -> None:
        counts = CAMERA.record(np.full((300, 300), 0.8, np.float32), np.random.default_rng(0))
        rounding = 1 / 12
        assert counts.var() == pytest.approx(0.5**2 * (200 * 0.8 + 3**2) + rounding, rel=0.03)

    def test_more_light_is_less_noise(self) -> None:
        light = random_light(np.random.default_rng(1), 64)
        errors = []
        for photons in (50.0, 5000.0):
            camera = replace(CAMERA, photons=photons, gain=1.0, offset=0.0)
            counts = camera.record(light, np.random.default_rng(2))
            errors.append(np.sqrt(np.mean((counts / photons - light) ** 2)))
        assert errors[1] < errors[0] / 5

    def test_fields_use_a_part_of_sixteen_bits(self) -> None:
        brightest = [np.percentile(random_field(np.random.default_rng(seed), 48), 99) for seed in range(20)]
        assert max(brightest) < 2**15
        assert min(brightest) < 2**8

    def test_for_training_white_is_where_fine_tuning_puts_it(self) -> None:
        field = random_field(np.random.default_rng(3), 64)
        unit = KINDS["microscopy"].values(field).to_unit(field)
        assert unit.min() >= 0
        assert np.percentile(unit, 99.9) == pytest.approx(1)

    def test_some_micrographs_are_smooth_and_of_eight_bits(self) -> None:
        smooth = 0
        for seed in range(40):
            picture = random_micrograph(np.random.default_rng(seed), 64)[..., 0].astype(np.float64)
            bends = np.abs(np.diff(picture, 2, axis=0)).mean() / np.ptp(picture)
            smooth += bends < 0.01 and np.percentile(picture, 99.8) <= 300
        assert 10 <= smooth <= 30


class TestTraining:
    @pytest.fixture
    def colours(self, tmp_path: Path) -> Path:
        """A network of three channels."""
        return save_model(a_network(scale=2), tmp_path / "colours.safetensors")

    def test_a_network_of_colours_begins_as_what_grey_images_get_from_it(self, colours: Path, tmp_path: Path) -> None:
        options = make_options({"images": "microscopy", "output": tmp_path / "m.safetensors", "init": str(colours)})
        network, folded = make_initial_network(options), fold_channels(load_model(colours))
        assert network.config.channels == 1
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), folded.parameters(), strict=True))

    def test_microscopy_is_a_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training_data, "validation_images", lambda samples: samples.validation(1, 32))
        options = make_options({"images": "microscopy", "output": tmp_path / "m.safetensors"})
        made = training_data.load_training_data(options, 2, 24, 1)
        assert made.description.startswith("synthetic microscopy: blobs")
        assert [side.shape for side in made.samples[0]] == [(1, 24, 24)] * 2
        assert [target.shape for _, target in made.validation] == [(1, 32, 32)]
