"""The discriminator of Fig. 4: its shape, what it sees, and gradients that stay finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.training.discriminator import Discriminator, ShiftCorrelations
from napari_mgbpv2.training.losses import relativistic_discriminator_loss, relativistic_generator_loss

THIN = (4, 5, 6, 7)


def a_discriminator(seed: int = 0, **options: Any) -> Discriminator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Discriminator(**({"features": THIN} | options))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def parameters_of(discriminator: Discriminator) -> int:
    return sum(parameter.numel() for parameter in discriminator.parameters())


class TestDiscriminator:
    def test_with_three_channels_and_statistics_it_has_2_819_137_parameters(self) -> None:
        assert parameters_of(Discriminator()) == 2_819_137

    def test_its_state_is_its_parameters(self) -> None:
        discriminator = Discriminator()
        assert sum(tensor.numel() for tensor in discriminator.state_dict().values()) == 2_819_137

    def test_without_statistics_only_the_first_layers_are_smaller(self) -> None:
        narrower = sum(15 * 9 * features for features in (32, 64, 128, 256))
        assert parameters_of(Discriminator(statistics=False)) == 2_819_137 - narrower

    @pytest.mark.parametrize("channels", [1, 3, 5])
    @pytest.mark.parametrize("statistics", [True, False])
    def test_it_gives_one_score_an_image(self, channels: int, statistics: bool) -> None:
        discriminator = a_discriminator(channels=channels, statistics=statistics)
        assert discriminator(random(3, channels, 32, 48)).shape == (3,)

    @pytest.mark.parametrize("size", [(33, 47), (47, 33), (16, 31)])
    def test_the_remainder_that_16_does_not_divide_is_not_seen(self, size: tuple[int, int]) -> None:
        discriminator, image = a_discriminator(), random(1, 3, *size)
        height, width = (length // 16 * 16 for length in size)
        assert torch.equal(discriminator(image), discriminator(image[..., :height, :width]))

    @pytest.mark.parametrize("size", [667, 767])
    def test_it_takes_the_papers_patches(self, size: int) -> None:
        with torch.no_grad():
            assert a_discriminator(features=(2, 2, 2, 2))(random(1, 3, size, size)).isfinite().all()

    def test_an_image_below_16_pixels_is_refused(self) -> None:
        with pytest.raises(ImageError, match=r"15 x 64 px.*16 x 16"):
            a_discriminator()(random(1, 3, 15, 64))

    def test_images_of_a_batch_do_not_see_one_another(self) -> None:
        discriminator, images = a_discriminator(), random(4, 3, 32, 32)
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(discriminator(images[order]), discriminator(images)[order])

    def test_every_level_sees_its_own_size_and_what_the_level_above_found(self) -> None:
        discriminator, image = a_discriminator(), random(1, 3, 48, 32)
        front, (top, second, third, lowest) = ShiftCorrelations(), discriminator.modules_by_level
        found = top(front(image))
        found = second(torch.cat([front(shrink(image, 2)), found], 1))
        found = third(torch.cat([front(shrink(image, 4)), found], 1))
        found = lowest(torch.cat([front(shrink(image, 8)), found], 1))
        assert found.shape == (1, 7, 3, 2)
        torch.testing.assert_close(discriminator(image), discriminator.last(found).mean(dim=(1, 2, 3)))

    def test_a_module_is_four_convolutions_the_last_with_stride_2(self) -> None:
        for module in a_discriminator().modules_by_level:
            layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
            assert [layer.stride for layer in layers] == [(1, 1), (1, 1), (1, 1), (2, 2)]
            assert all(layer.kernel_size == (3, 3) for layer in layers)

    def test_no_parameters_are_shared(self) -> None:
        modules = a_discriminator(features=(4, 4, 4, 4)).modules_by_level
        addresses = [parameter.data_ptr() for module in modules for parameter in module.parameters()]
        assert len(addresses) == len(set(addresses)) == 4 * 8

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_gradients_are_finite_on_flat_images(self, level: float) -> None:
        discriminator = a_discriminator()
        image = torch.full((2, 3, 32, 32), level, requires_grad=True)
        discriminator(image).sum().backward()
        gradients = [image.grad, *(parameter.grad for parameter in discriminator.parameters())]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)

    def test_with_spectral_norm_no_convolution_amplifies_more_than_once(self) -> None:
        discriminator = a_discriminator(spectral_norm=True)
        for _ in range(100):  # each pass in training refines the estimate of the largest singular value
            discriminator(random(1, 3, 16, 16))
        for layer in discriminator.modules():
            if isinstance(layer, torch.nn.Conv2d):
                assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)

    def test_it_learns_to_tell_coloured_noise_from_grey(self) -> None:
        discriminator = a_discriminator()
        optimiser = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
        losses = []
        for step in range(40):
            real, fake = random(4, 3, 32, 32, seed=step), random(4, 3, 32, 32, seed=step).mean(1, keepdim=True)
            loss = relativistic_discriminator_loss(discriminator(real), discriminator(fake.repeat(1, 3, 1, 1)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(math.log(2), abs=0.1)
        assert losses[-1] < 0.5 * losses[0]

    def test_the_generator_gets_a_gradient_through_it(self) -> None:
        discriminator = a_discriminator().requires_grad_(False)
        fake = random(2, 3, 32, 32).requires_grad_(True)
        relativistic_generator_loss(discriminator(random(2, 3, 32, 32, seed=1)), discriminator(fake)).backward()
        assert fake.grad is not None
        assert bool((fake.grad != 0).any())


class TestShiftCorrelations:
    def test_it_is_its_formula(self) -> None:
        image = random(1, 1, 9, 11)
        out = ShiftCorrelations()(image)[0].double()
        x = image[0, 0].double()
        height, width = x.shape
        weights = [math.exp(-(k**2) / (2 * (7 / 6) ** 2)) for k in range(-3, 4)]

        def blurred(values: Tensor, row: int, column: int) -> float:
            total = 0.0
            for k in range(-3, 4):
                for m in range(-3, 4):
                    inside = min(max(row + k, 0), height - 1), min(max(column + m, 0), width - 1)
                    total += weights[k + 3] * weights[m + 3] * float(values[inside])
            return total / sum(weights) ** 2

        n = torch.zeros(height, width, dtype=torch.float64)
        for row in range(height):
            for column in range(width):
                mean = blurred(x, row, column)
                variance = max(0.0, blurred(x**2, row, column) - mean**2)
                n[row, column] = (float(x[row, column]) - mean) / math.sqrt(variance + (1 / 255) ** 2)
        expected = [x, n]
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            shifted = torch.tensor(
                [[n[(r - down) % height, (c - right) % width] for c in range(width)] for r in range(height)]
            )
            expected.append(n * shifted)
        torch.testing.assert_close(out, torch.stack(expected), rtol=1e-4, atol=1e-4)

    def test_three_channels_become_eighteen(self) -> None:
        assert ShiftCorrelations()(random(2, 3, 20, 30)).shape == (2, 18, 20, 30)

    def test_channels_are_normalised_by_themselves(self) -> None:
        front, image = ShiftCorrelations(), random(1, 3, 16, 16)
        alone = torch.cat([front(image[:, k : k + 1])[:, 1:2] for k in range(3)], dim=1)
        torch.testing.assert_close(front(image)[:, 3:6], alone)

    def test_contrast_and_brightness_are_normalised_away(self) -> None:
        front, image = ShiftCorrelations(contrast_floor=1e-6), random(1, 1, 32, 32)
        torch.testing.assert_close(front(image)[:, 1:], front(0.3 * image + 0.5)[:, 1:], rtol=1e-3, atol=1e-3)

    def test_a_flat_image_has_no_statistics(self) -> None:
        out = ShiftCorrelations()(torch.full((1, 3, 16, 16), 0.7))
        torch.testing.assert_close(out[:, 3:], torch.zeros(1, 15, 16, 16), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("level", [0.0, 0.7])
    def test_its_gradient_is_finite_on_flat_images(self, level: float) -> None:
        image = torch.full((1, 3, 16, 16), level, requires_grad=True)
        ShiftCorrelations()(image).square().sum().backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()

    def test_it_is_computed_in_float32_under_autocast(self) -> None:
        front, image = ShiftCorrelations(), random(1, 3, 16, 16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = front(image)
        assert torch.equal(reduced, front(image))
