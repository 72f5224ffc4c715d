"""The contextual distance between feature maps, which the perceptual loss minimizes and the sweep reports."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SAMPLED_POSITIONS = 65**2  # of the contextual loss: all N of a large patch would need N^2 distances
CONTEXTUAL_EPSILON = 1e-5  # what the least distance is raised by before the others are divided by it
FAINT = 1e-5  # a feature vector this much shorter than the usual one is rounding and has no direction


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
