"""Load the weights of the contextual loss's feature network: from a file, or the published VGG-19."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors import safe_open
from torch import Tensor

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.downloads import cache_folder, download
from napari_mgbpv2.model.zoo import file_hash
from napari_mgbpv2.training.feature_networks import VGG19, EfficientNetLite, FeatureNetwork, Pooling

VGG19_URL = (
    "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"  # its name contains the first digits of its SHA-256
)

_ALTERNATIVES = (
    "Give the file of a VGG-19 or EfficientNet-Lite0 with `--feature-network FILE`, or train without the contextual "
    "term by `--feature-network none`."
)


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
        A file of torchvision's VGG-19 or only its first layers (``features.0.weight`` to ``features.16.bias``), or of
        EfficientNet-Lite0: ``.safetensors``, or a state dict saved by torch. With None, the file at ``url`` is
        downloaded once.
    pooling
        Pooling of `VGG19`: "max" or "average".
    url
        Address of the weights. The file's name ends in ``-`` and the first digits of its SHA-256.
    cache
        Folder for the download; by default the user's cache folder for this package.

    Raises
    ------
    ModelError
        The file is missing or damaged, contains code or lacks a tensor; or the download failed or is not the
        published file. A failed download is removed.
    """
    path = _download_weights(url, cache) if source is None else Path(source)
    vgg, light = VGG19(pooling), EfficientNetLite()
    state = _read(path, {*vgg.state_dict(), *light.state_dict()})
    network = light if any(name.startswith("_conv_stem") for name in state) else vgg
    for name, tensor in network.state_dict().items():
        shape = tensor.shape
        if name not in state:
            raise ModelError(
                f"{path}: misses the tensor {name!r}; it is neither a VGG-19 with torchvision's names nor an "
                "EfficientNet-Lite0."
            )
        if state[name].shape != shape:
            raise ModelError(f"{path}: its tensor {name!r} has shape {tuple(state[name].shape)}, not {tuple(shape)}.")
        if not bool(torch.isfinite(state[name]).all()):
            raise ModelError(f"{path}: its tensor {name!r} holds NaN or infinity.")
    network.load_state_dict(state)
    return network


def _read(path: Path, names: set[str]) -> dict[str, Tensor]:
    """Read the tensors ``names`` of a file without executing anything in it."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "there is no such file"
        raise ModelError(f"{path}: {what}. {_ALTERNATIVES}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # a damaged archive raises errors of many classes
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ModelError(f"{path}: was not loaded, because it could run code; give a plain state dict.") from error
        raise ModelError(f"{path}: is not a complete model file; download or save it again.") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors.")
    return {name: tensor for name, tensor in loaded.items() if name in names and isinstance(tensor, Tensor)}


def _download_weights(url: str, cache: str | os.PathLike[str] | None) -> Path:
    """Return the cached file of ``url``, and download it first if needed."""
    name = Path(urlsplit(url).path).name
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    if digits is None:
        raise ModelError(
            f"{url}: the name of the file does not end in the first digits of its SHA-256. {_ALTERNATIVES}"
        )

    def check(partial: Path) -> None:
        found = file_hash(partial)
        if not found.startswith(digits[1]):
            raise ModelError(
                f"{url}: what came is not the published file: its SHA-256 begins with {found[: len(digits[1])]} "
                f"instead of {digits[1]}; try again. {_ALTERNATIVES}"
            )

    try:
        return download(url, Path(cache_folder() if cache is None else cache) / name, check=check)
    except OSError as error:  # the network, the server or the disk; those of requests are OSErrors, too
        raise ModelError(f"{url}: could not be downloaded ({error}). {_ALTERNATIVES}") from error
