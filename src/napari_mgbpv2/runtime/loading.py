"""Models by what their files hold, and one engine for each of them in a process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints import load_model
from napari_mgbpv2.model.network import Network, fold_channels
from napari_mgbpv2.model.zoo import file_hash, find_model_by_hash
from napari_mgbpv2.runtime.engine import Engine
from napari_mgbpv2.runtime.thread import run_on_engine_thread

_engines: dict[tuple[str, bool, str, str], Engine] = {}
_registry_lock = threading.RLock()  # held while a model is loaded: whoever asks for it meanwhile waits


@dataclass(frozen=True)
class ModelFile:
    """A model named by its file and the hash of its content: what a graph holds instead of weights.

    Parameters
    ----------
    path
        The file.
    sha256
        Hash of its content, in hexadecimal.
    cycles
        As `load_model` has it.
    """

    path: Path
    sha256: str
    cycles: int | None = None

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Name a file by what it holds now."""
        return cls(path, file_hash(path))

    def load(self) -> Network:
        """Load the network, if the file is still the same; that of a packaged model may lie in another folder here.

        Raises
        ------
        ModelError
            The file has gone or changed.
        """
        path = find_model_by_hash(self.path, self.sha256)
        if path is None:
            raise ModelError(f"{self.path}: the model has been changed or removed since the work was planned.")
        return load_model(path, cycles=self.cycles)


def get_engine(model: ModelFile, folded: bool, device: str, precision: str) -> Engine:
    """Return this process's engine for a model file; loads it when it is asked for first.

    Parameters
    ----------
    model
        The file.
    folded
        Whether a network of three equal channels is to stand as one of one channel, see `fold_channels`.
    device, precision
        Names, as `choose_device` and `choose_precision` give them.
    """
    key = (f"{model.sha256}:{model.cycles}", folded, device, precision)
    with _registry_lock:
        if key not in _engines:
            _engines[key] = engine_of(model.load(), folded, device, precision)
        return _engines[key]


def engine_of(network: Network, folded: bool, device: str, precision: str) -> Engine:
    """Make an engine for a network in memory; parameters as `get_engine` has them."""
    ready = run_on_engine_thread(lambda: fold_channels(network)) if folded else network
    return Engine(ready, torch.device(device), precision)
