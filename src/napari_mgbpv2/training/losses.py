"""The losses of the paper, equations 1 and 3 to 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.resampling import shrink

MULTISCALE_FACTORS = (1, 2, 4, 8, 16)
COARSEST = 16  # the factor of S_16, by which the paper's images were shrunk

SAMPLED_POSITIONS = 65**2  # of the contextual loss: all N of a large patch would need N^2 distances
CONTEXTUAL_EPSILON = 1e-5  # what the least distance is raised by before the others are divided by it
FAINT = 1e-5  # a feature vector this much shorter than the usual one is rounding and has no direction


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
    """Multi-scale L1, equation 1: the sum over f of mean |S_f(output) - S_f(target)|.

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
    """Loss of the generator in the perceptual track, equation 3.

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
        Of the terms; the paper's by default.
    bandwidth, positions, generator
        Of `contextual_loss`.

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
    with torch.no_grad():  # the real images are given: what they score moves nothing but the discriminator
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
    """Relativistic standard GAN, the discriminator's side of equation 4: mean -log sigmoid(C(R) - C(F)).

    Parameters
    ----------
    real, fake
        (B,) scores C before the sigmoid; ``real[i]`` is that of the ground truth of ``fake[i]``.

    Returns
    -------
    Tensor
        A scalar; log 2 where the discriminator cannot tell them apart.
    """
    return F.softplus(fake.float() - real.float()).mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The generator's side of equation 4: mean -log sigmoid(C(F) - C(R)); see `relativistic_discriminator_loss`."""
    return relativistic_discriminator_loss(fake, real)


def contextual_loss(
    generated: Tensor,
    target: Tensor,
    *,
    bandwidth: float = 0.5,
    positions: int | None = SAMPLED_POSITIONS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Contextual loss: -log CX, how far the target's features are from all occurring somewhere in the generated image.

    R. Mechrez, I. Talmi, L. Zelnik-Manor: "The Contextual Loss for Image Transformation with Non-Aligned Data",
    ECCV 2018, arXiv 1803.02077; constants as in the authors' code.

    Parameters
    ----------
    generated, target
        (B, C, h, w) feature maps. Computed in float32, whatever they are and whatever autocast says.
    bandwidth
        h of the paper: how much a second-best match still counts.
    positions
        Feature vectors taken of each image, at random and at the same places of both; all of them if it has no more,
        or with None. Time and memory grow with their square.
    generator
        Source of the random places; torch's global one by default.

    Returns
    -------
    Tensor
        A scalar, the mean over images of -log CX: 0 where every target vector has its match, log N where nothing tells
        one of the N vectors from another.
    """
    with torch.autocast(generated.device.type, enabled=False):
        generated, target = _directions(generated.float(), target.float())
        losses = []
        for image, truth in zip(generated, target, strict=True):
            if positions is not None and positions < image.shape[1]:
                places = _draw(image.shape[1], positions, generator).to(image.device)
                image, truth = image[:, places], truth[:, places]
            # Recomputed on the way back: what is held is the (N, N) matrices of one image, not those of a batch.
            losses.append(checkpoint(_contextual_loss_of_one, image, truth, bandwidth, use_reentrant=False))
        return torch.stack(losses).mean()


def cut_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Leave out of (B, C, H, W) the right and bottom pixels that ``multiple`` does not divide.

    Raises
    ------
    ImageError
        Nothing would be left.
    """
    height, width = image.shape[-2:]
    if min(height, width) < multiple:
        raise ImageError(f"a patch is {height} x {width} px; training needs at least {multiple} x {multiple} px.")
    return image[..., : height // multiple * multiple, : width // multiple * multiple]


def _directions(generated: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, N) of unit vectors, seen from the mean of the target over batch and space; faint ones stay short.

    A flat target is nothing but its mean: its vectors become zeros, equally far from everything and without gradient,
    where their rounding errors blown up to unit length would rule.
    """
    usual_length = torch.linalg.vector_norm(target, dim=1).mean()
    shortest = (FAINT * usual_length).clamp_min(torch.finfo(torch.float32).tiny)
    centre = target.mean(dim=(0, 2, 3), keepdim=True)
    vectors = [(image - centre).flatten(2) for image in (generated, target)]
    generated, target = (
        each / torch.linalg.vector_norm(each, dim=1, keepdim=True).clamp_min(shortest) for each in vectors
    )
    return generated, target


def _contextual_loss_of_one(generated: Tensor, target: Tensor, bandwidth: float) -> Tensor:
    """-log CX of (C, N) unit vectors x_i and y_j."""
    distance = ((1 - generated.T @ target) / 2).clamp_min(0)  # (i, j); rounding makes it a little negative
    relative = distance / (distance.amin(dim=1, keepdim=True) + CONTEXTUAL_EPSILON)
    # w_ij = exp((1 - relative_ij) / h), divided by its sum over j; in this form it cannot overflow.
    similarity = torch.softmax(-relative / bandwidth, dim=1)
    return -similarity.amax(dim=0).mean().log()


def _draw(count: int, positions: int, generator: torch.Generator | None) -> Tensor:
    """``positions`` different numbers below ``count``."""
    device = None if generator is None else generator.device
    return torch.randperm(count, generator=generator, device=device)[:positions]
