"""The losses of the paper against written-out references, and the feature network and where its weights come from."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.training.feature_networks import VGG19, EfficientNetLite
from napari_mgbpv2.training.features import VGG19_URL, load_feature_network
from napari_mgbpv2.training.losses import (
    PerceptualWeights,
    contextual_loss,
    cut_to_multiple,
    multiscale_l1,
    perceptual_total,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from web import FileServer, serving


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pillow_shrink(plane: Any, factor: int) -> Any:
    """S_f of one (H, W) plane, by Pillow."""
    height, width = plane.shape
    image = Image.fromarray(plane).resize((width // factor, height // factor), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64)


def reference_l1(output: Tensor, target: Tensor, factor: int) -> float:
    """Mean |S_f(Y) - S_f(X)|, plane by plane, of what 16 divides."""
    total, count = 0.0, 0
    height, width = (size - size % 16 for size in output.shape[2:])
    for image in range(output.shape[0]):
        for channel in range(output.shape[1]):
            planes = [each[image, channel, :height, :width].numpy() for each in (output, target)]
            y, x = (pillow_shrink(plane, factor) for plane in planes)
            total, count = total + np.abs(y - x).sum(), count + y.size
    return float(total / count)


def reference_contextual(generated: Tensor, target: Tensor, bandwidth: float) -> float:
    """-log CX as its paper writes it, number by number in float64."""
    losses = []
    batch, channels, height, width = target.shape
    for b in range(batch):
        mean = [float(target[:, c].double().mean()) for c in range(channels)]

        def vectors(
            maps: Tensor, b: int = b, mean: list[float] = mean, shape: tuple[int, int] = (height, width)
        ) -> list[list[float]]:
            result = []
            for row in range(shape[0]):
                for column in range(shape[1]):
                    vector = [float(maps[b, c, row, column]) - mean[c] for c in range(channels)]
                    length = math.sqrt(sum(value**2 for value in vector))
                    result.append([value / length for value in vector])
            return result

        x, y = vectors(generated), vectors(target)
        similarity = []
        for x_i in x:
            d = [max(0.0, (1 - sum(p * q for p, q in zip(x_i, y_j, strict=True))) / 2) for y_j in y]
            w = [math.exp((1 - d_ij / (min(d) + 1e-5)) / bandwidth) for d_ij in d]
            similarity.append([w_ij / sum(w) for w_ij in w])
        best = [max(similarity[i][j] for i in range(len(x))) for j in range(len(y))]
        losses.append(-math.log(sum(best) / len(best)))
    return sum(losses) / len(losses)


class TestMultiscaleL1:
    @pytest.mark.parametrize(("height", "width"), [(32, 48), (37, 61), (16, 16)])
    def test_it_is_equation_1(self, height: int, width: int) -> None:
        y, x = random(2, 3, height, width, seed=1), random(2, 3, height, width, seed=2)
        expected = sum(reference_l1(y, x, factor) for factor in (1, 2, 4, 8, 16))
        assert multiscale_l1(y, x).item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("size", [667, 767])
    def test_the_papers_patches_are_cut_to_what_16_divides(self, size: int) -> None:
        y, x = random(1, 1, size, size, seed=1), random(1, 1, size, size, seed=2)
        kept = size // 16 * 16
        assert multiscale_l1(y, x).item() == multiscale_l1(y[..., :kept, :kept], x[..., :kept, :kept]).item()

    def test_equal_images_cost_nothing(self) -> None:
        image = random(1, 3, 33, 35)
        assert multiscale_l1(image, image).item() == 0

    def test_its_gradient_is_finite_on_flat_images(self) -> None:
        flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
        multiscale_l1(flat, flat.detach()).backward()
        assert flat.grad is not None
        assert flat.grad.isfinite().all()

    def test_a_patch_without_a_single_coarse_pixel_is_refused(self) -> None:
        with pytest.raises(ImageError, match=r"15 x 40 px.*at least 16 x 16"):
            multiscale_l1(random(1, 3, 15, 40), random(1, 3, 15, 40))


class TestCut:
    @given(st.integers(16, 80), st.integers(16, 80))
    def test_the_remainder_at_the_right_and_bottom_is_left_out(self, height: int, width: int) -> None:
        image = random(1, 1, height, width)
        cut = cut_to_multiple(image, 16)
        assert cut.shape[2:] == (height - height % 16, width - width % 16)
        assert torch.equal(cut, image[..., : cut.shape[2], : cut.shape[3]])


class TestRelativisticGAN:
    def test_the_discriminator_loss_is_binary_cross_entropy_of_the_difference(self) -> None:
        real, fake = normal(8, seed=1), normal(8, seed=2)
        expected = F.binary_cross_entropy_with_logits(real - fake, torch.ones(8))
        assert relativistic_discriminator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_the_generator_loss_is_the_same_with_the_sides_exchanged(self) -> None:
        real, fake = normal(8, seed=1), normal(8, seed=2)
        assert relativistic_generator_loss(real, fake) == relativistic_discriminator_loss(fake, real)

    def test_equal_scores_cost_log_2(self) -> None:
        scores = normal(5)
        assert relativistic_discriminator_loss(scores, scores).item() == pytest.approx(math.log(2))

    def test_pairs_are_made_by_index(self) -> None:
        real, fake = torch.tensor([0.0, 10.0]), torch.tensor([0.0, 10.0])
        matched = relativistic_discriminator_loss(real, fake)
        assert matched < relativistic_discriminator_loss(real, fake.flip(0))

    @pytest.mark.parametrize("distance", [-1e4, 1e4])
    def test_far_apart_scores_give_finite_losses_and_gradients(self, distance: float) -> None:
        real = torch.tensor([distance], requires_grad=True)
        loss = relativistic_discriminator_loss(real, torch.zeros(1))
        loss.backward()
        assert real.grad is not None
        assert loss.isfinite()
        assert real.grad.isfinite().all()


class TestContextualLoss:
    @pytest.mark.parametrize("bandwidth", [0.1, 0.5, 1.0])
    def test_it_is_the_formula_of_its_paper(self, bandwidth: float) -> None:
        x, y = normal(2, 5, 3, 4, seed=1), normal(2, 5, 3, 4, seed=2) + 1
        expected = reference_contextual(x, y, bandwidth)
        assert contextual_loss(x, y, bandwidth=bandwidth).item() == pytest.approx(expected, rel=1e-4)

    def test_distinct_features_match_themselves_at_no_cost(self) -> None:
        x = normal(2, 32, 9, 7)
        assert contextual_loss(x, x).item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(("generated", "target"), [(0.0, 0.0), (0.3, 0.3), (0.1, 0.7), (1e3, 1e-3)])
    def test_flat_features_cost_log_n(self, generated: float, target: float) -> None:
        x, y = torch.full((2, 16, 6, 7), generated), torch.full((2, 16, 6, 7), target)
        assert contextual_loss(x, y).item() == pytest.approx(math.log(6 * 7), rel=1e-5)

    @pytest.mark.parametrize(("generated", "target"), [(0.0, 0.0), (0.3, 0.3), (0.1, 0.7)])
    def test_flat_features_move_nothing(self, generated: float, target: float) -> None:
        x = torch.full((1, 16, 6, 7), generated, requires_grad=True)
        contextual_loss(x, torch.full((1, 16, 6, 7), target)).backward()
        assert x.grad is not None
        assert x.grad.abs().max() < 1e-6

    def test_gradients_are_finite_where_only_the_output_is_flat(self) -> None:
        target = normal(1, 16, 6, 7)
        x = torch.zeros_like(target) + target.mean(dim=(0, 2, 3), keepdim=True)
        x.requires_grad_(True)
        contextual_loss(x, target).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_gradients_are_finite_at_the_target_itself(self) -> None:
        x = normal(1, 16, 6, 7).requires_grad_(True)
        contextual_loss(x, x.detach()).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]), st.sampled_from([0.0, 1.0, 100.0]))
    def test_it_lies_between_0_and_log_n(self, seed: int, spread: float, level: float) -> None:
        x, y = (spread * (normal(1, 4, 3, 5, seed=seed + k) + level) for k in range(2))
        assert -1e-6 <= contextual_loss(x, y).item() <= math.log(15) + 1e-5

    @pytest.mark.parametrize("shuffled", ["generated", "target"])
    def test_where_a_feature_lies_makes_no_difference(self, shuffled: str) -> None:
        maps = {"generated": normal(1, 8, 5, 6, seed=1), "target": normal(1, 8, 5, 6, seed=2)}
        order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
        before = contextual_loss(**maps).item()
        maps[shuffled] = maps[shuffled].flatten(2)[..., order].reshape(1, 8, 5, 6)
        assert contextual_loss(**maps).item() == pytest.approx(before, rel=1e-5)

    def test_the_order_of_the_images_makes_no_difference(self) -> None:
        x, y = normal(3, 8, 4, 4, seed=1), normal(3, 8, 4, 4, seed=2)
        assert contextual_loss(x.flip(0), y.flip(0)).item() == pytest.approx(contextual_loss(x, y).item(), rel=1e-5)

    def test_the_same_places_of_both_are_sampled(self) -> None:
        x = normal(2, 32, 20, 20)
        assert contextual_loss(x, x, positions=50).item() == pytest.approx(0, abs=1e-6)

    def test_as_many_places_as_asked_for_are_sampled(self) -> None:
        flat = torch.zeros(1, 4, 20, 20)
        assert contextual_loss(flat, flat, positions=50).item() == pytest.approx(math.log(50), rel=1e-5)

    def test_by_default_4225_places_are_sampled(self) -> None:
        flat = torch.zeros(1, 1, 66, 66)
        assert contextual_loss(flat, flat).item() == pytest.approx(math.log(4225), rel=1e-5)

    def test_a_generator_decides_the_places(self) -> None:
        x, y = normal(1, 8, 20, 20, seed=1), normal(1, 8, 20, 20, seed=2)
        losses = [
            contextual_loss(x, y, positions=50, generator=torch.Generator().manual_seed(seed)).item()
            for seed in (1, 1, 2)
        ]
        assert losses[0] == losses[1] != losses[2]

    def test_it_is_computed_in_float32_under_autocast(self) -> None:
        x, y = normal(1, 8, 6, 6, seed=1).requires_grad_(True), normal(1, 8, 6, 6, seed=2)
        expected = contextual_loss(x, y)
        (gradient,) = torch.autograd.grad(expected, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = contextual_loss(x, y)
        (found,) = torch.autograd.grad(loss, x)
        assert loss.dtype == torch.float32
        assert loss == expected
        assert torch.equal(found, gradient)


class TestPerceptualTotal:
    def terms(self, size: tuple[int, int] = (32, 48)) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(random(2, 3, *size, seed=seed) for seed in range(3))  # type: ignore[return-value]

    @staticmethod
    def score(image: Tensor) -> Tensor:
        return 7 * image.square().mean(dim=(1, 2, 3))

    @staticmethod
    def look(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 8).repeat(1, 2, 1, 1) * torch.arange(6.0).reshape(-1, 1, 1)

    @pytest.mark.parametrize("size", [(32, 48), (39, 63)])
    def test_it_is_equation_3(self, size: tuple[int, int]) -> None:
        sharp, noisy, target = self.terms(size)
        total, _ = perceptual_total(sharp, noisy, target, discriminator=self.score, features=self.look)
        kept, kept_target = noisy[..., :32, :48], target[..., :32, :48]
        gaps = (self.score(kept) - self.score(kept_target)).tolist()
        adversarial = sum(-math.log(1 / (1 + math.exp(-gap))) for gap in gaps) / len(gaps)
        expected = (
            0.001 * adversarial
            + 0.1 * reference_contextual(self.look(kept), self.look(kept_target), 0.5)
            + 10 * reference_l1(sharp, target, 1)
            + 10 * reference_l1(sharp, target, 16)
            + 10 * reference_l1(noisy, target, 16)
        )
        assert total.item() == pytest.approx(expected, rel=1e-5)

    def test_the_total_is_the_weighted_sum_of_the_parts(self) -> None:
        weights = PerceptualWeights(adversarial=1, contextual=2, sharp=3, coarse=4, coarse_noisy=5)
        total, parts = perceptual_total(*self.terms(), discriminator=self.score, features=self.look, weights=weights)
        assert set(parts) == set(vars(weights))
        assert not any(part.requires_grad for part in parts.values())
        assert total.item() == pytest.approx(sum(vars(weights)[name] * part.item() for name, part in parts.items()))

    def test_without_features_the_contextual_term_is_left_out(self) -> None:
        images = self.terms()
        total, parts = perceptual_total(*images, discriminator=self.score, features=None)
        whole, all_parts = perceptual_total(*images, discriminator=self.score, features=self.look)
        assert "contextual" not in parts
        assert (whole - total).item() == pytest.approx(0.1 * all_parts["contextual"].item(), rel=1e-4)

    def test_gradients_reach_both_outputs_and_not_the_target(self) -> None:
        sharp, noisy, target = (image.requires_grad_(True) for image in self.terms())
        perceptual_total(sharp, noisy, target.detach(), discriminator=self.score, features=self.look)[0].backward()
        assert sharp.grad is not None
        assert noisy.grad is not None
        assert target.grad is None

    def test_real_images_do_not_move_the_discriminators_weights(self) -> None:
        weight = torch.ones(1, requires_grad=True)
        noisy = torch.zeros(1, 3, 16, 16)
        total, _ = perceptual_total(
            noisy, noisy, random(1, 3, 16, 16), discriminator=lambda image: weight * self.score(image), features=None
        )
        total.backward()
        assert weight.grad is not None
        assert weight.grad.item() == 0

    def test_it_takes_the_papers_patches(self) -> None:
        patches = [random(1, 3, 767, 767, seed=seed) for seed in range(3)]
        torch.manual_seed(0)
        eye = nn.Conv2d(3, 8, 5, stride=8)
        total, _ = perceptual_total(
            patches[0], patches[1], patches[2], discriminator=self.score, features=eye, positions=100
        )
        assert total.isfinite()

    def test_gradients_are_finite_on_flat_images(self) -> None:
        flat = torch.full((1, 3, 32, 32), 0.5)
        sharp, noisy = (flat.clone().requires_grad_(True) for _ in range(2))
        total, _ = perceptual_total(sharp, noisy, flat, discriminator=self.score, features=a_vgg())
        total.backward()
        for image in (sharp, noisy):
            assert image.grad is not None
            assert image.grad.isfinite().all()


def a_vgg(seed: int = 0) -> VGG19:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VGG19()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return dict(a_vgg(seed=1).state_dict())


class TestFeatureNetwork:
    def test_it_is_the_first_18_layers_of_vgg19(self, weights: dict[str, Tensor]) -> None:
        network = VGG19()
        network.load_state_dict(weights)
        image = random(2, 3, 21, 18)
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        x = torch.stack([(image[:, k] - mean[k]) / deviation[k] for k in range(3)], dim=1)
        for layers in ((0, 2), (5, 7), (10, 12, 14, 16)):
            for layer in layers:
                x = F.conv2d(x, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], padding=1)
                x = x.clamp_min(0)
            if layers[-1] != 16:
                x = F.max_pool2d(x, 2)
        assert x.shape == (2, 256, 5, 4)
        torch.testing.assert_close(network(image), x, rtol=1e-4, atol=1e-6)

    def test_a_grey_image_is_seen_as_three_equal_channels(self) -> None:
        network, grey = a_vgg(), random(1, 1, 16, 16)
        torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))

    def test_average_pooling_is_a_choice(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(weights, tmp_path / "vgg.pth")
        image = random(1, 3, 16, 16)
        by_max, by_average = (load_feature_network(tmp_path / "vgg.pth", pooling=p)(image) for p in ("max", "average"))
        assert by_max.shape == by_average.shape
        assert not torch.allclose(by_max, by_average)

    def test_it_is_frozen_and_lets_gradients_through(self) -> None:
        network, image = a_vgg(), random(1, 3, 16, 16).requires_grad_(True)
        network(image).sum().backward()
        assert not network.training
        assert all(parameter.grad is None for parameter in network.parameters())
        assert image.grad is not None

    def test_two_channels_are_refused(self) -> None:
        with pytest.raises(ImageError, match="1 or 3 channels, not 2"):
            a_vgg()(random(1, 2, 16, 16))

    def test_an_image_that_pools_to_nothing_is_refused(self) -> None:
        with pytest.raises(ImageError, match="3 x 9 px"):
            a_vgg()(random(1, 3, 3, 9))


class TestLightFeatureNetwork:
    """EfficientNet-Lite0, layer by layer as its authors describe it."""

    @pytest.fixture
    def network(self) -> EfficientNetLite:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = EfficientNetLite()
            for buffer in network.buffers():  # means and variances that matter
                if buffer.dtype.is_floating_point:
                    buffer.uniform_(0.5, 1.5)
        return network

    def test_it_is_a_stem_and_three_inverted_residuals_and_an_expansion(self, network: EfficientNetLite) -> None:
        w = dict(network.state_dict())

        def normed(x: Tensor, name: str) -> Tensor:
            mean, variance, scale, shift = (
                w[f"{name}.{each}"].reshape(-1, 1, 1) for each in ("running_mean", "running_var", "weight", "bias")
            )
            return (x - mean) / torch.sqrt(variance + 1e-3) * scale + shift

        image = random(2, 3, 32, 24)
        x = F.pad((image * 255 - 127) / 128, (0, 1, 0, 1))  # "same": all that is missing at the end
        x = normed(F.conv2d(x, w["_conv_stem.weight"], stride=2), "_bn0").clamp(0, 6)
        for block, stride in ((0, 1), (1, 2), (2, 1)):
            name, incoming = f"_blocks.{block}", x
            if block:
                x = normed(F.conv2d(x, w[f"{name}._expand_conv.weight"]), f"{name}._bn0").clamp(0, 6)
            x = F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
            filters = w[f"{name}._depthwise_conv.weight"]
            x = normed(F.conv2d(x, filters, stride=stride, groups=len(filters)), f"{name}._bn1").clamp(0, 6)
            x = normed(F.conv2d(x, w[f"{name}._project_conv.weight"]), f"{name}._bn2")
            x = x + incoming if block == 2 else x
        x = normed(F.conv2d(x, w["_blocks.3._expand_conv.weight"]), "_blocks.3._bn0").clamp(0, 6)
        assert x.shape == (2, 144, 8, 6)
        torch.testing.assert_close(network(image), x, rtol=1e-4, atol=1e-5)

    def test_what_four_does_not_divide_is_left_out(self, network: EfficientNetLite) -> None:
        image = random(1, 3, 35, 26)
        torch.testing.assert_close(network(image), network(image[..., :32, :24]))

    def test_a_grey_image_is_seen_as_three_equal_channels(self, network: EfficientNetLite) -> None:
        grey = random(1, 1, 16, 16)
        torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))

    def test_its_file_is_told_by_its_tensors(self, network: EfficientNetLite, tmp_path: Path) -> None:
        torch.save({**network.state_dict(), "_fc.bias": torch.zeros(1000)}, tmp_path / "light.pth")
        read = load_feature_network(tmp_path / "light.pth")
        image = random(1, 3, 16, 16)
        torch.testing.assert_close(read(image), network(image), rtol=0, atol=0)


class TestFeatureFiles:
    @pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
    def test_a_file_of_the_needed_layers_is_read(self, name: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
        (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
        read = load_feature_network(str(tmp_path / name)).state_dict()
        assert all(torch.equal(read[key], weights[key]) for key in weights)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_file_of_a_whole_vgg19_is_read(self, legacy: bool, weights: dict[str, Tensor], tmp_path: Path) -> None:
        whole = weights | {"features.19.weight": torch.zeros(512, 256, 3, 3), "classifier.6.bias": torch.zeros(1000)}
        torch.save(whole, tmp_path / "vgg19.pth", _use_new_zipfile_serialization=not legacy)
        assert torch.equal(
            load_feature_network(tmp_path / "vgg19.pth").state_dict()["features.16.bias"], weights["features.16.bias"]
        )

    def refused(self, path: Path, match: str) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            load_feature_network(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_says_how_to_go_on(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.pth", "no such file.*--feature-network FILE.*--feature-network none")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "is not a file")

    def test_a_file_without_one_of_the_tensors_is_refused(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save({key: each for key, each in weights.items() if key != "features.7.bias"}, tmp_path / "vgg.pth")
        self.refused(tmp_path / "vgg.pth", r"misses the tensor 'features\.7\.bias'")

    def test_a_tensor_of_another_shape_is_refused(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(weights | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "vgg.pth")
        self.refused(tmp_path / "vgg.pth", r"'features\.0\.weight' has shape \(64, 1, 3, 3\), not \(64, 3, 3, 3\)")

    def test_a_tensor_that_is_not_finite_is_refused(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(weights | {"features.0.bias": torch.full((64,), math.nan)}, tmp_path / "vgg.pth")
        self.refused(tmp_path / "vgg.pth", r"'features\.0\.bias' holds NaN")

    def test_a_file_that_could_run_code_is_refused_and_does_not(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "harm"),)

        torch.save({"features.0.weight": Evil()}, tmp_path / "vgg.pth")
        self.refused(tmp_path / "vgg.pth", "could run code")
        assert not (tmp_path / "harm").exists()

    def test_something_else_than_a_state_dict_is_refused(self, tmp_path: Path) -> None:
        torch.save([torch.zeros(3)], tmp_path / "vgg.pth")
        self.refused(tmp_path / "vgg.pth", "holds a list, not a state dict")

    @pytest.mark.parametrize("content", [b"", b"<html>not here</html>", pickle.dumps(3, protocol=2)])
    def test_a_file_of_another_kind_is_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "vgg.pth").write_bytes(content)
        self.refused(tmp_path / "vgg.pth", "vgg.pth: (is not a complete model file|holds a int)")

    @pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
    def test_a_truncated_file_is_refused(self, name: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
        (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100_000])
        self.refused(tmp_path / name, "is not a complete model file")


def url_of(server: FileServer) -> str:
    """Where the file is, under the name that its hash demands."""
    digest = hashlib.sha256(server.content).hexdigest()
    return f"{server.address}/models/vgg19-{digest[:8]}.pth"


class TestDownload:
    @pytest.fixture
    def server(
        self, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[FileServer]:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        torch.save(weights, tmp_path / "published.pth")
        with serving((tmp_path / "published.pth").read_bytes()) as server:
            yield server

    def refused(self, url: str, cache: Path, match: str) -> None:
        """One clear line that says how to go on, and nothing in the cache."""
        with pytest.raises(ModelError, match=match) as caught:
            load_feature_network(url=url, cache=cache)
        assert "--feature-network FILE" in str(caught.value)
        assert "--feature-network none" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not cache.exists() or list(cache.iterdir()) == []

    def test_the_published_file_is_downloaded_once(
        self, server: FileServer, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        networks = [load_feature_network(url=url_of(server), cache=tmp_path / "cache") for _ in range(2)]
        assert len(server.requests) == 1
        assert all(torch.equal(net.state_dict()["features.0.weight"], weights["features.0.weight"]) for net in networks)

    def test_it_is_kept_in_the_users_cache_folder(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
        load_feature_network(url=url_of(server))
        assert [file.name for file in (tmp_path / "napari-mgbpv2").iterdir()] == [Path(url_of(server)).name]

    def test_a_file_with_another_hash_is_refused(self, server: FileServer, tmp_path: Path) -> None:
        url = url_of(server)
        server.content = server.content[:-1] + b"!"
        self.refused(url, tmp_path / "cache", "not the published file: its SHA-256 begins with")

    def test_a_file_that_is_not_there_is_refused(self, server: FileServer, tmp_path: Path) -> None:
        server.status = 404
        self.refused(url_of(server), tmp_path / "cache", "could not be downloaded.*404")

    def test_a_download_that_ends_early_is_an_error_and_goes_on_the_next_time(
        self, server: FileServer, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        server.broken, server.most_bytes, server.ranges = 2, 1_000_000, False  # twice no further than that
        with pytest.raises(ModelError, match=r"could not be downloaded.*--feature-network FILE"):
            load_feature_network(url=url_of(server), cache=tmp_path)
        assert not list(tmp_path.glob("vgg*"))
        server.ranges = True
        state = load_feature_network(url=url_of(server), cache=tmp_path).state_dict()
        assert torch.equal(state["features.0.weight"], weights["features.0.weight"])
        start = (1_000_000 >> 16) << 16  # whole pieces
        assert server.requests == [None, f"bytes={start}-", f"bytes={start}-"]

    def test_a_server_that_is_not_there_is_refused(self, server: FileServer, tmp_path: Path) -> None:
        url = url_of(server)
        server.http.socket.close()
        self.refused(url, tmp_path / "cache", "could not be downloaded")

    def test_a_cache_that_cannot_be_written_is_refused(self, server: FileServer, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ModelError, match=r"could not be downloaded.*--feature-network none"):
            load_feature_network(url=url_of(server), cache=tmp_path / "file" / "cache")

    def test_an_address_without_hash_is_refused(self, tmp_path: Path) -> None:
        self.refused("http://127.0.0.1:1/vgg19.pth", tmp_path / "cache", "first digits of its SHA-256")

    def test_the_default_address_is_torchvisions(self) -> None:
        assert VGG19_URL == "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
