"""Cards of model files, read from their headers without torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig

_LARGEST_HEADER = 4_000_000  # bytes; JSON takes up to 30 times its size in memory, and ours has some ten thousand bytes
_MOST_AXES, _LONGEST_AXIS = 8, 2**40  # of a tensor
_LARGEST_SCALE, _LARGEST_GUARD = 64, 2**14
_KINDS = {"scale": int, "guard": int, "trained_on": str, "scores": dict, "training": dict}


@dataclass(frozen=True)
class ModelCard:
    """Metadata of a model file.

    Attributes
    ----------
    name
        Name of a packaged model, or the stem of the file name.
    path
        The file.
    scale
        Upscaling factor that the model was trained for; None if unknown.
    channels
        Number of image channels.
    parameters
        Number of weights.
    guard
        Target pixels at a tile's border that its border affects, as measured on the weights; None if unknown.
    noise
        Whether the model has a noise input.
    trained_on
        Description of the training data.
    scores
        Measured scores by name.
    training
        Options of the training.
    """

    name: str
    path: Path
    scale: int | None
    channels: int
    parameters: int
    guard: int | None
    noise: bool
    trained_on: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        scale = f"x{self.scale}" if self.scale else "any scale"
        return f"{self.name}: {scale}, {self.channels} channels, {self.parameters:,} parameters; {self.trained_on}"


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a ``.safetensors`` file of this package from its header.

    Raises
    ------
    ModelError
        The file is missing or lacks such a header.
    """
    path = Path(path)
    header = read_header(path)
    description = parse_description(path, header)
    if description is None:
        raise ModelError(f"{path}: does not describe its network; it was not written by this package.")
    config: ModelConfig = description["configs"][0]
    return ModelCard(
        name=path.stem,
        path=path,
        scale=description.get("scale"),
        channels=config.channels,
        parameters=sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"),
        guard=description.get("guard"),
        noise=len(description["configs"]) == 1 and config.noise_channels > 0,  # ensembles do not use noise
        trained_on=description.get("trained_on") or "",
        scores=description.get("scores") or {},
        training=description.get("training") or {},
    )


def read_header(path: Path) -> dict[str, Any]:
    """Read the JSON header of a ``.safetensors`` file: names, types and shapes of its tensors, and its metadata.

    Raises
    ------
    ModelError
        The file cannot be read, or its header is invalid.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(_LARGEST_HEADER, os.fstat(file.fileno()).st_size - 8):
                raise ValueError("no header")
            header = json.loads(file.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                _check_shape(entry["shape"])
            elif not isinstance(entry, dict):
                raise TypeError("no metadata")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: is not a complete .safetensors file; download or save it again.") from error
    return dict(header)


def parse_description(path: Path, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return this package's description of the network in the metadata; None without one.

    Its ``configs`` are a list of `ModelConfig`, one per member of an ensemble.

    Raises
    ------
    ModelError
        The description is not valid.
    """
    written = header.get("__metadata__", {}).get("napari_mgbpv2")
    if written is None:
        return None
    try:
        description = dict(json.loads(written))
        description["configs"] = [ModelConfig.from_dict(config) for config in description["configs"]]
        if not description["configs"]:
            raise ValueError("it describes no network")
        for name, kind in _KINDS.items():
            if not isinstance(description.get(name), kind | None) or isinstance(description.get(name), bool):
                raise TypeError(f"{name} is {_short(description[name])}")
        for name, least, most in (("scale", 1, _LARGEST_SCALE), ("guard", 0, _LARGEST_GUARD)):
            value = description.get(name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} is {_short(value)}, not {least} to {most}")
        for name, score in (description.get("scores") or {}).items():
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not abs(score) <= sys.float_info.max:
                raise TypeError(f"the score {_short(name)} is {_short(score)}")
        # Terminals obey control characters.
        description["trained_on"] = _printable(description.get("trained_on") or "")
    except KeyError as error:
        raise ModelError(f"{path}: its description of the network is damaged ({error} is missing).") from error
    except (TypeError, ValueError, RecursionError, ModelError) as error:
        raise ModelError(f"{path}: its description of the network is damaged ({error}).") from error
    return description


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_shape(shape: Any) -> None:
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        raise TypeError("no shape")
    if not all(isinstance(size, int) and 0 <= size <= _LONGEST_AXIS for size in shape):
        raise ValueError("no shape")


def _short(value: Any) -> str:
    """Return a short representation of an untrusted value for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
