"""Pixels to a device and back, so that a GPU need not wait for them.

On CUDA, a tile is only started: nothing that is sent there waits for what is being computed, and pixels come back on a
stream of their own, for whose end only whoever wants them waits. Meanwhile the engine starts the next tile, which
another thread has asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.imaging.values import ValueMap

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

    def to_device(self, pixels: npt.NDArray[Any]) -> Tensor:
        """Bring an array to the device."""
        values = torch.from_numpy(pixels)
        if self._back is not None:
            return values.pin_memory().to(self._device, non_blocking=True)
        return values.to(self._device)

    def start_copy_to_host(self, values: Tensor) -> Callable[[], npt.NDArray[Any]]:
        """Begin to fetch a tensor; what is returned waits for it and gives an array.

        What is in the memory of the CPU already stays where it is.
        """
        if self._back is None:
            pixels: npt.NDArray[Any] = values.cpu().numpy()
            return lambda: pixels
        values = values.contiguous()
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._back):
            pinned.copy_(values, non_blocking=True)
        values.record_stream(self._back)  # its memory is not to be used for anything else before
        arrived = self._back.record_event()

        def wait() -> npt.NDArray[Any]:
            arrived.synchronize()
            return pinned.numpy().copy()  # pinned memory is scarce, and tiles may be kept

        return wait


transfers_of = cache(Transfers)


def to_host(values: Tensor) -> npt.NDArray[Any]:
    """Bring a tensor to memory."""
    return transfers_of(values.device).start_copy_to_host(values)()


def to_host_as(values: ValueMap, unit: Tensor) -> npt.NDArray[Any]:
    """Bring pixels back as an image's own values, bit for bit what `ValueMap.from_unit` makes of them.

    Parameters
    ----------
    values
        The map. To types of fewer bytes than a float's, it is applied on the device: less has to come back.
    unit
        Network values, float32, on any device; used as working memory.

    Returns
    -------
    ndarray
        The values, in the type of the map.
    """
    kind, small = values.dtype.kind, values.dtype.itemsize < 4
    if small:
        # One operation at a time, as in NumPy: a multiplication and an addition at once would round once.
        unit.mul_(float(np.float32(values.high - values.low)))
        unit.add_(float(np.float32(values.low)))
        if kind == "b":
            unit = unit.ge(0.5 * (values.low + values.high))
        elif kind == "f":
            unit = unit.half()
        else:
            limits = np.iinfo(values.dtype)
            unit = unit.round_().clamp_(limits.min, limits.max).to(getattr(torch, values.dtype.name))
    fetched = transfers_of(unit.device).start_copy_to_host(unit)()
    return fetched if small else values.from_unit(fetched)
