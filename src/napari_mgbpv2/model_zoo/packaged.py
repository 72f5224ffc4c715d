"""The models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model_zoo.cards import ModelCard, read_card

FOLDER = Path(__file__).parents[1] / "models"
DEFAULT_SCALE = 4  # where nobody says one


def list_models() -> tuple[ModelCard, ...]:
    """Cards of all packaged models, by scale and name."""
    cards = (read_card(path) for path in FOLDER.glob("*.safetensors"))
    return tuple(sorted(cards, key=lambda card: (card.scale or 0, card.name)))


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


def default_model(scale: int | None) -> ModelCard:
    """Card of the packaged model that a scale gets when none is named; that of `DEFAULT_SCALE` where no scale is given.

    Raises
    ------
    ModelError
        No packaged model has that scale.
    """
    cards = list_models()
    for card in cards:
        if card.scale == (DEFAULT_SCALE if scale is None else scale):
            return card
    offered = ", ".join(dict.fromkeys(str(card.scale) for card in cards if card.scale))
    raise ModelError(f"no packaged model upscales {scale} times; scales with a model: {offered}.")
