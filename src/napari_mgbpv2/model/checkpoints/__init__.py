"""Model files and networks: reading ours and the authors', finding the configuration, writing both kinds.

A file's tensors alone say which network they are; its name says nothing. Nothing in a file is ever executed: the
authors' files are pickles, and are read by torch's loader for weights only.
"""

from napari_mgbpv2.model.checkpoints.cards import card_of
from napari_mgbpv2.model.checkpoints.published import download_model
from napari_mgbpv2.model.checkpoints.reading import configuration_of, load_model, locate
from napari_mgbpv2.model.checkpoints.writing import export_model, published_state_dict, save_model, whole_model_file

__all__ = [
    "card_of",
    "configuration_of",
    "download_model",
    "export_model",
    "load_model",
    "locate",
    "published_state_dict",
    "save_model",
    "whole_model_file",
]
