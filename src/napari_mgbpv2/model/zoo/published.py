"""The two models of the AIM 2019 challenge on upscaling 16 times that the network's authors have published.

This package does not contain their files. `checkpoints.download_model` downloads one and records its SHA-256 in a file
next to it. From then on the hash must be the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.downloads import cache_folder
from napari_mgbpv2.model.zoo.cards import ModelCard, file_hash

# From the authors' README and download script, https://github.com/pnavarre/mgbpv2; the name's "#" is written "%23".
_ADDRESS = "https://www.dropbox.com/s/{}_CH3_LE5_MU2_BIAS_NOISE1_FE256-192-128-48-9_Filter%23{}.model?raw=1"

LICENCE = "the authors' weights, published without a licence of their own; their code is under LGPL-3.0"


@dataclass(frozen=True)
class PublishedModel:
    """A model that the authors have published.

    Attributes
    ----------
    name
        Name for `load_model`.
    url
        The authors' address.
    configs
        Configurations of the network, or of the members of the ensemble.
    parameters
        Number of weights.
    trained_on
        Description of the training data and the objective.
    size
        Approximate size of the file in bytes.
    tile
        Side of the paper's overlapping patches in pixels.
    distance
        Pixels between the centres of neighbouring patches in the paper.
    noise
        Noise amplitude W that the model was trained for.
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
        """Name of the downloaded file."""
        return f"{self.name}.model"

    @property
    def path(self) -> Path:
        """Path of the downloaded file, which may not exist."""
        return cache_folder() / self.file_name

    @property
    def hash_path(self) -> Path:
        """Path of the recorded SHA-256, in the format of ``sha256sum``."""
        return self.path.with_name(f"{self.file_name}.sha256")

    @property
    def recorded_hash(self) -> str | None:
        """SHA-256 at the time of the first download; None without one.

        Raises
        ------
        ModelError
            The file that holds it cannot be read, or holds something else.
        """
        try:
            words = self.hash_path.read_bytes().decode("ascii", "replace").split()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(f"{self.hash_path}: cannot be read ({error.strerror}); check its permissions.") from error
        if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
            raise ModelError(
                f"{self.hash_path}: is damaged, so {self.file_name} cannot be compared with the first download; delete "
                "both files and download the model again."
            )
        return words[0]

    @property
    def is_here(self) -> bool:
        """True if the model has been downloaded."""
        return self.path.is_file() and self.hash_path.is_file()

    @property
    def card(self) -> ModelCard:
        """Card of the model."""
        return ModelCard(
            name=self.name,
            path=self.path,
            scale=self.scale,
            channels=self.configs[0].channels,
            parameters=self.parameters,
            guard=None,
            noise=len(self.configs) == 1,  # members of an ensemble do not use noise
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
    """Return all published models, downloaded or not, smallest first."""
    return tuple(PUBLISHED.values())


def find_published(name: str) -> PublishedModel:
    """Return a published model.

    Raises
    ------
    ModelError
        The name is unknown.
    """
    if name not in PUBLISHED:
        raise ModelError(f"there is no published model {name!r}; those are {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def find_published_by_path(path: Path) -> PublishedModel | None:
    """Return the published model of a downloaded file; None for other files."""
    for model in PUBLISHED.values():
        if path.name == model.file_name and os.path.realpath(path) == os.path.realpath(model.path):
            return model
    return None


def verify_published_file(model: PublishedModel) -> Path:
    """Return the downloaded file of a published model, after checking its hash.

    Raises
    ------
    ModelError
        The file is missing or has changed.
    """
    again = f"run `mgbpv2-models download {model.name}`"
    recorded = model.recorded_hash
    if not model.path.is_file():
        raise ModelError(f"the file of {model.name} is not on this machine: {again}.")
    if recorded is None:
        raise ModelError(f"{model.path}: its hash is not recorded: {again}.")
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

    They blend patches that overlap almost completely, without a guard. The paper calls them "purposely not practical
    for applications". Without these settings, tiles overlap by the reach of the network and equal the whole image.

    Raises
    ------
    ModelError
        The name is unknown.
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
