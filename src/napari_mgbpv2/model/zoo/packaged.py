"""Packaged models by name."""

from __future__ import annotations

import os
from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.zoo.cards import ModelCard, file_hash, read_card

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT_SCALE = 4  # if none is given


def list_models() -> tuple[ModelCard, ...]:
    """Return the cards of all packaged models, sorted by scale, colour models first, and name."""
    cards = (read_card(path) for path in WEIGHTS_FOLDER.glob("*.safetensors"))
    return tuple(sorted(cards, key=lambda card: (card.scale or 0, -card.channels, card.name)))


def find_model(name: str) -> ModelCard:
    """Return the card of a packaged model.

    Raises
    ------
    ModelError
        The name is unknown.
    """
    cards = list_models()
    for card in cards:
        if card.name == name:
            return card
    raise ModelError(
        f"there is no model {name!r}: it is neither a file nor a packaged model, "
        f"which are {', '.join(card.name for card in cards)}."
    )


def default_model(scale: int | None, channels: int = 3) -> ModelCard:
    """Return the card of the packaged model for an image without a named model.

    Parameters
    ----------
    scale
        Upscaling factor; None for `DEFAULT_SCALE`.
    channels
        Preferred number of channels: 3, or 1 for the microscopy models. If the scale lacks such a model, return its
        first one. A colour network takes a single channel by exact folding.

    Raises
    ------
    ModelError
        No packaged model has that scale.
    """
    cards = list_models()
    of_scale = [card for card in cards if card.scale == (DEFAULT_SCALE if scale is None else scale)]
    if not of_scale:
        offered = ", ".join(dict.fromkeys(str(card.scale) for card in cards if card.scale))
        raise ModelError(f"no packaged model upscales {scale} times; scales with a model: {offered}.")
    return next((card for card in of_scale if card.channels == channels), of_scale[0])


def find_model_by_hash(path: str | os.PathLike[str], sha256: str) -> Path | None:
    """Return a model file with the expected content, or None.

    Parameters
    ----------
    path
        Expected path. If the file is missing or differs, a packaged model of the same file name is tried, because this
        package may be in another folder on another machine.
    sha256
        Hash of the content, in hexadecimal.
    """
    given = Path(path)
    for candidate in (given, WEIGHTS_FOLDER / given.name):
        if candidate.is_file() and file_hash(candidate) == sha256:
            return candidate
    return None
