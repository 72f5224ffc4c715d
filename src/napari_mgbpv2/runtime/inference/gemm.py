"""Matrix products on a CPU (GEMM), by the faster one of torch's libraries.

torch multiplies matrices with MKL, and convolves with oneDNN; a convolution with a kernel of one pixel is a matrix
product, too. On AMD processors MKL does not use AVX-512, and its rounding depends on the number of threads. oneDNN has
neither problem. The choice depends on the processor alone and not on a measurement, so that the same machine always
gives the same bits.
"""

from __future__ import annotations

import platform
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from napari_mgbpv2.runtime.inference.workspace import Workspace

# MKL divides longer sums, or few rows of half the length, between threads; the rounding then depends on their number.
LONGEST_SUM, MANY_ROWS = 512, 256
VENDORS_SLOW_IN_MKL = ("AuthenticAMD", "HygonGenuine")


class Gemm(Protocol):
    """Multiplies by a fixed matrix."""

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply.

        Parameters
        ----------
        left
            (rows, terms), contiguous. If the matrix has more terms, its last ones are left out.
        workspace
            Memory of the forward pass. The result may be one of its buffers.

        Returns
        -------
        Tensor
            (rows, columns), contiguous, valid until the next product.
        """


class MatmulGemm:
    """A matrix product by `torch.mm`.

    Parameters
    ----------
    right
        (terms, columns).
    """

    def __init__(self, right: Tensor) -> None:
        self._right = right.contiguous()

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply into a buffer of the workspace, see `Gemm`."""
        rows, terms = left.shape
        result = workspace.take("gemm", rows, self._right.shape[1], like=left)
        longest = LONGEST_SUM if rows >= MANY_ROWS else LONGEST_SUM // 2
        count = -(-terms // longest)
        for start, stop in pairwise(terms * part // count for part in range(count + 1)):
            if start == 0:
                torch.mm(left[:, :stop], self._right[:stop], out=result)
            else:
                result.addmm_(left[:, start:stop], self._right[start:stop])
        return result


class ConvolutionGemm:
    """A matrix product by oneDNN's convolution.

    Parameters
    ----------
    right
        (terms, columns).
    """

    def __init__(self, right: Tensor) -> None:
        self._kernel = right.t()[:, :, None, None].contiguous(memory_format=torch.channels_last)

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply into new memory, see `Gemm`."""
        rows, terms = left.shape
        image = left.view(1, 1, rows, terms).permute(0, 3, 1, 2)
        return convolve(image, self._kernel[:, :terms])[0, :, 0].t()


def convolve(image: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve (1, C, h, w) with a kernel of one pixel by oneDNN, however small the image is.

    `torch.nn.functional.conv2d` uses oneDNN or another library, depending on the size and the number of threads.
    """
    if image.shape[2:].numel() == 1:
        # oneDNN divides the sum of a single pixel between threads; the rounding then depends on their number.
        return convolve(image.expand(-1, -1, -1, 2), kernel, bias)[..., :1]
    return torch.mkldnn_convolution(image, kernel, bias, (0, 0), (1, 1), (1, 1), 1)


def make_gemm(right: Tensor) -> Gemm:
    """Return products by a (terms, columns) matrix, by the library that is faster on this processor."""
    return ConvolutionGemm(right) if convolutions_are_faster() else MatmulGemm(right)


@cache
def convolutions_are_faster() -> bool:
    """Return whether oneDNN's convolution is faster than MKL's matrix product on this processor."""
    return processor_vendor() in VENDORS_SLOW_IN_MKL and bool(torch.backends.mkl.is_available()) and has_onednn()  # type: ignore[no-untyped-call]


def has_onednn() -> bool:
    """Return whether this build of torch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def processor_vendor() -> str:
    """Return the vendor ID of the processor, such as "GenuineIntel" or "AuthenticAMD"; "" if unknown."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = (line.partition(":") for line in cpuinfo.read_text(errors="replace").splitlines())
        return next((value.strip() for name, _, value in names if name.strip() == "vendor_id"), "")
    return platform.processor().rpartition(" ")[2]  # "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel" on Windows
