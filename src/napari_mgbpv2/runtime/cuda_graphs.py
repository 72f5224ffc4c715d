"""Replay of frequent forward passes from captured CUDA graphs.

A forward consists of many short kernels, and a fast GPU may finish one before Python has launched the next. A CUDA
graph launches all of them at once: the same kernels on the same memory, with the same bits. The tiles of an image have
few shapes and regions, so each combination that occurs often is captured, checked against the network and replayed.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from cachetools import LRUCache
from torch import Tensor

from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace

# Capturing takes as long as some forwards, so a few more with the same key must be likely.
CAPTURE_AFTER_RUNS = 4
MAX_GRAPHS = 16  # per network: inner tiles, and those at the borders
CUDA_GRAPHS_ENV_VAR = "MGBPV2_CUDA_GRAPHS"  # "1" turns capturing on. It is off by default: no GPU has run it yet.


class GraphCapturer(Protocol):
    """Captures the work of a device as graphs."""

    def has_room(self, size: int) -> bool:
        """Return whether ``size`` bytes are free, besides what other work may need."""

    def capture(self, work: Callable[[], Tensor]) -> CapturedGraph:
        """Capture work that has run before. It must allocate all of its memory except its inputs each time."""

    def clear(self) -> None:
        """Release the memory that graphs share, after all of them have been discarded."""


class CapturedGraph(Protocol):
    """Captured work that can be replayed."""

    def replay(self) -> Tensor:
        """Run the work again. The result is valid until the next replay."""


@dataclass
class CudaGraphCapturer:
    """Captures CUDA graphs that share one memory pool, because they never run at the same time.

    Memory that the work allocates during the capture comes from the pool and returns to it at the end, for the next
    graph. A graph retains only its output; its inputs are outside the pool.

    Parameters
    ----------
    device
        A CUDA device.
    """

    device: torch.device
    _pool: Any = field(default=None, init=False)

    def has_room(self, size: int) -> bool:
        """Return whether twice ``size`` bytes are free: for the graph, and for other work."""
        free, _ = torch.cuda.mem_get_info(self.device)
        return free > 2 * size

    def capture(self, work: Callable[[], Tensor]) -> CapturedGraph:
        """Capture work, see `GraphCapturer`."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream(self.device)
            self._capture_stream.wait_stream(current)
            with torch.cuda.stream(self._capture_stream):
                work()  # Libraries initialize themselves once per stream, which must not be captured.
            current.wait_stream(self._capture_stream)
            graph = torch.cuda.CUDAGraph()
            # "thread_local": other threads blend in the meantime, and may allocate memory.
            with torch.cuda.graph(graph, self._pool, stream=self._capture_stream, capture_error_mode="thread_local"):
                output = work()
        return _CapturedCudaGraph(graph, output)

    def clear(self) -> None:
        """Start a new pool with the next graph."""
        self._pool = None

    @cached_property
    def _capture_stream(self) -> torch.cuda.Stream:
        """One stream for all graphs: memory is shared only within a stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]


class _CapturedCudaGraph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    output: Tensor

    def replay(self) -> Tensor:
        """Run the work again, see `CapturedGraph`."""
        self.graph.replay()
        return self.output


class _GraphKey(NamedTuple):
    """Properties that forwards must share to be replayed from one graph."""

    shape: torch.Size
    is_noisy: bool
    amplitude: float
    output_region: tuple[tuple[int, int], tuple[int, int]]


class GraphedNetwork:
    """Replays frequent forward passes of a network from captured graphs.

    Parameters
    ----------
    network
        The network.
    capturer
        Captures the graphs. Without one, every forward runs the network itself.
    """

    def __init__(self, network: InferenceNetwork, capturer: GraphCapturer | None) -> None:
        self._network, self._capturer = network, capturer
        self._runs: Counter[_GraphKey] = Counter()
        self._inputs: dict[tuple[torch.Size, bool], tuple[Tensor, Tensor | None]] = {}
        self._graphs: LRUCache[_GraphKey, CapturedGraph] = LRUCache(MAX_GRAPHS)

    @classmethod
    def for_device(cls, device: torch.device, network: InferenceNetwork) -> GraphedNetwork:
        """Capture graphs on CUDA devices if the environment variable turns that on."""
        is_on = device.type == "cuda" and os.environ.get(CUDA_GRAPHS_ENV_VAR) == "1"
        return cls(network, CudaGraphCapturer(device) if is_on else None)

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, noise: Tensor | None, amplitude: float, output_region: tuple[slice, slice]
    ) -> Tensor:
        """Run the network or replay its graph.

        Parameters
        ----------
        image
            (1, C, H, W), float32, of natural size.
        noise
            (1, C, H, W), standard normal; None if ``amplitude`` is 0.
        amplitude
            Noise amplitude W.
        output_region
            Rows and columns to return, as slices with start and stop.

        Returns
        -------
        Tensor
            (1, C, rows, columns), float32.
        """
        if self._capturer is None:
            return self._network(image, noise, amplitude, output_region)
        rows, columns = output_region
        ends = (rows.start, rows.stop), (columns.start, columns.stop)
        key = _GraphKey(image.shape, noise is not None, amplitude, ends)
        if key in self._graphs:
            return self._replay(key, image, noise)
        result = self._network(image, noise, amplitude, output_region)
        self._runs[key] += 1
        if self._runs[key] >= CAPTURE_AFTER_RUNS and self._capturer.has_room(self._network.workspace.nbytes):
            self._capture(self._capturer, key, image, noise, output_region, result)
        return result

    def clear(self) -> None:
        """Discard all graphs, and release their memory."""
        self._graphs.clear()
        self._inputs.clear()
        self._runs.clear()
        if self._capturer is not None:
            self._capturer.clear()

    def _capture(
        self,
        capturer: GraphCapturer,
        key: _GraphKey,
        image: Tensor,
        noise: Tensor | None,
        output_region: tuple[slice, slice],
        result: Tensor,
    ) -> None:
        """Capture a forward, and use the graph from now on if it gives the bits of ``result``."""
        if (key.shape, key.is_noisy) not in self._inputs:
            own = torch.empty_like(image), None if noise is None else torch.empty_like(noise)
            self._inputs[key.shape, key.is_noisy] = own
        inputs = self._copy_inputs(key, image, noise)

        def work() -> Tensor:
            # Allocate everything anew, so that the graph owns its memory. The engine's workspace serves other
            # forwards, and its buffers are replaced when a larger tile comes.
            return self._network.with_workspace(Workspace())(*inputs, key.amplitude, output_region)

        reason = "results differ"
        try:
            self._graphs[key] = capturer.capture(work)
            if torch.equal(self._replay(key, image, noise), result):
                self._remove_unused_inputs()
                return
        except RuntimeError as error:  # includes running out of memory
            reason = str(error)
        self.clear()
        self._capturer = None
        warnings.warn(
            f"CUDA graphs do not work on this GPU ({reason}); tiles are computed without them, which takes longer.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _remove_unused_inputs(self) -> None:
        used = {(key.shape, key.is_noisy) for key in self._graphs}
        self._inputs = {key: inputs for key, inputs in self._inputs.items() if key in used}

    def _replay(self, key: _GraphKey, image: Tensor, noise: Tensor | None) -> Tensor:
        self._copy_inputs(key, image, noise)
        return self._graphs[key].replay().clone()

    def _copy_inputs(self, key: _GraphKey, image: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Copy image and noise to where the graphs of the key read them."""
        inputs = self._inputs[key.shape, key.is_noisy]
        for own, given in zip(inputs, (image, noise), strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        return inputs
