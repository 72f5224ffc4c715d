"""Measurement of the guard: how far from a tile's border its output differs from that of the whole image."""

from __future__ import annotations

import numpy as np
import torch

from napari_mgbpv2.model.network import Network, configurations
from napari_mgbpv2.runtime.engine import Engine, Pixels
from napari_mgbpv2.tiling.grid import Span

GUARD_TOLERANCE = 2e-6  # of the value range: largest difference between a tile and the whole image beyond the guard
_PROBE_SEED = 0


def measure_guard(network: Network, scale: int) -> int:
    """Measure how far from a tile's border its output differs, by an aligned tile against the whole image.

    The probe is black and white noise of single source pixels, whose disturbances reach further than those of
    pictures. One unit of alignment is added for safety. The result is at most the structural reach, beyond which no
    pixel has any influence.

    Parameters
    ----------
    network
        The network, on any device. It is measured on the CPU.
    scale
        Upscaling factor of the probe image.

    Returns
    -------
    int
        Target pixels, a multiple of the alignment. Beyond them tile and whole image differ by less than
        `GUARD_TOLERANCE`.
    """
    engine = Engine(network, torch.device("cpu"))
    config, reach = configurations(network)[0], max(config.reach for config in configurations(network))
    inner = config.natural_up(2 * reach + 8 * config.alignment)
    source_size = -(-(inner + 4 * reach) // scale)
    size = source_size * scale
    generator = np.random.default_rng(_PROBE_SEED)
    probe = generator.integers(0, 2, (config.channels, source_size, source_size)).astype(np.float32)

    def run(span: Span) -> Pixels:
        area = (span, span)
        return engine.run(lambda rows, columns: probe[:, rows, columns], area, area, (source_size, source_size), scale)

    start = -(-2 * reach // config.alignment) * config.alignment - config.border(size)[0]
    tile = Span(start, start + inner)
    difference = run(tile) - run(Span(0, size))[:, slice(*tile), slice(*tile)]
    from_end = np.minimum(np.arange(inner), np.arange(inner)[::-1])
    depth = np.minimum(from_end[:, np.newaxis], from_end[np.newaxis, :])
    differs = np.abs(difference).max(axis=0) > GUARD_TOLERANCE
    units = -(-(int(depth[differs].max(initial=-1)) + 1) // config.alignment)
    return min(units + 1, -(-reach // config.alignment)) * config.alignment
