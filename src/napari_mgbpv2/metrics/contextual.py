"""Contextual distance between feature maps: a part of the perceptual loss, and a score of the noise sweep."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SAMPLED_POSITIONS = 65**2  # all N positions of a large patch would need N^2 distances
CONTEXTUAL_EPSILON = 1e-5  # added to the least distance, which the others are divided by
FAINT = 1e-5  # relative length below which a feature vector is rounding, without a direction


def contextual_loss(
    generated: Tensor,
    target: Tensor,
    *,
    bandwidth: float = 0.5,
    positions: int | None = SAMPLED_POSITIONS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the contextual loss -log CX: how well each target feature matches some feature of the generated image.

    R. Mechrez, I. Talmi, L. Zelnik-Manor: "The Contextual Loss for Image Transformation with Non-Aligned Data",
    ECCV 2018, arXiv 1803.02077; constants as in the authors' code.

    Parameters
    ----------
    generated, target
        (B, C, h, w) feature maps of any float dtype. The loss is computed in float32, also within autocast.
    bandwidth
        h of the paper: how much a second-best match still counts.
    positions
        Number of feature vectors sampled from each image, at the same random positions of both. None, or a number above
        h x w, takes all of them. Time and memory grow with its square.
    generator
        Generator of the random positions; by default torch's global one.

    Returns
    -------
    Tensor
        Scalar, the mean of -log CX over images: 0 if every target vector has its match, log N if the N vectors cannot
        be distinguished.
    """
    with torch.autocast(generated.device.type, enabled=False):
        generated, target = _directions(generated.float(), target.float())
        losses = []
        for image, truth in zip(generated, target, strict=True):
            if positions is not None and positions < image.shape[1]:
                drawn = _draw(image.shape[1], positions, generator).to(image.device)
                image, truth = image[:, drawn], truth[:, drawn]
            # Recomputed in the backward pass, to hold the (N, N) matrices of one image and not those of a batch.
            losses.append(checkpoint(_contextual_loss_of_one, image, truth, bandwidth, use_reentrant=False))
        return torch.stack(losses).mean()


def _directions(generated: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, C, N) unit vectors relative to the mean of the target over batch and space. Faint ones stay short.

    The vectors of a flat target become zeros, equally distant from everything and without a gradient. Scaled to unit
    length, their rounding errors would dominate.
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
    """Return -log CX of (C, N) unit vectors x_i and y_j."""
    distance = ((1 - generated.T @ target) / 2).clamp_min(0)  # (i, j); rounding makes it a little negative
    relative = distance / (distance.amin(dim=1, keepdim=True) + CONTEXTUAL_EPSILON)
    # w_ij = exp((1 - relative_ij) / h), divided by its sum over j; in this form it cannot overflow.
    similarity = torch.softmax(-relative / bandwidth, dim=1)
    return -similarity.amax(dim=0).mean().log()


def _draw(count: int, positions: int, generator: torch.Generator | None) -> Tensor:
    """Return ``positions`` different random numbers below ``count``."""
    device = None if generator is None else generator.device
    return torch.randperm(count, generator=generator, device=device)[:positions]
