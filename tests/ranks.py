"""What the processes of a training run do together: functions that `TwoRanks` runs in two processes, over gloo."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from examples import a_network
from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.training.objectives import Fidelity
from napari_mgbpv2.training.optimization_step import OptimizationStep
from napari_mgbpv2.training.options import make_options
from napari_mgbpv2.training.process_group import ProcessGroup
from napari_mgbpv2.training.trainer import train

SECONDS = 300  # after which processes wait for each other for ever


class TwoRanks:
    """Two processes that stay, so that torch is imported once."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(2, get_context("spawn"))

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function in both, with its rank first; return what each has returned."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [self._pool.submit(_as_rank, rank, port, function, arguments) for rank in range(2)]
        return [rank.result(timeout=SECONDS) for rank in ranks]

    def close(self) -> None:
        """End both, also where they wait for each other."""
        for process in list(self._pool._processes.values()):
            process.kill()
        self._pool.shutdown(cancel_futures=True)


def _as_rank(rank: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    return function(rank, *arguments)


def whole_run(rank: int, options: dict[str, Any]) -> Path:
    return train(make_options(options))


def resumed_run(rank: int, options: dict[str, Any]) -> Path:
    return train(make_options(options), resume=True)


def run_cancelled_by_the_second(rank: int, options: dict[str, Any], step: int, by_signal: bool) -> str:
    """Train until the second process is asked to stop before a step, or gets a signal; return how the run ended."""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        if rank == 0 or asked <= step:
            return False
        if by_signal and asked == step + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return not by_signal

    try:
        train(make_options(options), cancelled=cancelled)
    except Cancelled as error:
        return str(error)
    return "it has ended"


def steps_in_half_precision(rank: int, options: dict[str, Any]) -> list[tuple[float, list[torch.Tensor]]]:
    """Take three steps in float16, in the second of which the gradients of the second process are infinite.

    Returns
    -------
    list
        After each step, the scale of the loss and the weights.
    """
    made = make_options(options)
    with ProcessGroup.from_environment(made) as process_group:
        network = a_network(ModelConfig(features=(6, 5, 4)), scale=2)
        optimization = OptimizationStep(network, Fidelity(), made, "float16", process_group)
        after = []
        for step in range(3):
            image = torch.rand(1, 3, 39, 39, generator=torch.Generator().manual_seed(10 * step + rank))
            hook = None
            if (rank, step) == (1, 1):
                hook = next(network.parameters()).register_hook(lambda gradient: gradient * torch.inf)
            optimization.take_step(step, (image, image.flip(-1)), 1e-3)
            if hook is not None:
                hook.remove()
            after.append((optimization.scaler.get_scale(), [each.clone() for each in network.state_dict().values()]))
        return after
