"""Pixels to a device and back, so that a GPU need not wait for them.

On CUDA, a tile is only started: its pixels come back on a stream of their own, and whoever wants them waits for that
alone. Meanwhile the engine starts the next tile, which another thread has asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.float32]


class Transfers:
    """The ways to one device and from it.

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._back = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def to_device(self, pixels: Pixels) -> Tensor:
        """Bring an array to the device."""
        values = torch.from_numpy(pixels)
        if self._back is not None:
            return values.pin_memory().to(self._device, non_blocking=True)
        return values.to(self._device)

    def from_device(self, values: Tensor) -> Callable[[], Pixels]:
        """Begin to fetch a tensor; what is returned waits for it and gives an array of its own."""
        if self._back is None:
            pixels: Pixels = torch.empty(values.shape, dtype=values.dtype).copy_(values).numpy()
            return lambda: pixels
        values = values.contiguous()
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._back):
            pinned.copy_(values, non_blocking=True)
        values.record_stream(self._back)  # its memory is not to be used for anything else before
        arrived = self._back.record_event()

        def wait() -> Pixels:
            arrived.synchronize()
            return pinned.numpy().copy()  # pinned memory is scarce, and tiles may be kept

        return wait
