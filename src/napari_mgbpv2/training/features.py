"""The feature network of the contextual loss: VGG-19 up to relu3_4, and where its weights come from.

K. Simonyan, A. Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
Layers and names of tensors are those of torchvision, so its published file fits; torchvision itself is not needed.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch
from safetensors import safe_open
from torch import Tensor, nn

from napari_mgbpv2.downloads import cache_folder, download
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.model_zoo import file_hash

Pooling = Literal["max", "average"]

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"  # its name ends in the beginning of its SHA-256
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CONVOLUTIONS = ((3, 64), (64, 64), None, (64, 128), (128, 128), None, (128, 256), *((256, 256),) * 3)  # None: pool
_SHRINKING = 4  # by the two pools

_GO_ON = (
    "Give the file of a VGG-19 with `--feature-network FILE`, or train without the contextual term "
    "by `--feature-network none`."
)


class FeatureNetwork(nn.Module):
    """VGG-19 up to relu3_4, `features[:18]` of torchvision's: frozen, and in evaluation mode.

    Parameters
    ----------
    pooling
        Max pooling as VGG was trained, or average pooling as in the contextual loss's own code.
    """

    def __init__(self, pooling: Pooling = "max") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for widths in _CONVOLUTIONS:
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

    def forward(self, image: Tensor) -> Tensor:
        """Features of images.

        Parameters
        ----------
        image
            (B, 3, H, W) in [0, 1], RGB; or (B, 1, H, W), grey, which is repeated.

        Returns
        -------
        Tensor
            (B, 256, H // 4, W // 4), not negative.

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
        features: Tensor = self.features((image - self.mean) / self.deviation)
        return features


def load_feature_network(
    source: str | os.PathLike[str] | None = None,
    *,
    pooling: Pooling = "max",
    url: str = VGG19_URL,
    cache: str | os.PathLike[str] | None = None,
) -> FeatureNetwork:
    """Make the feature network with trained weights, on the CPU.

    Parameters
    ----------
    source
        A file of torchvision's VGG-19 or only its first layers (``features.0.weight`` to ``features.16.bias``):
        ``.safetensors``, or a state dict saved by torch. With None, the file at ``url`` is downloaded once.
    pooling
        Of `FeatureNetwork`.
    url
        Where the weights are published. The file's name ends in ``-`` and the first digits of its SHA-256.
    cache
        Folder that keeps the download; by default the user's cache folder for this package.

    Raises
    ------
    ModelError
        There is no such file, it is damaged, holds code or lacks a tensor, or the download failed or is not the
        published file. Nothing is kept of such a download.
    """
    path = _downloaded(url, cache) if source is None else Path(source)
    network = FeatureNetwork(pooling)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    state = _read(path, set(shapes))
    for name, shape in shapes.items():
        if name not in state:
            raise ModelError(f"{path}: misses the tensor {name!r}; it is not a VGG-19 with torchvision's names.")
        if state[name].shape != shape:
            raise ModelError(f"{path}: its tensor {name!r} has shape {tuple(state[name].shape)}, not {tuple(shape)}.")
        if not bool(torch.isfinite(state[name]).all()):
            raise ModelError(f"{path}: its tensor {name!r} holds NaN or infinity.")
    network.load_state_dict(state)
    return network


def _read(path: Path, names: set[str]) -> dict[str, Tensor]:
    """Those tensors of a file that are called ``names``; nothing in it is executed."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "there is no such file"
        raise ModelError(f"{path}: {what}. {_GO_ON}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # a damaged archive shows as errors of many classes
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ModelError(f"{path}: was not loaded, because it could run code; give a plain state dict.") from error
        raise ModelError(f"{path}: is not a complete model file; download or save it again.") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors.")
    return {name: tensor for name, tensor in loaded.items() if name in names and isinstance(tensor, Tensor)}


def _downloaded(url: str, cache: str | os.PathLike[str] | None) -> Path:
    """The file at ``url``, from the cache folder, where it is put first if it is not there."""
    name = Path(urlsplit(url).path).name
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    if digits is None:
        raise ModelError(f"{url}: the name of the file does not end in the first digits of its SHA-256. {_GO_ON}")

    def check(partial: Path) -> None:
        found = file_hash(partial)
        if not found.startswith(digits[1]):
            raise ModelError(
                f"{url}: what came is not the published file: its SHA-256 begins with {found[: len(digits[1])]} "
                f"instead of {digits[1]}; try again. {_GO_ON}"
            )

    try:
        return download(url, Path(cache_folder() if cache is None else cache) / name, check=check)
    except OSError as error:  # the network, the server or the disk; those of requests are OSErrors, too
        raise ModelError(f"{url}: could not be downloaded ({error}). {_GO_ON}") from error
