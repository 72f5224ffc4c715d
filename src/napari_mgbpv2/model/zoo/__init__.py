"""Available models by name, and the cards of model files. Imports no torch, so that menus fill at once."""

from napari_mgbpv2.model.zoo.cards import ModelCard, file_hash, parse_description, read_card, read_header
from napari_mgbpv2.model.zoo.packaged import (
    DEFAULT_SCALE,
    WEIGHTS_FOLDER,
    default_model,
    find_model,
    find_model_by_hash,
    list_models,
)
from napari_mgbpv2.model.zoo.published import (
    LICENCE,
    PUBLISHED,
    PublishedModel,
    find_published,
    find_published_by_path,
    list_published,
    preset,
    verify_published_file,
)

__all__ = [
    "DEFAULT_SCALE",
    "LICENCE",
    "PUBLISHED",
    "WEIGHTS_FOLDER",
    "ModelCard",
    "PublishedModel",
    "default_model",
    "file_hash",
    "find_model",
    "find_model_by_hash",
    "find_published",
    "find_published_by_path",
    "list_models",
    "list_published",
    "parse_description",
    "preset",
    "read_card",
    "read_header",
    "verify_published_file",
]
