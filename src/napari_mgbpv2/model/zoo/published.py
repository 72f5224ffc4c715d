"""The two models that the network's authors have published, of the AIM 2019 challenge on upscaling 16 times.

Their files do not come with this package: `checkpoints.download_model` brings one, with the SHA-256 that it has then
in a file beside it, and from then on it is held to that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.downloads import cache_folder
from napari_mgbpv2.model.zoo.cards import ModelCard, file_hash

# As in the authors' README and download script, https://github.com/pnavarre/mgbpv2; the name's "#" is written "%23".
_ADDRESS = "https://www.dropbox.com/s/{}_CH3_LE5_MU2_BIAS_NOISE1_FE256-192-128-48-9_Filter%23{}.model?raw=1"

LICENCE = "the authors' weights, published without a licence of their own; their code is under LGPL-3.0"


@dataclass(frozen=True)
class PublishedModel:
    """A model of the authors'.

    Attributes
    ----------
    name
        By which it is loaded.
    url
        Where its authors have published it.
    configs
        Of its network, or of the members of its ensemble.
    parameters
        Number of weights.
    trained_on
        What it has learnt from and for, in words.
    size
        Bytes of the file, about.
    tile, distance
        Pixels of the overlapping patches, and between the centres of neighbours, that the paper uses.
    noise
        Amplitude W of the noise that it is made for.
    scale
        Upscaling factor.
    """

    name: str
    url: str
    configs: tuple[ModelConfig, ...]
    parameters: int
    trained_on: str
    size: float
    tile: int
    distance: int
    noise: float
    scale: int = 16

    @property
    def file_name(self) -> str:
        """Name of its file when it has been downloaded."""
        return f"{self.name}.model"

    @property
    def path(self) -> Path:
        """Its file, there or not."""
        return cache_folder() / self.file_name

    @property
    def hash_path(self) -> Path:
        """Where its SHA-256 is recorded, in the form of ``sha256sum``."""
        return self.path.with_name(f"{self.file_name}.sha256")

    @property
    def recorded_hash(self) -> str | None:
        """SHA-256 that it had when it was downloaded; None where it has not been."""
        try:
            return self.hash_path.read_text().split()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it has been downloaded."""
        return self.path.is_file() and self.recorded_hash is not None

    @property
    def card(self) -> ModelCard:
        """What is known about it."""
        return ModelCard(
            name=self.name,
            path=self.path,
            scale=self.scale,
            channels=self.configs[0].channels,
            parameters=self.parameters,
            guard=None,
            noise=len(self.configs) == 1,  # noise enters no member of an ensemble
            trained_on=self.trained_on,
        )


PUBLISHED = {
    model.name: model
    for model in (
        PublishedModel(
            name="boe-perceptual",
            url=_ADDRESS.format("f2oe2wywczcen02/BOE_Perceptual", "K3_mgbp"),
            configs=(ModelConfig(kernel=3),),
            parameters=28_170_450,
            trained_on="DIV8K, for perceptual quality (BOE-Perceptual of AIM 2019, first place)",
            size=112.7e6,
            tile=767,
            distance=64,
            noise=1.0,
        ),
        PublishedModel(
            name="boe-fidelity",
            url=_ADDRESS.format("ox04zd4bjhamq2w/BOE_Fidelity", "K357_merge"),
            configs=tuple(ModelConfig(kernel=kernel) for kernel in (3, 5, 7)),
            parameters=263_421_182,
            trained_on="DIV8K, for fidelity (BOE-Fidelity of AIM 2019, fifth place)",
            size=1.1e9,
            tile=667,
            distance=128,
            noise=0.0,
        ),
    )
}


def list_published() -> tuple[PublishedModel, ...]:
    """Return all published models, downloaded or not, the smallest first."""
    return tuple(PUBLISHED.values())


def find_published(name: str) -> PublishedModel:
    """Return a published model.

    Raises
    ------
    ModelError
        There is none of that name.
    """
    if name not in PUBLISHED:
        raise ModelError(f"there is no published model {name!r}; those are {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def find_published_by_path(path: Path) -> PublishedModel | None:
    """Return the published model whose downloaded file this is; None for any other."""
    for model in PUBLISHED.values():
        if path.name == model.file_name and os.path.realpath(path) == os.path.realpath(model.path):
            return model
    return None


def verify_published_file(model: PublishedModel) -> Path:
    """Return the downloaded file of a published model, if it is still what was downloaded.

    Raises
    ------
    ModelError
        It is not there, or has changed.
    """
    again = f"run `mgbpv2-models download {model.name}`"
    recorded = model.recorded_hash
    if not model.path.is_file():
        raise ModelError(f"the file of {model.name} is not on this machine: {again}.")
    if recorded is None:
        raise ModelError(f"{model.path}: nobody has checked it: {again}.")
    found = file_hash(model.path)
    if found != recorded:
        raise ModelError(
            f"{model.path}: has changed since it was downloaded, its SHA-256 begins with {found[:8]} instead of "
            f"{recorded[:8]}: {again} to get it again."
        )
    return model.path


def preset(name: str) -> Mapping[str, Any]:
    """Return the paper's settings of a published model, as options of `upscale`.

    >>> larger = upscale(image, **preset("boe-fidelity"))

    They blend patches that overlap nearly whole, over borders that nothing has been cut from: "purposely not practical
    for applications", the paper says. Without them tiles overlap by what the network reaches, and equal the whole
    image.

    Raises
    ------
    ModelError
        There is no published model of that name.
    """
    model = find_published(name)
    return {
        "model": model.name,
        "scale": model.scale,
        "noise": model.noise,
        "tile": model.tile,
        "overlap": model.configs[0].natural_down(model.tile) - model.distance,
        "guard": 0,
        "window": "hamming",
    }
