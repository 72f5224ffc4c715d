"""Cards of model files of every kind."""

from __future__ import annotations

from pathlib import Path

from napari_mgbpv2.model.checkpoints.reading import is_torch_file
from napari_mgbpv2.model.network import MGBPv2, Network, configurations
from napari_mgbpv2.model.zoo import ModelCard, find_published_by_path, parse_description, read_header


def make_card(path: Path, network: Network) -> ModelCard:
    """Return the card of a model, from its network and the metadata of its file or publication.

    Parameters
    ----------
    path
        The file.
    network
        The network that `load_model` returned for the file.
    """
    metadata = {} if is_torch_file(path) else parse_description(path, read_header(path)) or {}
    if published := find_published_by_path(path):
        metadata = {"trained_on": published.trained_on}
    config = configurations(network)[0]
    return ModelCard(
        name=path.stem,
        path=path,
        scale=network.scale,
        channels=config.channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        guard=network.guard,
        noise=isinstance(network, MGBPv2) and config.noise_channels > 0,
        trained_on=metadata.get("trained_on") or "",
        scores=metadata.get("scores") or {},
        training=metadata.get("training") or {},
    )
