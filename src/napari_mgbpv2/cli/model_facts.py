"""What is known of models, as plain values that are ready for JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.zoo import (
    LICENCE,
    PUBLISHED,
    ModelCard,
    PublishedModel,
    file_hash,
    list_models,
    list_published,
    preset,
)


def facts_of_all() -> list[dict[str, Any]]:
    """Return the facts of all packaged and published models, without reading their weights."""
    return [*map(_of_card, list_models()), *map(_of_published, list_published())]


def facts_of(source: str) -> dict[str, Any]:
    """All that is known of one model, by its name or file.

    Raises
    ------
    ModelError
        There is no such model, or its file is damaged.
    """
    published = PUBLISHED.get(source)
    if published is not None and not published.is_here and not os.path.isfile(source):
        return _of_published(published) | _of_networks(published.configs)
    from napari_mgbpv2.model.checkpoints import find_model_file, load_model, make_card
    from napari_mgbpv2.model.network import configurations

    path = find_model_file(source)
    network = load_model(path)
    facts = _of_card(make_card(path, network)) | {"sha256": file_hash(path)} | _of_networks(configurations(network))
    return facts if published is None else facts | _of_published(published)


def _of_card(card: ModelCard) -> dict[str, Any]:
    facts = asdict(card) | {"path": str(card.path), "here": card.path.is_file()}
    return facts | ({"bytes": card.path.stat().st_size} if facts["here"] else {})


def _of_published(model: PublishedModel) -> dict[str, Any]:
    facts = {"bytes": round(model.size)} | _of_card(model.card) | {"here": model.is_here}
    return facts | {"url": model.url, "licence": LICENCE, "preset": preset(model.name)}


def _of_networks(configs: Sequence[ModelConfig]) -> dict[str, Any]:
    return {"reach": max(config.reach for config in configs), "networks": [config.to_dict() for config in configs]}
