"""Download of the authors' model files, from their own address or another source."""

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
    """Download a published model, unless it is on this machine, and record its SHA-256.

    The authors have not published hashes of their files. The names and shapes of all tensors are therefore compared
    with those of the published network, and the hash of the file is recorded in a file next to it. `load_model` and
    later downloads require the same hash.

    Parameters
    ----------
    name
        Name of the model.
    source
        Another address, or a file that has been downloaded by other means. By default the authors' address.

    Returns
    -------
    Path
        The file, in the folder that `napari_mgbpv2.model.downloads.cache_folder` returns.

    Raises
    ------
    ModelError
        The model is unknown; the file is not that of the model, or has another hash than before; or the connection
        broke. In the last case the next call resumes the download.
    """
    model = find_published(name)
    origin = model.url if source is None else expand_path(os.fspath(source))

    def accept(path: Path) -> None:
        _check(model, path, display_path(origin))
        if model.recorded_hash is None:  # The record must precede the file's name.
            write_atomically(model.hash_path, f"{file_hash(path)}  {model.file_name}\n".encode())

    try:
        if origin.startswith(("http://", "https://")):
            download(origin, model.path, check=accept, sha256=model.recorded_hash)
            if model.recorded_hash is None:  # The file was put there by other means.
                accept(model.path)
        else:
            model.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(model.path) as copy:
                shutil.copyfile(origin, copy)
                accept(copy)
    except OSError as error:  # of the network, the server or the disk; those of requests are OSErrors, too
        raise ModelError(
            f"{display_path(origin)}: cannot be downloaded ({redact(str(error))}); run the command again to resume, or "
            f"get the file by other means and run `mgbpv2-models download {name} --from FILE`."
        ) from error
    return model.path


def _check(model: PublishedModel, path: Path, origin: str) -> None:
    """Raise `ModelError` unless this is the file of a published model, and the same one as before."""
    try:
        if not is_torch_file(path):
            raise ModelError("it is not a torch file")
        state = read_torch_file(path)
        with torch.device("meta"):  # names and shapes only
            network = Ensemble(model.configs) if len(model.configs) > 1 else MGBPv2(model.configs[0])
        expected = published_state_dict(network)
        check_tensors(path, state, {key: tuple(tensor.shape) for key, tensor in expected.items()})
        as_float32(path, state)
    except ModelError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise ModelError(f"{origin}: is not the file of {model.name} and was discarded: {reason}.") from error
    recorded, found = model.recorded_hash, file_hash(path)
    if recorded not in (None, found):
        raise ModelError(
            f"{origin}: is another file than the earlier {model.name}: its SHA-256 begins with {found[:8]} "
            f"instead of {str(recorded)[:8]}. It was discarded; to accept it, delete {model.hash_path}."
        )
