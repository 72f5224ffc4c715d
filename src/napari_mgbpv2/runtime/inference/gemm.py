"""Matrix products on a CPU, by whichever of torch's libraries is the faster one there.

torch multiplies matrices with MKL, and convolves with oneDNN, for which a kernel of one pixel is the same thing. On
AMD's processors MKL leaves AVX-512 aside, and rounds by the number of threads; oneDNN does neither. Which one is taken
depends on the processor alone, never on a measurement: the same machine gives the same bits each time.
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

# Longer sums, or few of half the length, are shared out between threads, and would be rounded by how many there are.
LONGEST_SUM, MANY_ROWS = 512, 256
VENDORS_SLOW_IN_MKL = ("AuthenticAMD", "HygonGenuine")


class Gemm(Protocol):
    """Multiplies by one matrix."""

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply.

        Parameters
        ----------
        left
            (rows, terms), contiguous. If the matrix has more terms, the last ones are left out.
        workspace
            Memory of the forward pass; the result may stand there.

        Returns
        -------
        Tensor
            (rows, columns), contiguous, to be read before the next product.
        """


class MatmulGemm:
    """A product by torch's library for matrices.

    Parameters
    ----------
    right
        (terms, columns).
    """

    def __init__(self, right: Tensor) -> None:
        self._right = right.contiguous()

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply, see `Gemm`; the result stands in the workspace."""
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
    """A product by torch's library for convolutions.

    Parameters
    ----------
    right
        (terms, columns).
    """

    def __init__(self, right: Tensor) -> None:
        self._kernel = right.t()[:, :, None, None].contiguous(memory_format=torch.channels_last)

    def __call__(self, left: Tensor, workspace: Workspace) -> Tensor:
        """Multiply, see `Gemm`; the result is memory of its own."""
        rows, terms = left.shape
        image = left.view(1, 1, rows, terms).permute(0, 3, 1, 2)
        return convolve(image, self._kernel[:, :terms])[0, :, 0].t()


def convolve(image: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with a kernel of one pixel by torch's library for convolutions, however small the image is.

    `torch.nn.functional.conv2d` takes that library or another one, by the size and by the number of threads.
    """
    if image.shape[2:].numel() == 1:
        # alone, a pixel's sum is shared out between threads, and rounded by how many there are
        return convolve(image.expand(-1, -1, -1, 2), kernel, bias)[..., :1]
    return torch.mkldnn_convolution(image, kernel, bias, (0, 0), (1, 1), (1, 1), 1)


def make_gemm(right: Tensor) -> Gemm:
    """Prepare products by a (terms, columns) matrix, with the library that is faster on this processor."""
    return ConvolutionGemm(right) if convolutions_are_faster() else MatmulGemm(right)


@cache
def convolutions_are_faster() -> bool:
    """Tell whether torch's library for matrices makes less of this processor than that for convolutions."""
    return processor_vendor() in VENDORS_SLOW_IN_MKL and bool(torch.backends.mkl.is_available()) and has_onednn()  # type: ignore[no-untyped-call]


def has_onednn() -> bool:
    """Tell whether this torch has the library that `convolve` takes."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def processor_vendor() -> str:
    """Name the maker of the processor as it calls itself: "GenuineIntel", "AuthenticAMD", or "" if it does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = (line.partition(":") for line in cpuinfo.read_text(errors="replace").splitlines())
        return next((value.strip() for name, _, value in names if name.strip() == "vendor_id"), "")
    return platform.processor().rpartition(" ")[2]  # "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel" on Windows
