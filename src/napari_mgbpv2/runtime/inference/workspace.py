"""Features in memory: buffers that are reused from one forward to the next, and the channels-last layout."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Buffers by name, retained from one forward to the next.

    The operating system hands over new memory page by page. A forward that allocated all of its features anew would
    spend as long on that as on some of its convolutions. Only one forward may use a workspace at a time. Networks that
    take turns share one, which becomes as large as the largest of them needs.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, like: Tensor) -> Tensor:
        """Return the buffer of a name as a contiguous tensor.

        Parameters
        ----------
        name
            Buffers in use at the same time need different names. The content is left from the last use.
        shape
            Shape of the tensor.
        like
            A tensor of the same dtype on the same device.
        """
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or (buffer.dtype, buffer.device) != (like.dtype, like.device):
            self._buffers.pop(name, None)  # Release it before a larger one is allocated.
            buffer = self._buffers[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size].view(shape)

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def clear(self) -> None:
        """Release all buffers."""
        self._buffers.clear()


def pixels(features: Tensor) -> Tensor:
    """View (1, C, h, w) features as (h, w, C)."""
    return features[0].permute(1, 2, 0)


def as_image(values: Tensor) -> Tensor:
    """View (h, w, C) pixels as a (1, C, h, w) image, channels last."""
    return values[None].permute(0, 3, 1, 2)


def is_exact_on_cpu(values: Tensor) -> bool:
    """Return whether a tensor is float32 on the CPU, where special algorithms apply."""
    return values.device.type == "cpu" and values.dtype == torch.float32
