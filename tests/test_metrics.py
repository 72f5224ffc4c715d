"""PSNR, SSIM, luma, RMSE and NIQE: known values, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image, ImageFilter
from skimage.metrics import structural_similarity

import napari_mgbpv2.metrics.niqe as niqe_module
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.metrics.niqe import PristineModel, niqe
from napari_mgbpv2.metrics.scores import luma, niqe_over_scales, psnr, rmse_y, ssim

Array = npt.NDArray[Any]

GOLDENS = json.loads((Path(__file__).parent / "data" / "niqe_scores.json").read_text())


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape)


def photograph(name: str) -> Array:
    """(C, H, W) in [0, 1] of an image that scikit-image ships."""
    image = np.atleast_3d(getattr(skimage.data, name)())
    return np.moveaxis(image, 2, 0) / 255


class TestPSNR:
    def test_a_tenth_of_the_range_is_20_db(self) -> None:
        assert psnr(np.full((1, 3, 8, 8), 0.6), np.full((1, 3, 8, 8), 0.5)) == pytest.approx(20)

    def test_equal_images_are_infinitely_good(self) -> None:
        assert psnr(random(3, 8, 8), random(3, 8, 8)) == math.inf

    def test_errors_are_averaged_before_the_logarithm(self) -> None:
        target = np.zeros((2, 1, 8, 8))
        output = np.stack([np.full((1, 8, 8), 0.1), np.full((1, 8, 8), 0.3)])
        assert psnr(output, target) == pytest.approx(-10 * math.log10((0.01 + 0.09) / 2))

    def test_tensors_and_arrays_score_alike(self) -> None:
        y, x = random(2, 3, 8, 8, seed=1), random(2, 3, 8, 8, seed=2)
        assert psnr(torch.from_numpy(y).requires_grad_(True), x) == psnr(y, x)

    def test_different_shapes_are_refused(self) -> None:
        with pytest.raises(ImageError, match=r"differ in shape: \(3, 8, 8\) and \(1, 8, 8\)"):
            psnr(random(3, 8, 8), random(1, 8, 8))


class TestSSIM:
    def test_equal_images_score_1(self) -> None:
        assert ssim(random(2, 3, 16, 16), random(2, 3, 16, 16)) == pytest.approx(1)

    def test_it_is_the_mean_over_channels_and_images(self) -> None:
        y, x = random(2, 3, 20, 24, seed=1), random(2, 3, 20, 24, seed=2)
        expected = [
            structural_similarity(
                y[b], x[b], channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for b in range(2)
        ]
        assert ssim(y, x) == pytest.approx(np.mean(expected))

    def test_it_takes_a_single_image_and_a_single_channel(self) -> None:
        assert -1 < ssim(random(1, 16, 16, seed=1), random(1, 16, 16, seed=2)) < 1

    def test_an_image_smaller_than_the_window_is_refused(self) -> None:
        with pytest.raises(ImageError, match="10 x 30 px; SSIM needs at least 11 x 11"):
            ssim(random(1, 10, 30), random(1, 10, 30))


class TestLuma:
    @pytest.mark.parametrize(
        ("colour", "expected"),
        [((0, 0, 0), 16), ((1, 1, 1), 235), ((1, 0, 0), 81), ((0, 1, 0), 145), ((0, 0, 1), 41)],
    )
    def test_it_is_that_of_bt_601(self, colour: tuple[float, ...], expected: int) -> None:
        image = np.broadcast_to(np.reshape(colour, (3, 1, 1)), (3, 2, 2))
        assert np.array_equal(luma(image), np.full((2, 2), expected, np.uint8))

    def test_a_grey_image_is_taken_as_it_is(self) -> None:
        grey = np.arange(256).reshape(1, 16, 16)
        assert np.array_equal(luma(grey / 255), grey[0])

    def test_values_beyond_the_range_are_clipped(self) -> None:
        assert luma(np.array([-1.0, 2.0]).reshape(1, 1, 2)).tolist() == [[0, 255]]

    def test_a_batch_keeps_its_first_axis(self) -> None:
        batch = random(2, 3, 4, 5)
        assert np.array_equal(luma(torch.from_numpy(batch)), np.stack([luma(image) for image in batch]))

    @pytest.mark.parametrize("shape", [(2, 8, 8), (8, 8)])
    def test_other_channels_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ImageError, match="1 or 3 channels"):
            luma(random(*shape))


class TestRMSE:
    def test_it_is_in_grey_levels(self) -> None:
        assert rmse_y([np.full((1, 16, 16), 10 / 255)], [np.zeros((1, 16, 16))]) == pytest.approx(10)

    def test_squared_errors_are_averaged_over_images(self) -> None:
        outputs = [np.full((1, 16, 16), 3 / 255), np.full((1, 20, 24), 4 / 255)]
        targets = [np.zeros((1, 16, 16)), np.zeros((1, 20, 24))]
        assert rmse_y(outputs, targets) == pytest.approx(math.sqrt((9 + 16) / 2))

    def test_a_border_of_four_pixels_is_not_scored(self) -> None:
        output = np.ones((1, 16, 16))
        output[:, 4:-4, 4:-4] = 0
        assert rmse_y([output], [np.zeros((1, 16, 16))]) == 0

    def test_a_batch_is_its_images(self) -> None:
        y, x = random(3, 3, 16, 16, seed=1), random(3, 3, 16, 16, seed=2)
        assert rmse_y(torch.from_numpy(y), torch.from_numpy(x)) == rmse_y(list(y), list(x))

    def test_an_image_that_is_all_border_is_refused(self) -> None:
        with pytest.raises(ImageError, match="8 x 20 px"):
            rmse_y([random(1, 8, 20)], [random(1, 8, 20)])

    def test_no_image_is_refused(self) -> None:
        with pytest.raises(ImageError, match="no image"):
            rmse_y([], [])


class TestNIQE:
    @pytest.mark.parametrize("name", sorted(GOLDENS))
    def test_it_gives_the_reference_scores(self, name: str) -> None:
        assert niqe(luma(photograph(name))) == pytest.approx(GOLDENS[name]["niqe"], abs=1e-3)

    def test_the_remainder_beyond_whole_blocks_is_not_scored(self) -> None:
        image = luma(photograph("camera"))
        assert niqe(image) == niqe(image[:480, :480])

    def test_the_type_of_the_numbers_makes_no_difference(self) -> None:
        image = luma(photograph("camera"))
        assert niqe(image) == niqe(image.astype(np.float32))

    def test_a_blurred_photograph_is_worse(self) -> None:
        image = luma(photograph("camera"))
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))
        assert niqe(blurred) > niqe(image) + 1

    def test_flat_blocks_beside_others_leave_a_score(self) -> None:
        image = luma(photograph("camera"))
        image[:200, :200] = 255
        assert 0 < niqe(image) < 100

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_a_flat_image_has_no_score(self, level: int) -> None:
        assert math.isnan(niqe(np.full((200, 300), level, np.uint8)))

    @pytest.mark.parametrize("shape", [(191, 191), (95, 1000), (96, 191)])
    def test_an_image_of_fewer_than_two_blocks_is_refused(self, shape: tuple[int, int]) -> None:
        with pytest.raises(ImageError, match=rf"{shape[0]} x {shape[1]} px; NIQE needs at least 2 blocks of 96 x 96"):
            niqe(random(*shape))

    def test_an_image_with_channels_is_refused(self) -> None:
        with pytest.raises(ImageError, match="two dimensions"):
            niqe(random(3, 200, 200))


class TestPristineModel:
    def test_the_official_one_is_read_once(self) -> None:
        assert PristineModel.official() is PristineModel.official()

    def test_the_official_one_comes_with_its_notice(self) -> None:
        notice = Path(niqe_module.__file__).with_name("niqe_pristine.NOTICE.txt").read_text()
        assert "Copyright (c) 2011 The University of Texas at Austin" in notice
        assert "A. Mittal, R. Soundararajan, A. C. Bovik, NIQE Software Release, 2012" in notice

    def test_saving_and_loading_changes_nothing(self, tmp_path: Path) -> None:
        model = PristineModel.fit([luma(photograph("camera"))])
        loaded = PristineModel.load(model.save(tmp_path / "own.npz"))
        assert np.array_equal(loaded.mean, model.mean)
        assert np.array_equal(loaded.covariance, model.covariance)
        assert [file.name for file in tmp_path.iterdir()] == ["own.npz"]

    def test_images_are_nearer_to_their_own_model_than_to_that_of_photographs(self) -> None:
        image = luma(photograph("brick"))
        assert niqe(image, PristineModel.fit([image])) < 0.5 * niqe(image)

    def test_the_order_of_the_images_makes_no_difference(self) -> None:
        images = [luma(photograph(name)) for name in ("camera", "chelsea")]
        one, other = PristineModel.fit(images), PristineModel.fit(images[::-1])
        np.testing.assert_allclose(one.covariance, other.covariance)

    def test_only_the_sharp_blocks_of_an_image_count(self) -> None:
        sharp = 255 * random(192, 384)
        soft = np.vstack([sharp, 100 + 0.2 * sharp])  # the same again below, of a fifth of the contrast
        half = np.vstack([sharp, 255 * random(192, 384, seed=1)])
        counted = [self.blocks_that_count([image]) for image in (soft, half)]
        assert counted == [8, 16]

    def blocks_that_count(self, images: list[Array]) -> int:
        taken = []
        original = niqe_module._normal_distribution

        def remember(features: Array) -> Any:
            taken.append(len(features))
            return original(features)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(niqe_module, "_normal_distribution", remember)
            PristineModel.fit(images)
        return taken[0]

    @pytest.mark.parametrize("images", [[], [np.full((96, 192), 7)], [random(96, 96)]])
    def test_too_few_blocks_are_refused(self, images: list[Array]) -> None:
        with pytest.raises(ImageError, match="at least two blocks of 96 x 96 px that are not flat"):
            PristineModel.fit(images)

    def test_an_image_smaller_than_a_block_is_refused(self) -> None:
        with pytest.raises(ImageError, match="95 x 300 px; NIQE needs at least 1 block of"):
            PristineModel.fit([random(95, 300)])

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00"], ids=repr)
    def test_a_file_of_another_kind_is_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(ModelError, match=r"own\.npz: is not a pristine model"):
            PristineModel.load(tmp_path / "own.npz")

    @pytest.mark.parametrize(
        ("arrays", "match"),
        [
            ({"mu": np.zeros(36)}, "is not a pristine model"),
            ({"mu": np.zeros(35), "cov": np.eye(36)}, "not of"),
            ({"mu": np.full(36, np.nan), "cov": np.eye(36)}, "holds NaN"),
            ({"mu": np.array([{}] * 36), "cov": np.eye(36)}, "is not a pristine model"),
        ],
    )
    def test_other_arrays_are_refused(self, arrays: dict[str, Array], match: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "own.npz", **arrays)
        with pytest.raises(ModelError, match=match):
            PristineModel.load(tmp_path / "own.npz")

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be read"):
            PristineModel.load(tmp_path / "none.npz")

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be written"):
            PristineModel.official().save(tmp_path / "none" / "own.npz")


class TestNIQEOverScales:
    def test_it_is_equation_6(self) -> None:
        images = torch.from_numpy(np.stack([photograph("hubble_deep_field")[:, :768, :770]] * 2))
        images[1] = images[1].flip(1)
        kept = images[..., :768, :768]
        scores = [
            sum(niqe(luma(shrink(kept[index : index + 1], factor))[0]) for factor in (1, 2, 4)) for index in range(2)
        ]
        assert scores[0] != scores[1]
        assert niqe_over_scales(images) == pytest.approx(np.mean(scores))

    def test_images_whose_quarter_is_too_small_are_refused(self) -> None:
        with pytest.raises(ImageError, match="191 x 191 px; NIQE"):
            niqe_over_scales(random(1, 1, 764, 764))
