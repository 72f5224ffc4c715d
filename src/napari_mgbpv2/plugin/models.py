"""The models that the widgets offer: the packaged ones, the user's own, and those opened or trained meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.zoo import ModelCard, list_models, read_card

FOLDER_VARIABLE = "MGBPV2_MODELS"


def own_folder() -> Path:
    """Where the user's own models are: named by ``MGBPV2_MODELS``, else a folder in the home directory."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / "mgbpv2-models")


class ModelList:
    """Cards by path, and who wants to hear when there is a new one."""

    def __init__(self) -> None:
        self._added: dict[Path, ModelCard] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """All cards: packaged ones first, then the user's own by name."""
        own: dict[Path, ModelCard] = {}
        for path in sorted(own_folder().glob("*.safetensors")):
            try:
                own[path.resolve()] = read_card(path)
            except ModelError:
                continue  # not one of ours
        own |= {path: card for path, card in self._added.items() if path.is_file()}
        packaged = list_models()
        return (*packaged, *(card for card in own.values() if card not in packaged))

    def add(self, path: Path) -> ModelCard:
        """Add a model's file.

        Raises
        ------
        ModelError
            It is none.
        """
        card = self._added[path.resolve()] = read_card(path)
        for listener in list(self._listeners):
            listener()
        return card

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when a model has been added; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None


MODELS = ModelList()
