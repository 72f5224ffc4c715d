"""The discriminator of the perceptual track, Fig. 4 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from napari_mgbpv2.imaging.resampling import cut_to_multiple, shrink

FEATURES = (32, 64, 128, 256)  # of the CNN modules, from high to low resolution
CONTRAST_FLOOR = 1 / 255  # contrasts below it, one step of an 8-bit image, are not amplified to full size
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows and columns: every pair of neighbours once
BLUR_SIGMA, BLUR_RADIUS = 7 / 6, 3


class Discriminator(nn.Module):
    """Score C of an image, high for real images and low for generated ones (Fig. 4).

    The image is shrunk by fixed bicubic downscalers S_2, S_4, S_8. Each level has its own module (four 3x3
    convolutions, the last with stride 2), which gets the image of that size concatenated with the features of the next
    higher resolution. A last convolution gives a map. Its mean is C, before the sigmoid.

    Parameters
    ----------
    channels
        Channels of the image.
    features
        Features of the module of each level, from high to low resolution; their number is the number of levels.
    statistics
        Whether each level gets the output of `ShiftCorrelations` (VN+SC) instead of only the image.
    spectral_norm
        Whether every convolution has its largest singular value divided out.
    contrast_floor
        The constant c of `ShiftCorrelations`.

    Notes
    -----
    The paper gives the modules, the downscalers and that nothing is shared; the widths, the concatenation, LeakyReLU,
    the mean and the position of VN+SC are choices of this implementation.

    Real images have 8-bit steps, generated ones do not, and variance normalisation shows it in flat areas: train with
    real images whose rounding is filled with uniform noise of one step, or raise ``contrast_floor`` to 3/255 or so.

    VN+SC and the cascaded discriminator resemble those described in US patents 11,615,505 and 11,361,222 of the
    paper's authors' employer; they serve training only, no trained model contains them, and VN+SC can be left out.
    """

    def __init__(
        self,
        channels: int = 3,
        features: Sequence[int] = FEATURES,
        *,
        statistics: bool = True,
        spectral_norm: bool = False,
        contrast_floor: float = CONTRAST_FLOOR,
    ) -> None:
        super().__init__()
        self.front: nn.Module = ShiftCorrelations(contrast_floor) if statistics else nn.Identity()
        seen = channels * (ShiftCorrelations.WIDENING if statistics else 1)
        self.modules_by_level = nn.ModuleList(
            cnn_module(seen + above, width) for above, width in pairwise((0, *features))
        )
        self.last = nn.Conv2d(features[-1], 1, 3, padding=1)
        if spectral_norm:
            for layer in [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]:
                with_spectral_norm(layer)

    def forward(self, image: Tensor) -> Tensor:
        """Score images.

        Parameters
        ----------
        image
            (B, C, H, W) in [0, 1]; the right and bottom remainder that two to the number of levels (16) does not
            divide is left out.

        Returns
        -------
        Tensor
            (B,) scores C before the sigmoid.

        Raises
        ------
        ImageError
            The image is smaller than 16 pixels (two to the number of levels).
        """
        image = cut_to_multiple(image, 2 ** len(self.modules_by_level))
        found: list[Tensor] = []
        for level, module in enumerate(self.modules_by_level):
            seen = self.front(shrink(image, 2**level))
            found = [module(torch.cat([seen, *found], dim=1))]
        scores: Tensor = self.last(found[0]).mean(dim=(1, 2, 3))
        return scores


def cnn_module(inputs: int, features: int) -> nn.Sequential:
    """Make four 3x3 convolutions, (B, inputs, H, W) to (B, features, H/2, W/2). The last one halves the size."""
    layers: list[nn.Module] = []
    for width, stride in ((inputs, 1), (features, 1), (features, 1), (features, 2)):
        layers += [nn.Conv2d(width, features, 3, stride=stride, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class ShiftCorrelations(nn.Module):
    """Variance normalisation and shift correlator (VN+SC): local statistics that characterise natural images.

    The image x is normalised to n = (x - mu) / sqrt(var + c^2) with its mean and variance under a Gaussian of 7x7
    pixels, channel by channel, and multiplied with itself shifted by one pixel in four directions (the image wraps
    around). These are the quantities whose distributions NIQE measures; see `napari_mgbpv2.metrics.niqe`, whose
    (x - mu) / (sqrt(var) + c) has no finite gradient where an image is flat.

    Parameters
    ----------
    contrast_floor
        c, in the units of the image.
    """

    WIDENING = 2 + len(SHIFTS)  # channels out for each channel in: x, n and the products

    def __init__(self, contrast_floor: float = CONTRAST_FLOOR) -> None:
        super().__init__()
        self.contrast_floor = contrast_floor
        distances = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float64)
        weights = torch.exp(-(distances**2) / (2 * BLUR_SIGMA**2))
        self.weights: Tensor
        self.register_buffer("weights", (weights / weights.sum()).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return x, n and n times each of its four shifts: (B, C, H, W) to (B, 6 C, H, W), at least float32."""
        with torch.autocast(image.device.type, enabled=False):  # the variance is a small difference of large numbers
            image = image.to(torch.promote_types(image.dtype, torch.float32))
            mean = self._blur(image)
            variance = (self._blur(image**2) - mean**2).clamp_min(0)
            normal = (image - mean) / torch.sqrt(variance + self.contrast_floor**2)
            products = [normal * torch.roll(normal, shift, dims=(2, 3)) for shift in SHIFTS]
            return torch.cat([image, normal, *products], dim=1)

    def _blur(self, image: Tensor) -> Tensor:
        channels, weights = image.shape[1], self.weights.to(image.dtype)
        padded = F.pad(image, [BLUR_RADIUS] * 4, mode="replicate")
        rows = weights.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
        columns = weights.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)
