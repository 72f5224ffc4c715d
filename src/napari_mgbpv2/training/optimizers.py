"""Make the optimisers of the paper with their published parameters, or AdamW; schedule the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from napari_mgbpv2.errors import TrainingError


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Make an optimiser.

    Parameters
    ----------
    name
        "adamw"; "qhadam" with nus (0.7, 1.0) and betas (0.995, 0.999), as its authors recommend; or
        "lookahead-radam", with k = 5 and alpha = 0.5.
    parameters
        Parameters to train.
    learning_rate
        Step size.
    """
    parameters = list(parameters)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    from pytorch_optimizer import Lookahead, QHAdam

    if name == "qhadam":
        # the defaults of this class are those of plain Adam
        return QHAdam(parameters, lr=learning_rate, nus=(0.7, 1.0), betas=(0.995, 0.999))
    if name == "lookahead-radam":
        return Lookahead(torch.optim.RAdam(parameters, lr=learning_rate), k=5, alpha=0.5)
    raise TrainingError(f"optimizer is {name!r}; choose one of adamw, qhadam, lookahead-radam.")


def learning_rate_at(peak: float, schedule: str, warm_up: int, step: int, share: float) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    peak
        Its largest value.
    schedule
        "cosine" or "constant".
    warm_up
        Steps over which it rises.
    step
        Number of the step, from 0.
    share
        Share of the run that is over, 0 to 1.
    """
    risen = min(1.0, (step + 1) / (warm_up + 1))
    fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, share))) if schedule == "cosine" else 1.0
    return peak * risen * max(fallen, 1e-3)
