"""Take optimization steps: forward and backward passes, gradient averaging, optimisers and moving average.

This module owns everything that a step changes. `trainer` decides when steps happen, `objectives` what they minimise.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_mgbpv2.errors import TrainingError
from napari_mgbpv2.model.network import MGBPv2
from napari_mgbpv2.training.objectives import Objective, step_generator, to_floats
from napari_mgbpv2.training.optimizers import make_optimizer
from napari_mgbpv2.training.options import TrainingOptions
from napari_mgbpv2.training.process_group import ProcessGroup, average_gradients

MAX_GRADIENT_NORM = 1.0  # gradients of a larger norm are clipped


class OptimizationStep:
    """Trained network with its objective and its optimisers.

    Parameters
    ----------
    network
        Trained in place; on the device already.
    objective
        Objective to minimise.
    options
        Options of the run.
    precision
        "float32", "bfloat16" or "float16" for the forward passes.
    process_group
        The processes that average their gradients.
    """

    def __init__(
        self,
        network: MGBPv2,
        objective: Objective,
        options: TrainingOptions,
        precision: str,
        process_group: ProcessGroup,
    ) -> None:
        self.network, self.objective, self.options, self.process_group = (
            network.train().requires_grad_(True),
            objective,
            options,
            process_group,
        )
        self.device = next(network.parameters()).device
        self.dtype = getattr(torch, precision)
        self.micro_batch = options.batch_size
        self.optimizer = make_optimizer(options.optimizer, network.parameters(), options.learning_rate)
        self.discriminator_optimizer: torch.optim.Optimizer | None = None
        if objective.discriminator is not None:
            rate = options.discriminator_learning_rate
            self.discriminator_optimizer = make_optimizer(options.optimizer, objective.discriminator.parameters(), rate)
        self.average = AveragedModel(
            network,
            multi_avg_fn=get_ema_multi_avg_fn(options.averaging),  # type: ignore[no-untyped-call]
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def take_step(self, step: int, batch: tuple[Tensor, Tensor], learning_rate: float) -> dict[str, float]:
        """Take one step of the optimisers.

        Parameters
        ----------
        step
            Number of the step. With the seed, it determines all randomness.
        batch
            This process's share of the inputs and targets, (B, C, H, W) each.
        learning_rate
            Learning rate of the network.

        Returns
        -------
        dict
            Parts of the loss by name, averaged over all processes.

        Raises
        ------
        TrainingError
            The loss is not finite, in which case the weights are unchanged; or a single patch does not fit into the
            device's memory.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        parts = self._accumulate(step, batch)
        # averaged before the check for infinities, so all processes skip the same steps
        average_gradients(self.network.parameters(), self.process_group)
        self.scaler.unscale_(self.optimizer)
        norms = [_clip_gradients(self.network)]
        if self.objective.discriminator is not None:
            average_gradients(self.objective.discriminator.parameters(), self.process_group)
            norms.append(_clip_gradients(self.objective.discriminator))
        finite = all(map(math.isfinite, [parts["loss"], *norms]))
        if not finite and not self.scaler.is_enabled():  # a scaler skips such steps
            raise TrainingError(
                f"the loss is {parts['loss']:g} and its gradient {norms[0]:g} at step {step}: training has diverged. "
                "Use a lower --lr."
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.discriminator_optimizer is not None and finite:
            self.discriminator_optimizer.step()
        self.average.update_parameters(self.network)
        return parts

    def averaged(self) -> MGBPv2:
        """Return a copy of the network with the averaged weights, or with its own if averaging is off."""
        source = self.average.module if self.options.averaging else self.network
        copied: MGBPv2 = copy.deepcopy(source)  # type: ignore[assignment]
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        discriminator, optimizer = self.objective.discriminator, self.discriminator_optimizer
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "opponent": discriminator.state_dict() if discriminator is not None else {},
            "opponents_optimizer": optimizer.state_dict() if optimizer is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.objective.discriminator is not None and self.discriminator_optimizer is not None:
            self.objective.discriminator.load_state_dict(state["opponent"])
            self.discriminator_optimizer.load_state_dict(state["opponents_optimizer"])

    def _accumulate(self, step: int, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Accumulate the gradients of a batch over micro-batches, and halve these when device memory runs out."""
        while True:
            self.optimizer.zero_grad()
            if self.discriminator_optimizer is not None:
                self.discriminator_optimizer.zero_grad()
            try:
                return self._gradients(step, batch)
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    size = batch[0].shape[-1]
                    raise TrainingError(
                        f"a single patch of {size} px does not fit into the memory of {self.device}; "
                        "use a smaller --patch-size."
                    ) from None
            # outside of the except block, because the error retains the tensors to free
            self.micro_batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradients(self, step: int, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        sums: dict[str, float] = {}
        size = len(batch[0])
        for first in range(0, size, self.micro_batch):
            image, target = (
                part[first : first + self.micro_batch].to(self.device, memory_format=torch.channels_last)
                for part in batch
            )
            share = len(image) / size
            generator = step_generator(self.options.seed, step, self.process_group.rank, first)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                losses = self.objective.losses(self.network, image, target, generator)
            self.scaler.scale(losses.total * share).backward()  # type: ignore[no-untyped-call]
            if losses.discriminator_loss is not None:
                (losses.discriminator_loss * share).backward()  # type: ignore[no-untyped-call]
            for name, value in to_floats(losses.parts).items():
                sums[name] = sums.get(name, 0.0) + value * share
        return self.process_group.mean(sums)


def _clip_gradients(module: nn.Module) -> float:
    """Clip the gradients of a module and return their norm before."""
    return float(nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM))
