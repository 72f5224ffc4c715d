"""The training loop of the fidelity track: equation 1, from scratch, on any stream of patches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_mgbpv2.network import MGBPv2
from napari_mgbpv2.training.losses import multiscale_l1


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train.

    Parameters
    ----------
    minutes
        Wall time; the learning rate falls from ``learning_rate`` to nearly zero along half a cosine over it.
    learning_rate
        Peak step size of Adam, reached after ``warm_up`` steps.
    averaging
        Decay a step of the moving average of the weights, which is what is returned.
    """

    minutes: float
    learning_rate: float = 1e-3
    warm_up: int = 100
    averaging: float = 0.998
    largest_gradient: float = 1.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, share of its time used, mean loss since the last report."""

    step: int
    share: float
    loss: float


def start_as_bicubic(network: MGBPv2) -> None:
    """Set the first and last weights so that the untrained network returns nearly its input.

    The image passes from the top analysis through the synthesis (1x1 both); the last upscalings begin small.
    Training then starts at the score of bicubic upscaling instead of climbing to it.
    """
    top, channels = network.config.levels - 1, network.config.channels
    analysis, synthesis = network.get_submodule(f"Analysis_{top}"), network.get_submodule("Synthesis")
    with torch.no_grad():
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


def train(
    network: MGBPv2,
    batches: Iterable[tuple[Tensor, Tensor]],
    plan: TrainingPlan,
    report: Callable[[Progress, nn.Module], None] | None = None,
    report_every: int = 100,
) -> MGBPv2:
    """Train in place and return the network with the moving average of its weights.

    Parameters
    ----------
    network
        Trained where it is (device and layout).
    batches
        Endless (input, target) pairs of (B, C, H, W) in [0, 1] at target resolution.
    plan
        Time and step sizes.
    report
        Called every ``report_every`` steps with the progress and the averaged network.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(network.parameters(), lr=plan.learning_rate, betas=(0.9, 0.99))
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(plan.averaging))  # type: ignore[no-untyped-call]
    start, losses = time.monotonic(), []
    for step, (image, target) in enumerate(batches):
        share = (time.monotonic() - start) / (60 * plan.minutes)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * min(1.0, (step + 1) / plan.warm_up) * _half_cosine(share)
        image = image.to(device, memory_format=torch.channels_last)
        loss = multiscale_l1(network(image), target.to(device))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} at step {step}; use a smaller learning rate.")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), plan.largest_gradient)
        optimiser.step()
        averaged.update_parameters(network)
        losses.append(loss.item())
        if report is not None and (step + 1) % report_every == 0:
            report(Progress(step + 1, share, sum(losses) / len(losses)), averaged.module)
            losses.clear()
    network.load_state_dict(averaged.module.state_dict())
    return network


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(1.0, share))))) + 1e-3
