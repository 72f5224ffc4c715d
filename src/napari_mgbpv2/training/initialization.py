"""Prepare a run: its initial network, its objective and its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from napari_mgbpv2.errors import TrainingError
from napari_mgbpv2.model.checkpoints import load_model
from napari_mgbpv2.model.network import MGBPv2, configurations, fold_channels
from napari_mgbpv2.model.zoo import default_model
from napari_mgbpv2.training.discriminator import Discriminator
from napari_mgbpv2.training.features import load_feature_network
from napari_mgbpv2.training.objectives import Fidelity, Objective, Perceptual
from napari_mgbpv2.training.options import PATHS_HASH, TrainingOptions
from napari_mgbpv2.training.state import STATE_FILE, write_file
from napari_mgbpv2.training.synthetic import KINDS


def initialize_as_bicubic(network: MGBPv2) -> None:
    """Set the first and last weights so that the untrained network returns its input, or nearly.

    A residual network returns exactly its input if its synthesis is zero. In the authors' form, the image passes from
    the top analysis through the synthesis (1x1 both), and the last upscalings begin small. Training then starts at the
    score of bicubic upscaling instead of climbing to it.
    """
    top, channels = network.config.levels - 1, network.config.channels
    analysis, synthesis = network.get_submodule(f"Analysis_{top}"), network.get_submodule("Synthesis")
    assert isinstance(synthesis, nn.Conv2d)
    with torch.no_grad():
        if network.config.residual:
            synthesis.weight.zero_()
            return
        for layer in (analysis, synthesis):
            assert isinstance(layer, nn.Conv2d)
            layer.weight[:channels] = 0.0
            for channel in range(channels):
                layer.weight[channel, channel] = 1.0
            if layer.bias is not None:
                layer.bias[:channels] = 0.0
        for name, parameter in network.named_parameters():
            if name.startswith(f"Upscale_{top}-"):
                parameter.mul_(0.1)


def add_noise_input(network: MGBPv2) -> MGBPv2:
    """Return a network of the same weights with a noise input that has no effect yet.

    The weights after the noise are zero; the weights before it are random, as in a new network.
    """
    config = replace(network.config, noise_channels=1)
    result = MGBPv2(config)
    result.scale, result.guard = network.scale, network.guard
    state, given = result.state_dict(), network.state_dict()
    for name, tensor in given.items():
        new = state[name]
        if new.shape != tensor.shape:  # an upscaling, whose last concatenated features are the noise
            new.zero_()
            new[: len(tensor)] = tensor
        else:
            new.copy_(tensor)
    return result


def make_initial_network(options: TrainingOptions) -> MGBPv2:
    """Load or make the initial network of a run, with its scale set.

    Raises
    ------
    TrainingError
        The network does not fit the options.
    """
    if options.init == "scratch":
        torch.manual_seed(options.seed)
        assert options.scale is not None
        made = MGBPv2(replace(options.config, border_multiple=options.scale))
        initialize_as_bicubic(made)
        made.scale = options.scale
        return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    channels = KINDS[options.synthetic].channels if options.synthetic and not options.files else 3
    source = options.init or default_model(options.scale, channels).path
    network = load_model(source)
    if channels == 1 and configurations(network)[0].channels != 1:
        network = fold_channels(network)  # the same result as from the colour network for grey images
    if not isinstance(network, MGBPv2):
        raise TrainingError(f"{source}: is an ensemble; train its networks one by one.")
    if options.scale is not None and network.scale not in (None, options.scale):
        raise TrainingError(
            f"{source}: upscales {network.scale} times, not {options.scale}; choose another --init or --scale."
        )
    network.scale = network.scale or options.scale
    if network.scale is None:
        raise TrainingError(f"{source}: does not say its scale; give --scale.")
    network.config = replace(network.config, border_multiple=network.scale)  # the alignment of training crops
    if options.track == "perceptual" and not network.config.noise_channels:
        torch.manual_seed(options.seed)
        network = add_noise_input(network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_objective(options: TrainingOptions, network: MGBPv2, device: torch.device) -> Objective:
    """Make the objective of a track on a device."""
    if options.track == "fidelity":
        return Fidelity()
    features = None
    if options.feature_network != "none":
        features = load_feature_network(options.feature_network).to(device)
    torch.manual_seed(options.seed + 1)
    discriminator = Discriminator(network.config.channels, statistics=options.discriminator_statistics)
    return Perceptual(discriminator.to(device), features)


def claim_folder(options: TrainingOptions, state: dict[str, Any] | None, overwrite: bool) -> None:
    """Claim the run's folder for a new run or, with its state, for a resumed one.

    Raises
    ------
    TrainingError
        Another run or a model exists, or the folder cannot be made.
    """
    folder = options.folder
    if state is not None:
        before = json.loads(state["options"])
        if (differs := options.first_difference(before)) == PATHS_HASH:
            raise TrainingError(
                f"{folder}: was begun with other images, or from another model, by their paths; use the same as then, "
                "or another -o."
            )
        if differs:
            raise TrainingError(
                f"{folder}: was begun with {differs} = {before.get(differs)!r}, and the options now give "
                f"{options.to_dict()[differs]!r}; use the same value, or another -o."
            )
        return
    taken = next((path for path in (options.output, folder / STATE_FILE) if path.exists()), None)
    if taken is not None and not overwrite:
        raise TrainingError(
            f"{taken} exists already; --resume continues the run, --overwrite replaces it, or choose another -o."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be made ({error.strerror}).") from error
    write_file(folder / "options.json", (json.dumps(options.public_record(), indent=2) + "\n").encode())
