"""Model files: read this package's and the authors' files, infer the configuration, and write both kinds.

The tensors of a file determine the network; the file name does not matter. Nothing in a file is ever executed: the
authors' files are pickles, and torch reads them with its loader for weights only.
"""

from napari_mgbpv2.model.checkpoints.cards import make_card
from napari_mgbpv2.model.checkpoints.published import download_model
from napari_mgbpv2.model.checkpoints.reading import find_model_file, infer_config, load_model
from napari_mgbpv2.model.checkpoints.writing import atomic_model_file, export_model, published_state_dict, save_model

__all__ = [
    "atomic_model_file",
    "download_model",
    "export_model",
    "find_model_file",
    "infer_config",
    "load_model",
    "make_card",
    "published_state_dict",
    "save_model",
]
