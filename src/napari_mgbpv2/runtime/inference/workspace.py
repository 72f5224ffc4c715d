"""Memory that one forward after another works in."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Buffers by name, kept from one forward to the next.

    Memory that is new to a process is handed over by the system page by page, and a forward that asks for all of its
    features anew spends as long on that as on some of its convolutions. Only one forward may use a workspace at a time;
    networks that take turns share one, which then is as large as the largest of them needs.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, like: Tensor) -> Tensor:
        """Return the buffer of a name as a contiguous tensor of any shape.

        Parameters
        ----------
        name
            Two that are in use at a time have two names. What one holds is left from its last use.
        shape
            Of the tensor.
        like
            Has its type and its device.
        """
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or (buffer.dtype, buffer.device) != (like.dtype, like.device):
            self._buffers.pop(name, None)  # given back before more is asked for
            buffer = self._buffers[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size].view(shape)

    @property
    def nbytes(self) -> int:
        """Size of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def clear(self) -> None:
        """Give all memory back."""
        self._buffers.clear()
