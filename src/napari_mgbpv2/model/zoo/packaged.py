"""The models that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.zoo.cards import ModelCard, file_hash, read_card

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT_SCALE = 4  # where nobody says one


def list_models() -> tuple[ModelCard, ...]:
    """Cards of all packaged models, by scale, those of colours first, and by name."""
    cards = (read_card(path) for path in WEIGHTS_FOLDER.glob("*.safetensors"))
    return tuple(sorted(cards, key=lambda card: (card.scale or 0, -card.channels, card.name)))


def find_model(name: str) -> ModelCard:
    """Card of a packaged model.

    Raises
    ------
    ModelError
        There is none of that name.
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
    """Card of the packaged model that an image gets when none is named.

    Parameters
    ----------
    scale
        Upscaling factor; `DEFAULT_SCALE` where none is given.
    channels
        Of the network, at best: 3, or 1 for the microscopy models. Where the scale has none of as many, it is the
        first of another number, and a single channel goes through a network of colours by exact folding.

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
    """Return a model file that has the expected content; None where there is none.

    Parameters
    ----------
    path
        Where it was. Where it is missing or another file, a packaged model of the same name is tried: another machine
        may have this package in another folder.
    sha256
        Hash of the content, in hexadecimal.
    """
    given = Path(path)
    for candidate in (given, WEIGHTS_FOLDER / given.name):
        if candidate.is_file() and file_hash(candidate) == sha256:
            return candidate
    return None
