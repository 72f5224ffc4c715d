"""Model files by the hash of their content, and one engine for each of them in a process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.checkpoints import load_model
from napari_mgbpv2.model.network import Network, fold_channels
from napari_mgbpv2.model.zoo import file_hash, find_model_by_hash
from napari_mgbpv2.runtime.device import get_device, run_on_engine_thread
from napari_mgbpv2.runtime.engine import Engine


@dataclass(frozen=True)
class ModelFile:
    """A model identified by its file and the hash of its content. Task graphs hold this instead of weights.

    Parameters
    ----------
    path
        The file.
    sha256
        Hash of its content, in hexadecimal.
    cycles
        Outer cycles nu, for files that do not state them; None for 1.
    """

    path: Path
    sha256: str
    cycles: int | None = None

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Identify a file by its present content."""
        return cls(path, file_hash(path))

    def load(self) -> Network:
        """Load the network, if the file is still the same. A packaged model may be in another folder on this machine.

        Raises
        ------
        ModelError
            The file is missing or has changed.
        """
        path = find_model_by_hash(self.path, self.sha256)
        if path is None:
            raise ModelError(f"{self.path}: the model has been changed or removed since the work was planned.")
        return load_model(path, cycles=self.cycles)


def get_engine(model: ModelFile, folded: bool, device: str, precision: str) -> Engine:
    """Return this process's engine for a model file; load the model on the first request.

    Parameters
    ----------
    model
        The file.
    folded
        Whether to fold a network of three equal channels into one of one channel, see `fold_channels`.
    device
        Name of the device, as `choose_device` returns it.
    precision
        Name of the precision, as `choose_precision` returns it.

    Raises
    ------
    ModelError
        The file is missing or has changed.
    """
    key = (model.sha256, model.cycles, folded, precision)
    return get_device(device).get_engine(key, lambda: make_engine(model.load(), folded, device, precision))


def make_engine(network: Network, folded: bool, device: str, precision: str) -> Engine:
    """Create an engine for a network in memory.

    Parameters
    ----------
    network
        The network. Its weights are copied.
    folded
        Whether to fold a network of three equal channels into one of one channel, see `fold_channels`.
    device
        Name of the device, as `choose_device` returns it.
    precision
        Name of the precision, as `choose_precision` returns it.
    """
    return Engine(run_on_engine_thread(lambda: fold_channels(network)) if folded else network, device, precision)
