"""The losses of the paper, equations 1 and 3 to 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.imaging.resampling import cut_to_multiple, shrink
from napari_mgbpv2.metrics.contextual import SAMPLED_POSITIONS, contextual_loss

MULTISCALE_FACTORS = (1, 2, 4, 8, 16)
COARSEST = 16  # the factor of S_16, by which the paper's images were shrunk


@dataclass(frozen=True)
class PerceptualWeights:
    """Weights of the five terms of equation 3, in its order; the defaults are the paper's.

    Parameters
    ----------
    adversarial
        Relativistic generator loss on Y_{W=1}.
    contextual
        Contextual loss between Y_{W=1} and X.
    sharp
        L1 between Y_{W=0} and X.
    coarse
        L1 between S_16 Y_{W=0} and S_16 X.
    coarse_noisy
        L1 between S_16 Y_{W=1} and S_16 X.
    """

    adversarial: float = 0.001
    contextual: float = 0.1
    sharp: float = 10.0
    coarse: float = 10.0
    coarse_noisy: float = 10.0


def multiscale_l1(output: Tensor, target: Tensor, factors: Sequence[int] = MULTISCALE_FACTORS) -> Tensor:
    """Compute the multi-scale L1 of equation 1: the sum over f of mean |S_f(output) - S_f(target)|.

    Parameters
    ----------
    output, target
        (B, C, H, W). The right and bottom remainder that the largest factor does not divide is left out
        at every scale, so that each S_f sees the same pixels.
    factors
        Shrinking factors f; each S_f is computed from full resolution.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ImageError
        The image is smaller than the largest factor.
    """
    output, target = (cut_to_multiple(image, max(factors)) for image in (output, target))
    losses = [F.l1_loss(shrink(output, factor), shrink(target, factor)) for factor in factors]
    return sum(losses[1:], start=losses[0])


def perceptual_total(
    sharp: Tensor,
    noisy: Tensor,
    target: Tensor,
    *,
    discriminator: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor] | None,
    weights: PerceptualWeights | None = None,
    bandwidth: float = 0.5,
    positions: int | None = SAMPLED_POSITIONS,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of the generator in the perceptual track, equation 3.

    Parameters
    ----------
    sharp, noisy, target
        Y_{W=0}, Y_{W=1} and X: (B, C, H, W) in [0, 1]. The right and bottom remainder that 16 does not divide is
        left out of every term.
    discriminator
        C, before the sigmoid: images (B, C, H, W) to scores (B,). Gradients also reach its weights, unless they are
        frozen; clear them before its own step.
    features
        Images (B, C, H, W) to the feature maps of the contextual loss. None leaves that term out.
    weights
        Weights of the terms; the paper's by default.
    bandwidth
        Bandwidth h of the contextual loss.
    positions
        Number of sampled feature positions of the contextual loss; None for all.
    generator
        Source of randomness of these positions.

    Returns
    -------
    total : Tensor
        A scalar.
    parts : dict
        The terms before their weights, detached scalars under the names of `PerceptualWeights`.

    Raises
    ------
    ImageError
        The image is smaller than 16 pixels.
    """
    weights = weights or PerceptualWeights()
    sharp, noisy, target = (cut_to_multiple(image, COARSEST) for image in (sharp, noisy, target))
    coarse_target = shrink(target, COARSEST)
    with torch.no_grad():  # real images give the generator no gradient
        real_score = discriminator(target)
    terms = {
        "adversarial": relativistic_generator_loss(real_score, discriminator(noisy)),
        "sharp": F.l1_loss(sharp, target),
        "coarse": F.l1_loss(shrink(sharp, COARSEST), coarse_target),
        "coarse_noisy": F.l1_loss(shrink(noisy, COARSEST), coarse_target),
    }
    if features is not None:
        with torch.no_grad():
            real_features = features(target)
        terms["contextual"] = contextual_loss(
            features(noisy), real_features, bandwidth=bandwidth, positions=positions, generator=generator
        )
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's side of equation 4, a relativistic standard GAN: mean -log sigmoid(C(R) - C(F)).

    Parameters
    ----------
    real, fake
        (B,) scores C before the sigmoid; ``real[i]`` is that of the ground truth of ``fake[i]``.

    Returns
    -------
    Tensor
        A scalar; log 2 if the discriminator cannot distinguish them.
    """
    return F.softplus(fake.float() - real.float()).mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the generator's side of equation 4: mean -log sigmoid(C(F) - C(R)).

    Parameters
    ----------
    real, fake
        (B,) scores C before the sigmoid; ``real[i]`` is that of the ground truth of ``fake[i]``.

    Returns
    -------
    Tensor
        A scalar.
    """
    return relativistic_discriminator_loss(fake, real)
