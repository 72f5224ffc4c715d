"""Run several processes together: each takes its share of every batch, and gradients are averaged.

``torchrun --nproc-per-node N -m napari_mgbpv2.cli.finetune ...`` starts N of them, one per GPU. The gradients of
a step are averaged once, after all of its micro-batches and passes, so the result equals that of one process with the
whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import TracebackType

import torch
import torch.distributed as dist
from torch import nn

from napari_mgbpv2.training.options import TrainingOptions


class ProcessGroup:
    """Processes of a run; a single process is a group of one.

    Parameters
    ----------
    rank, size
        Index of this process, and number of processes.
    device
        Device assigned to this process; None to choose.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device

    @classmethod
    def from_environment(cls, options: TrainingOptions) -> ProcessGroup:
        """Join the processes of torchrun, or make a group of one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        on_cuda = torch.cuda.is_available() and not (options.device or "cuda").startswith("cpu")
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_cuda else "cpu"
        dist.init_process_group("nccl" if on_cuda else "gloo")
        return cls(dist.get_rank(), size, device)

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_leader(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def mean(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of each number over the processes."""
        if self.size == 1:
            return dict(numbers)
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(numbers, (values / self.size).tolist(), strict=True))

    def agree(self, number: float) -> float:
        """Return the number of the first process, so all processes continue or end together."""
        if self.size == 1:
            return number
        value = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.broadcast(value, 0)
        return float(value)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all processes get the same answer."""
        return self.mean({"flag": float(flag)})["flag"] > 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


def average_gradients(parameters: Iterable[nn.Parameter], process_group: ProcessGroup) -> None:
    """Replace every gradient by its mean over the processes."""
    if process_group.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= process_group.size
    first = 0
    for gradient in gradients:
        gradient.copy_(flat[first : first + gradient.numel()].view_as(gradient))
        first += gradient.numel()
