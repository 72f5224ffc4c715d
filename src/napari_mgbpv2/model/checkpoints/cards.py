"""Cards of model files of every kind."""

from __future__ import annotations

from pathlib import Path

from napari_mgbpv2.model.checkpoints.reading import is_torch_file
from napari_mgbpv2.model.network import MGBPv2, Network, configurations
from napari_mgbpv2.model.zoo import ModelCard, find_published_by_path, parse_description, read_header


def make_card(path: Path, network: Network) -> ModelCard:
    """Make the card of a model: what its network says, and what its file or its publication tells beside that.

    Parameters
    ----------
    path
        The file.
    network
        What `load_model` has made of it.
    """
    told = {} if is_torch_file(path) else parse_description(path, read_header(path)) or {}
    if published := find_published_by_path(path):
        told = {"trained_on": published.trained_on}
    config = configurations(network)[0]
    return ModelCard(
        name=path.stem,
        path=path,
        scale=network.scale,
        channels=config.channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        guard=network.guard,
        noise=isinstance(network, MGBPv2) and config.noise_channels > 0,
        trained_on=told.get("trained_on") or "",
        scores=told.get("scores") or {},
        training=told.get("training") or {},
    )
