"""Load the network of a plan and check its noise input."""

from __future__ import annotations

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.network import Network, accepts_noise
from napari_mgbpv2.runtime import ModelFile
from napari_mgbpv2.upscaling import UpscalePlan


def load_network(plan: UpscalePlan) -> Network:
    """Load the network of a plan, or return the one in memory, which callers must not change."""
    model = plan.compute_tile.model
    return model.load() if isinstance(model, ModelFile) else model


def require_noise(plan: UpscalePlan) -> None:
    """Refuse a network without a noise input.

    Raises
    ------
    ModelError
        The network has no noise input, or is an ensemble.
    """
    if not accepts_noise(load_network(plan)):
        raise ModelError(
            f"the model {plan.model} has no noise input, so it invents nothing that an amplitude could change; "
            "choose a model with one."
        )
