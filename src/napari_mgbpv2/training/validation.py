"""Score a network on held-out images, compared with bicubic upscaling, and collect pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.noise import noise_window
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.metrics.niqe import PristineModel
from napari_mgbpv2.metrics.scores import niqe_over_scales, psnr, rmse_y, ssim
from napari_mgbpv2.model.network import MGBPv2

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes
    ----------
    scores
        Means over the images at W = 0: "psnr" and "bicubic_psnr" in dB and "gain" between them, "ssim", and for colour
        and grey "rmse_y" as in PIRM; in the perceptual track "niqe" at W = 1 (equation 6) if the images are large
        enough.
    rows
        Pictures for a contact sheet, one row per image: source, bicubic, W = 0, W = 1 (with a noise input), target.
    perceptual
        Whether the figure of merit is scored at W = 1.
    """

    scores: dict[str, float]
    rows: list[list[Tensor]]
    perceptual: bool = False

    @property
    def figure_of_merit(self) -> float | None:
        """Figure to maximise: minus NIQE on the perceptual track, else the gain (equations 6 and 2).

        None if the images are too small or too flat for NIQE, so that validations cannot be compared.
        """
        if not self.perceptual:
            return self.scores["gain"]
        return -self.scores["niqe"] if "niqe" in self.scores else None


def validate(
    network: MGBPv2, pairs: Sequence[Pair], scale: int, *, perceptual: bool, pristine: PristineModel | None = None
) -> Validation:
    """Score a network.

    Parameters
    ----------
    network
        Network on any device.
    pairs
        (input, target) images, each (C, H, W).
    scale
        Upscaling factor, for the pictures of the source.
    perceptual
        Whether W = 1 is scored.
    pristine
        Model that NIQE compares with; by default the published model of photographs.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    figures: dict[str, list[float]] = {"psnr": [], "bicubic_psnr": [], "ssim": [], "niqe": []}
    rows, restored = [], []
    with torch.inference_mode():
        for number, (image, target) in enumerate(pairs):
            batch = image[None].to(device, memory_format=torch.channels_last)
            sharp = network(batch)[0].float().cpu()
            restored.append(sharp.clamp(0, 1))
            figures["psnr"].append(psnr(restored[-1], target))
            figures["ssim"].append(ssim(restored[-1], target))
            figures["bicubic_psnr"].append(psnr(image.clamp(0, 1), target))
            row = [_enlarged_source(image, scale), image, sharp]
            if network.config.noise_channels:
                noise = np.stack([noise_window(number, c, 0, 0, *image.shape[1:]) for c in range(len(image))])
                noisy = network(batch, torch.from_numpy(noise)[None].to(device), 1.0)[0].float().cpu()
                row.append(noisy)
                if perceptual:
                    figures["niqe"] += _niqe(noisy, pristine)
            rows.append([*row, target])
    network.train(was_training)
    scores = {name: float(np.mean(values)) for name, values in figures.items() if values}
    scores["gain"] = scores["psnr"] - scores["bicubic_psnr"]
    if network.config.channels in (1, 3):
        scores["rmse_y"] = rmse_y(restored, [target for _, target in pairs])
    return Validation(scores, rows, perceptual)


def _niqe(image: Tensor, pristine: PristineModel | None) -> list[float]:
    """Return NIQE over the scales, or nothing for an image that is too small or too flat for it."""
    try:
        score = niqe_over_scales(image[None].clamp(0, 1), pristine)
    except ImageError:
        return []
    return [score] if np.isfinite(score) else []


def _enlarged_source(image: Tensor, scale: int) -> Tensor:
    """Enlarge the source's pixels to the size of the target by repetition."""
    height, width = (size // scale * scale for size in image.shape[1:])
    source = shrink(image[None, :, :height, :width], scale)
    return F.interpolate(source, image.shape[1:], mode="nearest")[0]
