"""Forwards that are recorded on a GPU and replayed there.

A forward is many short kernels, and a fast GPU may be done with one before Python has launched the next. A CUDA graph
launches all of them at once: the same kernels on the same memory, and so the same bits. Tiles of one image come in few
kinds, so each kind that comes often is recorded, held against what the network has given, and replayed.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from napari_mgbpv2.runtime.inference import PreparedNetwork, Workspace

RUNS_BEFORE = (
    4  # of a kind, which then is recorded: that takes as long as some forwards, and a few more must be worth it
)
SWITCH = "MGBPV2_CUDA_GRAPHS"  # an environment variable: "1" turns recording on, which no GPU has run yet
MOST_KINDS = 16  # of tiles of one network: inner ones, and those at the borders


class Recorder(Protocol):
    """What can record the work of a device."""

    def has_room(self, size: int) -> bool:
        """Tell whether there is room for so many bytes beside what else may be needed."""

    def record(self, work: Callable[[], Tensor]) -> Recorded:
        """Record some work, which has run before. Beside what it reads, it asks for all of its memory each time."""

    def clear(self) -> None:
        """Give the memory back that recordings share; all of them have been dropped."""


class Recorded(Protocol):
    """Work that can be done again."""

    def replay(self) -> Tensor:
        """Do the work again; the result is overwritten by the next time."""


@dataclass
class CudaGraphs:
    """Recording as CUDA graphs, whose features share one part of the device's memory: they run in turns.

    What the work asks for while it is recorded comes from there, and goes back when the work is done, for the next
    recording; only its output is held, and what it reads lies elsewhere.

    Parameters
    ----------
    device
        A CUDA device.
    """

    device: torch.device
    _pool: Any = field(default=None, init=False)

    def has_room(self, size: int) -> bool:
        """Tell whether there is room for so many bytes, and as many for others."""
        free, _ = torch.cuda.mem_get_info(self.device)
        return free > 2 * size

    def record(self, work: Callable[[], Tensor]) -> Recorded:
        """Record some work; see `Recorder`."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(self.device):
            usual = torch.cuda.current_stream(self.device)
            self._aside.wait_stream(usual)
            with torch.cuda.stream(self._aside):
                work()  # what libraries make once for a stream must not be recorded
            usual.wait_stream(self._aside)
            graph = torch.cuda.CUDAGraph()
            # other threads blend meanwhile, and may ask for memory
            with torch.cuda.graph(graph, self._pool, stream=self._aside, capture_error_mode="thread_local"):
                output = work()
        return _CudaGraph(graph, output)

    def clear(self) -> None:
        """Begin with memory of its own, when all recordings have been dropped."""
        self._pool = None

    @cached_property
    def _aside(self) -> torch.cuda.Stream:
        """One for all recordings: memory is only shared within a stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]


class _CudaGraph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    output: Tensor

    def replay(self) -> Tensor:
        """Do the work again, see `Recorded`."""
        self.graph.replay()
        return self.output


class _Kind(NamedTuple):
    """What forwards must have in common to be one recording."""

    shape: torch.Size
    is_noisy: bool
    amplitude: float
    wanted: tuple[tuple[int, int], tuple[int, int]]


class Replaying:
    """A network, of whose forwards those are replayed that come often.

    Parameters
    ----------
    network
        The network.
    recorder
        What records; without one, the network does all itself.
    """

    def __init__(self, network: PreparedNetwork, recorder: Recorder | None) -> None:
        self._network, self._recorder = network, recorder
        self._runs: Counter[_Kind] = Counter()
        self._inputs: dict[tuple[torch.Size, bool], tuple[Tensor, Tensor | None]] = {}
        self._recordings: OrderedDict[_Kind, Recorded] = OrderedDict()  # the first to go first

    @classmethod
    def on(cls, device: torch.device, network: PreparedNetwork) -> Replaying:
        """Record where the device can and the user has turned that on."""
        wanted = device.type == "cuda" and os.environ.get(SWITCH) == "1"
        return cls(network, CudaGraphs(device) if wanted else None)

    @torch.inference_mode()
    def __call__(self, image: Tensor, noise: Tensor | None, amplitude: float, wanted: tuple[slice, slice]) -> Tensor:
        """Run the network, see `PreparedNetwork`."""
        if self._recorder is None:
            return self._network(image, noise, amplitude, wanted)
        rows, columns = wanted
        ends = (rows.start, rows.stop), (columns.start, columns.stop)
        kind = _Kind(image.shape, noise is not None, amplitude, ends)
        if kind in self._recordings:
            self._recordings.move_to_end(kind)
            return self._replayed(kind, image, noise)
        result = self._network(image, noise, amplitude, wanted)
        self._runs[kind] += 1
        if self._runs[kind] >= RUNS_BEFORE and self._recorder.has_room(self._network.workspace.nbytes):
            self._record(self._recorder, kind, image, noise, wanted, result)
        return result

    def _record(
        self,
        recorder: Recorder,
        kind: _Kind,
        image: Tensor,
        noise: Tensor | None,
        wanted: tuple[slice, slice],
        result: Tensor,
    ) -> None:
        """Record a kind of forward, and use that from now on if it gives the same bits."""
        if (kind.shape, kind.is_noisy) not in self._inputs:
            own = torch.empty_like(image), None if noise is None else torch.empty_like(noise)
            self._inputs[kind.shape, kind.is_noisy] = own
        inputs = self._fill(kind, image, noise)

        def work() -> Tensor:
            # In memory that only this run asks for, so that it is the recording's. The usual workspace is the
            # engine's, and another one as soon as a larger tile comes.
            return self._network.working_in(Workspace())(*inputs, kind.amplitude, wanted)

        trouble = "it gives other results"
        try:
            self._recordings[kind] = recorder.record(work)
            if torch.equal(self._replayed(kind, image, noise), result):
                self._forget_the_least_used()
                return
        except RuntimeError as error:  # memory that runs out among them
            trouble = str(error)
        self.clear()
        self._recorder = None
        warnings.warn(
            f"Tiles cannot be recorded on this GPU ({trouble}); they are computed without, in more time.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _forget_the_least_used(self) -> None:
        while len(self._recordings) > MOST_KINDS:
            self._recordings.popitem(last=False)
        used = {(kind.shape, kind.is_noisy) for kind in self._recordings}
        self._inputs = {key: inputs for key, inputs in self._inputs.items() if key in used}

    def _replayed(self, kind: _Kind, image: Tensor, noise: Tensor | None) -> Tensor:
        self._fill(kind, image, noise)
        return self._recordings[kind].replay().clone()

    def _fill(self, kind: _Kind, image: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Put image and noise where recordings of the kind read them."""
        inputs = self._inputs[kind.shape, kind.is_noisy]
        for own, given in zip(inputs, (image, noise), strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        return inputs

    def clear(self) -> None:
        """Drop all recordings, with the memory that they work in."""
        self._recordings.clear()
        self._inputs.clear()
        self._runs.clear()
        if self._recorder is not None:
            self._recorder.clear()
