"""Objectives of a step: the fidelity track (equation 1) and the perceptual track (equations 3 to 5)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from napari_mgbpv2.model.network import MGBPv2
from napari_mgbpv2.training.discriminator import Discriminator
from napari_mgbpv2.training.feature_networks import FeatureNetwork
from napari_mgbpv2.training.losses import multiscale_l1, perceptual_total, relativistic_discriminator_loss

Parts = dict[str, Tensor]


class Objective(Protocol):
    """Objective of a track."""

    @property
    def discriminator(self) -> nn.Module | None:
        """Discriminator that is trained against the network; None if the track has none."""

    def losses(self, network: MGBPv2, image: Tensor, target: Tensor, generator: torch.Generator) -> Losses:
        """Compute the losses of a batch.

        Parameters
        ----------
        network
            The trained network.
        image, target
            (B, C, H, W): bicubically upscaled and sharp.
        generator
            Source of all randomness of the step, on the CPU.
        """


class Losses:
    """The network's loss, its parts for the log, and the discriminator's loss.

    Parameters
    ----------
    total
        Scalar, to be minimised by the network.
    parts
        Its terms by name, detached.
    discriminator_loss
        Scalar, to be minimised by the discriminator; its graph holds nothing of the network.
    """

    def __init__(self, total: Tensor, parts: Parts, discriminator_loss: Tensor | None = None) -> None:
        self.total, self.parts, self.discriminator_loss = total, parts, discriminator_loss


class Fidelity:
    """The fidelity track: multi-scale L1 at W = 0."""

    discriminator: None = None

    def losses(self, network: MGBPv2, image: Tensor, target: Tensor, generator: torch.Generator) -> Losses:
        """Compute equation 1 for images and targets (B, C, H, W)."""
        total = multiscale_l1(network(image).float(), target)
        return Losses(total, {"loss": total.detach()})


class Perceptual:
    """The perceptual track: relativistic GAN, contextual loss and L1, of W = 0 and W = 1 together.

    Parameters
    ----------
    discriminator
        The network's discriminator.
    features
        Feature network of the contextual loss; None leaves that term out.
    """

    def __init__(self, discriminator: Discriminator, features: FeatureNetwork | None) -> None:
        self.discriminator = discriminator
        self.features = features

    def losses(self, network: MGBPv2, image: Tensor, target: Tensor, generator: torch.Generator) -> Losses:
        """Compute equations 3 to 5 for images and targets (B, C, H, W)."""
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        amplitude = torch.tensor([0.0, 1.0], device=image.device).repeat_interleave(len(image))
        # one pass for both amplitudes
        both = network(image.repeat(2, 1, 1, 1), noise.repeat(2, 1, 1, 1), amplitude).float()
        sharp, noisy = both.chunk(2)
        self.discriminator.requires_grad_(False)
        total, parts = perceptual_total(
            sharp, noisy, target, discriminator=self.discriminator, features=self.features, generator=generator
        )
        self.discriminator.requires_grad_(True)
        # Real pixels are multiples of 1/255 and generated ones are not: without noise of that size, the discriminator's
        # normalised contrast would reveal it in every flat area.
        dither = (torch.rand(target.shape, generator=generator).to(target.device) - 0.5) / 255
        discriminator_loss = relativistic_discriminator_loss(
            self.discriminator(target + dither), self.discriminator(noisy.detach())
        )
        return Losses(
            total, {"loss": total.detach(), **parts, "discriminator": discriminator_loss.detach()}, discriminator_loss
        )


def step_generator(*numbers: int) -> torch.Generator:
    """Make a generator that is a function of some numbers (seed, step, process), so that no state is saved."""
    import numpy as np

    seed = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) % 2**63)


def to_floats(parts: Parts) -> dict[str, Any]:
    """Return the parts of a loss as plain numbers."""
    return {name: float(value) for name, value in parts.items()}
