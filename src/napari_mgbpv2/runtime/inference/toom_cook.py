"""Short convolutions with fewer multiplications: the algorithm of Toom and Cook, known in networks by Winograd's name.

A filter of r taps that slides over d gives m values y[i] = g[0] d[i] + ... + g[r - 1] d[i + r - 1]. Done one by one,
they cost m r multiplications. Seen as polynomials, their product is fixed by its values at m + r - 1 points, and that
many multiplications are enough: ``y = outputs @ ((filters @ g) * (inputs @ d))``.

S. Winograd: "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray: "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, arXiv 1509.09308.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

# Where the polynomials are evaluated, besides infinity: the order is that of the growth of rounding errors.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


class ToomCook(NamedTuple):
    """The three matrices of the algorithm; P = m + r - 1.

    Attributes
    ----------
    inputs
        (P, P), what is multiplied, from the P values that the m results depend on.
    filters
        (P, r), what it is multiplied by, from the taps.
    outputs
        (m, P), the results, from the products.
    """

    inputs: Matrix
    filters: Matrix
    outputs: Matrix


def toom_cook(results: int, taps: int) -> ToomCook:
    """Make the matrices for ``results`` values of a filter of ``taps`` taps, at least 2 of each."""
    points = POINTS[: results + taps - 2]
    inputs = np.zeros((len(points) + 1, len(points) + 1))
    filters = np.zeros((len(points) + 1, taps))
    outputs = np.zeros((results, len(points) + 1))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        inputs[row, :-1] = np.poly(others)[::-1]
        filters[row] = point ** np.arange(taps) / math.prod(point - other for other in others)
        outputs[:, row] = point ** np.arange(results)
    # the point at infinity: the coefficients of the highest powers
    inputs[-1] = np.poly(points)[::-1]
    filters[-1, -1] = outputs[-1, -1] = 1
    return ToomCook(inputs, filters, outputs)
