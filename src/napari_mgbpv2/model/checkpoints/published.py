"""Bringing the authors' files: from where they have published them, or from a file that somebody has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from napari_mgbpv2.addresses import display_path, expand_path, redact
from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints.reading import as_float32, check_tensors, is_torch_file, read_torch_file
from napari_mgbpv2.model.checkpoints.writing import published_state_dict
from napari_mgbpv2.model.downloads import download
from napari_mgbpv2.model.network import Ensemble, MGBPv2
from napari_mgbpv2.model.zoo import PublishedModel, file_hash, find_published
from napari_mgbpv2.paths import atomic_file, write_atomically


def download_model(name: str, source: str | os.PathLike[str] | None = None) -> Path:
    """Bring a published model onto this machine, if it is not there already, and record its SHA-256.

    Nobody has published a hash of these files. So names and shapes of all tensors are compared with those of the
    published network, and the hash that the file has then is recorded beside it: `load_model` holds it to that, and so
    does a further download.

    Parameters
    ----------
    name
        Of the model.
    source
        Another address to get it from, or a file that has been downloaded otherwise; by default the authors' address.

    Returns
    -------
    Path
        The file, in the folder that `napari_mgbpv2.model.downloads.cache_folder` gives.

    Raises
    ------
    ModelError
        There is no such model; what came is not its file, or not the one that was here before; or the connection broke,
        and the next call goes on from there.
    """
    model = find_published(name)
    origin = model.url if source is None else expand_path(os.fspath(source))

    def accept(path: Path) -> None:
        _check(model, path, display_path(origin))
        if model.recorded_hash is None:  # before the file has its name: it is never there unrecorded
            write_atomically(model.hash_path, f"{file_hash(path)}  {model.file_name}\n".encode())

    try:
        if origin.startswith(("http://", "https://")):
            download(origin, model.path, check=accept, sha256=model.recorded_hash)
            if model.recorded_hash is None:  # somebody has put it there
                accept(model.path)
        else:
            model.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(model.path) as copy:
                shutil.copyfile(origin, copy)
                accept(copy)
    except OSError as error:  # the network, the server or the disk; those of requests are OSErrors, too
        raise ModelError(
            f"{display_path(origin)}: could not be brought ({redact(str(error))}); run the same again to go on, or get "
            f"the file otherwise and say `mgbpv2-models download {name} --from FILE`."
        ) from error
    return model.path


def _check(model: PublishedModel, path: Path, origin: str) -> None:
    """Refuse what is not the file of a published model, or another than the one that was here before."""
    try:
        if not is_torch_file(path):
            raise ModelError("it is no file of torch's")
        state = read_torch_file(path)
        with torch.device("meta"):  # names and shapes only
            network = Ensemble(model.configs) if len(model.configs) > 1 else MGBPv2(model.configs[0])
        expected = published_state_dict(network)
        check_tensors(path, state, {key: tuple(tensor.shape) for key, tensor in expected.items()})
        as_float32(path, state)
    except ModelError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise ModelError(f"{origin}: is not the file of {model.name} and was not kept: {reason}.") from error
    recorded, found = model.recorded_hash, file_hash(path)
    if recorded not in (None, found):
        raise ModelError(
            f"{origin}: is another file than the {model.name} that was here before, its SHA-256 begins with "
            f"{found[:8]} instead of {str(recorded)[:8]}, and was not kept; to accept it, delete {model.hash_path}."
        )
