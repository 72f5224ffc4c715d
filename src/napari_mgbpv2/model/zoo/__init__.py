"""The models that there are, by name, and the cards of model files: torch-free, so that menus fill at once."""

from napari_mgbpv2.model.zoo.cards import ModelCard, description_of, file_hash, read_card, read_header
from napari_mgbpv2.model.zoo.packaged import DEFAULT_SCALE, FOLDER, default_model, find_content, find_model, list_models
from napari_mgbpv2.model.zoo.published import (
    LICENCE,
    PUBLISHED,
    PublishedModel,
    find_published,
    list_published,
    preset,
    published_at,
    published_file,
)

__all__ = [
    "DEFAULT_SCALE",
    "FOLDER",
    "LICENCE",
    "PUBLISHED",
    "ModelCard",
    "PublishedModel",
    "default_model",
    "description_of",
    "file_hash",
    "find_content",
    "find_model",
    "find_published",
    "list_models",
    "list_published",
    "preset",
    "published_at",
    "published_file",
    "read_card",
    "read_header",
]
