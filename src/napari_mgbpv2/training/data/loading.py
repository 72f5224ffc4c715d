"""Batch samples in a fixed order, for any number of loader workers and processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_mgbpv2.training.data.degradation import Pair

_PREFETCHED = 4  # batches for each worker: a new image takes longer than a batch


def sample_loader(
    dataset: Dataset[Pair], batch: int, *, start: int = 0, workers: int = 0, rank: int = 0, world: int = 1
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return the batches of a data set from a step on.

    Step n of all processes together is samples n * batch * world to (n + 1) * batch * world; a process takes every
    ``world``-th of them. Two processes with batches of 4 get the samples of one process with batches of 8.

    Parameters
    ----------
    dataset
        `ImageSamples`, `PairedSamples`, `SyntheticSamples`, or any other with a length and samples by number.
    batch
        Samples in a batch of this process.
    start
        First step, from 0. To resume after n steps, pass n.
    workers
        Processes that make samples; 0 makes them in this one.
    rank, world
        Number of this process and of all.

    Returns
    -------
    iterable of (Tensor, Tensor)
        Inputs and targets, (batch, C, patch, patch) each, in page-locked memory if CUDA is available. Incomplete
        batches are left out. Each iteration begins at ``start``.
    """
    if batch < 1 or start < 0 or not 0 <= rank < world:
        raise ValueError(f"batch {batch} must be at least 1, start {start} at least 0, rank {rank} below world {world}")
    loader = DataLoader(
        dataset,
        batch_sampler=_Batches(len(dataset), batch, start, rank, world),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        collate_fn=_collate_arrays,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # else each iterator would draw from the generator that the training uses
    )
    return _Tensors(loader)


class _Tensors:
    """Batches of a loader as tensors, in page-locked memory where there is CUDA."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pin = torch.cuda.is_available()
        for arrays in self._loader:
            image, target = (torch.from_numpy(array) for array in arrays)
            yield (image.pin_memory(), target.pin_memory()) if pin else (image, target)


def _collate_arrays(pairs: list[Pair]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Stack samples into arrays. Tensors would be sent as shared memory, which an interrupt can remove too early."""
    image, target = (np.stack([pair[side].numpy() for pair in pairs]) for side in (0, 1))
    return image, target


def _ignore_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others


class _Batches(Sampler[list[int]]):
    """The numbers of the samples of each batch of one process."""

    def __init__(self, length: int, batch: int, start: int, rank: int, world: int) -> None:
        self._length, self._batch, self._start, self._rank, self._world = length, batch, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        together = self._batch * self._world
        for first in range(self._start * together, self._length - together + 1, together):
            yield list(range(first + self._rank, first + together, self._world))
