"""Short convolutions with fewer multiplications: the Toom-Cook algorithm, known in networks by Winograd's name.

A filter of r weights that slides over d gives m values y[i] = g[0] d[i] + ... + g[r - 1] d[i + r - 1]. One by one, they
cost m r multiplications. As polynomials, their product is determined by its values at m + r - 1 points, and as many
multiplications suffice: ``y = outputs @ ((filters @ g) * (inputs @ d))``.

S. Winograd: "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray: "Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, arXiv 1509.09308.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

# The polynomials are evaluated at these points and at infinity. Rounding errors grow in this order.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


class ToomCook(NamedTuple):
    """The three matrices of the algorithm; P = m + r - 1.

    Attributes
    ----------
    inputs
        (P, P). Transforms the P values that the m results depend on.
    filters
        (P, r). Transforms the r weights of the filter.
    outputs
        (m, P). Transforms the P products to the results.
    """

    inputs: Matrix
    filters: Matrix
    outputs: Matrix


def toom_cook(results: int, filter_size: int) -> ToomCook:
    """Return the matrices for ``results`` values of a filter of ``filter_size`` weights, at least 2 of each."""
    points = POINTS[: results + filter_size - 2]
    inputs = np.zeros((len(points) + 1, len(points) + 1))
    filters = np.zeros((len(points) + 1, filter_size))
    outputs = np.zeros((results, len(points) + 1))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        inputs[row, :-1] = np.poly(others)[::-1]
        filters[row] = point ** np.arange(filter_size) / math.prod(point - other for other in others)
        outputs[:, row] = point ** np.arange(results)
    # The point at infinity: the coefficients of the highest powers.
    inputs[-1] = np.poly(points)[::-1]
    filters[-1, -1] = outputs[-1, -1] = 1
    return ToomCook(inputs, filters, outputs)
