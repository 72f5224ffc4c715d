"""Forwards that are recorded on a GPU and replayed there.

A forward is many short kernels, and a fast GPU may be done with one before Python has launched the next. A CUDA graph
launches all of them at once: the same kernels on the same memory, and so the same bits. Tiles of one image come in few
kinds, so each key that comes often is recorded, held against what the network has given, and replayed.
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

from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace

CAPTURE_AFTER_RUNS = (
    4  # of a key, which then is recorded: that takes as long as some forwards, and a few more must be worth it
)
CUDA_GRAPHS_ENV_VAR = "MGBPV2_CUDA_GRAPHS"  # an environment variable: "1" turns recording on, which no GPU has run yet
MAX_GRAPHS = 16  # of tiles of one network: inner ones, and those at the borders


class GraphCapturer(Protocol):
    """What can record the work of a device."""

    def has_room(self, size: int) -> bool:
        """Tell whether there is room for so many bytes beside what else may be needed."""

    def capture(self, work: Callable[[], Tensor]) -> CapturedGraph:
        """Record some work, which has run before. Beside what it reads, it asks for all of its memory each time."""

    def clear(self) -> None:
        """Give the memory back that recordings share; all of them have been dropped."""


class CapturedGraph(Protocol):
    """Work that can be done again."""

    def replay(self) -> Tensor:
        """Do the work again; the result is overwritten by the next time."""


@dataclass
class CudaGraphCapturer:
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

    def capture(self, work: Callable[[], Tensor]) -> CapturedGraph:
        """Record some work; see `GraphCapturer`."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(self.device):
            usual = torch.cuda.current_stream(self.device)
            self._capture_stream.wait_stream(usual)
            with torch.cuda.stream(self._capture_stream):
                work()  # what libraries make once for a stream must not be recorded
            usual.wait_stream(self._capture_stream)
            graph = torch.cuda.CUDAGraph()
            # other threads blend meanwhile, and may ask for memory
            with torch.cuda.graph(graph, self._pool, stream=self._capture_stream, capture_error_mode="thread_local"):
                output = work()
        return _CapturedCudaGraph(graph, output)

    def clear(self) -> None:
        """Begin with memory of its own, when all recordings have been dropped."""
        self._pool = None

    @cached_property
    def _capture_stream(self) -> torch.cuda.Stream:
        """One for all recordings: memory is only shared within a stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]


class _CapturedCudaGraph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    output: Tensor

    def replay(self) -> Tensor:
        """Do the work again, see `CapturedGraph`."""
        self.graph.replay()
        return self.output


class _GraphKey(NamedTuple):
    """What forwards must have in common to be one recording."""

    shape: torch.Size
    is_noisy: bool
    amplitude: float
    output_region: tuple[tuple[int, int], tuple[int, int]]


class GraphedNetwork:
    """A network, of whose forwards those are replayed that come often.

    Parameters
    ----------
    network
        The network.
    capturer
        What records; without one, the network does all itself.
    """

    def __init__(self, network: InferenceNetwork, capturer: GraphCapturer | None) -> None:
        self._network, self._capturer = network, capturer
        self._runs: Counter[_GraphKey] = Counter()
        self._inputs: dict[tuple[torch.Size, bool], tuple[Tensor, Tensor | None]] = {}
        self._graphs: OrderedDict[_GraphKey, CapturedGraph] = OrderedDict()  # the first to go first

    @classmethod
    def for_device(cls, device: torch.device, network: InferenceNetwork) -> GraphedNetwork:
        """Record where the device can and the user has turned that on."""
        output_region = device.type == "cuda" and os.environ.get(CUDA_GRAPHS_ENV_VAR) == "1"
        return cls(network, CudaGraphCapturer(device) if output_region else None)

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, noise: Tensor | None, amplitude: float, output_region: tuple[slice, slice]
    ) -> Tensor:
        """Run the network, see `InferenceNetwork`."""
        if self._capturer is None:
            return self._network(image, noise, amplitude, output_region)
        rows, columns = output_region
        ends = (rows.start, rows.stop), (columns.start, columns.stop)
        key = _GraphKey(image.shape, noise is not None, amplitude, ends)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._replay(key, image, noise)
        result = self._network(image, noise, amplitude, output_region)
        self._runs[key] += 1
        if self._runs[key] >= CAPTURE_AFTER_RUNS and self._capturer.has_room(self._network.workspace.nbytes):
            self._capture(self._capturer, key, image, noise, output_region, result)
        return result

    def _capture(
        self,
        capturer: GraphCapturer,
        key: _GraphKey,
        image: Tensor,
        noise: Tensor | None,
        output_region: tuple[slice, slice],
        result: Tensor,
    ) -> None:
        """Record a kind of forward, and use that from now on if it gives the same bits."""
        if (key.shape, key.is_noisy) not in self._inputs:
            own = torch.empty_like(image), None if noise is None else torch.empty_like(noise)
            self._inputs[key.shape, key.is_noisy] = own
        inputs = self._copy_inputs(key, image, noise)

        def work() -> Tensor:
            # In memory that only this run asks for, so that it is the recording's. The usual workspace is the
            # engine's, and another one as soon as a larger tile comes.
            return self._network.with_workspace(Workspace())(*inputs, key.amplitude, output_region)

        trouble = "it gives other results"
        try:
            self._graphs[key] = capturer.capture(work)
            if torch.equal(self._replay(key, image, noise), result):
                self._evict_least_recently_used()
                return
        except RuntimeError as error:  # memory that runs out among them
            trouble = str(error)
        self.clear()
        self._capturer = None
        warnings.warn(
            f"Tiles cannot be recorded on this GPU ({trouble}); they are computed without, in more time.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _evict_least_recently_used(self) -> None:
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
        used = {(key.shape, key.is_noisy) for key in self._graphs}
        self._inputs = {key: inputs for key, inputs in self._inputs.items() if key in used}

    def _replay(self, key: _GraphKey, image: Tensor, noise: Tensor | None) -> Tensor:
        self._copy_inputs(key, image, noise)
        return self._graphs[key].replay().clone()

    def _copy_inputs(self, key: _GraphKey, image: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Put image and noise where recordings of the key read them."""
        inputs = self._inputs[key.shape, key.is_noisy]
        for own, given in zip(inputs, (image, noise), strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        return inputs

    def clear(self) -> None:
        """Drop all recordings, with the memory that they work in."""
        self._graphs.clear()
        self._inputs.clear()
        self._runs.clear()
        if self._capturer is not None:
            self._capturer.clear()
