"""Draw fluorescent structures of microscopy fields: blobs, filaments and membranes.

A canvas is (side, side) float32 concentrations. Lengths are in canvas pixels; `fields` averages them to camera pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Canvas = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

_CURVE_STEP = 0.5  # between points of a curve: denser than the canvas's pixels


def nuclei(generator: np.random.Generator, side: int) -> Canvas:
    """Draw large textured blobs with wavy outlines and dark spots."""
    radius = generator.uniform(12, 70)
    image = Image.new("F", (side, side))
    draw = ImageDraw.Draw(image)
    for _ in range(_count(generator, 0.6 * (side / radius / 4) ** 2, most=400)):
        centre, size = generator.uniform(0, side, 2), radius * generator.uniform(0.6, 1.4)
        brightness = generator.uniform(0.3, 1.0)
        _fill(draw, centre + outline(generator, size), brightness)
        for _ in range(generator.integers(0, 4)):
            inner = centre + 0.4 * size * generator.standard_normal(2)
            _fill(draw, inner + outline(generator, size * generator.uniform(0.08, 0.25)), 0.4 * brightness)
    return np.asarray(image) * clouds(generator, side, generator.uniform(0, 0.5))


def vesicles(generator: np.random.Generator, side: int) -> Canvas:
    """Draw small discs and rings."""
    image = Image.new("F", (side, side))
    draw = ImageDraw.Draw(image)
    radius = generator.uniform(2, 12)
    count = _count(generator, 0.15 * (side / radius / 4) ** 2, most=3000)
    centres = positions(generator, side, count)
    sizes = radius * np.exp(0.4 * generator.standard_normal(count))
    hollow = generator.random(count) < generator.choice([0.0, 0.5, 1.0])
    for (x, y), size, ring, brightness in zip(centres, sizes, hollow, generator.uniform(0.2, 1, count), strict=True):
        box = (float(x - size), float(y - size), float(x + size), float(y + size))
        draw.ellipse(box, fill=0.0 if ring else brightness, outline=brightness, width=2)
    return np.asarray(image)


def spots(generator: np.random.Generator, side: int) -> Canvas:
    """Draw points far below the resolution, with brightnesses over a factor of ten and more."""
    count = _count(generator, side**2 / generator.uniform(8, 60) ** 2, most=20_000)
    return deposit(positions(generator, side, count), generator.lognormal(0.0, 0.8, count), side)


def filaments(generator: np.random.Generator, side: int) -> Canvas:
    """Draw smooth curves that cross and sometimes branch."""
    count, length = int(generator.integers(10, 120)), side * generator.uniform(0.2, 1.0)
    stiffness = 10 ** generator.uniform(1.3, 2.8)  # length over which a curve forgets its direction
    angles = generator.uniform(0, 2 * np.pi, count)
    if generator.random() < 0.3:  # from a few centres, as microtubules grow
        starts = generator.uniform(0, side, (int(generator.integers(1, 6)), 2))
        starts = starts[generator.integers(len(starts), size=count)]
    else:
        starts = generator.uniform(-0.2 * side, 1.2 * side, (count, 2))
    stems = curves(generator, starts, angles, length, stiffness)
    brightness = generator.uniform(0.3, 1.0, count)
    canvas = _deposit_curves(stems, brightness, side)
    if generator.random() < 0.5:
        branches = int(generator.integers(count, 4 * count))
        parents, at = generator.integers(count, size=branches), generator.integers(1, stems.shape[1], size=branches)
        along = stems[parents, at] - stems[parents, at - 1]
        turned = np.arctan2(along[:, 1], along[:, 0]) + generator.choice([-1, 1], branches) * generator.uniform(
            0.3, 1.1, branches
        )
        twigs = curves(generator, stems[parents, at], turned, length * generator.uniform(0.05, 0.4), stiffness)
        canvas += _deposit_curves(twigs, brightness[parents] * generator.uniform(0.4, 1.0, branches), side)
    return canvas


def outlines(generator: np.random.Generator, side: int) -> Canvas:
    """Draw thin closed curves: membranes of single cells."""
    radius = generator.uniform(15, 150)
    count = _count(generator, 0.8 * (side / radius / 4) ** 2 + 2, most=400)
    canvas = np.zeros((side, side), np.float32)
    for centre in generator.uniform(0, side, (count, 2)):
        size = radius * generator.uniform(0.5, 1.5)
        points = outline(generator, size, corners=int(2 * np.pi * size / _CURVE_STEP))
        canvas += deposit(centre + points, np.full(len(points), generator.uniform(0.3, 1.0)), side)
    return canvas


def tissue(generator: np.random.Generator, side: int) -> Canvas:
    """Draw membranes of confluent cells: bent borders of a Voronoi diagram, of uneven brightness."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    bend = generator.uniform(2, 20)
    x, y = (axis + np.float32(bend) * noise(generator, side, slope=2.5) for axis in (columns, rows))
    nearest, second = (np.full((side, side), np.float32(np.inf)) for _ in range(2))
    for at_x, at_y in generator.uniform(0, side, (int(generator.integers(20, 110)), 2)).astype(np.float32):
        distance = (x - at_x) ** 2 + (y - at_y) ** 2
        np.minimum(second, np.maximum(nearest, distance), out=second)
        np.minimum(nearest, distance, out=nearest)
    gap = np.sqrt(second) - np.sqrt(nearest)
    borders: Canvas = np.exp(-((gap / np.float32(generator.uniform(1.5, 4.0))) ** 2))
    return borders * clouds(generator, side, generator.uniform(0, 0.5))


def haze(generator: np.random.Generator, side: int) -> Canvas:
    """Draw diffuse stain: rough or smooth clouds."""
    return clouds(generator, side, generator.uniform(0.4, 1.2), slope=generator.uniform(1.0, 2.5))


STRUCTURES = (nuclei, vesicles, spots, filaments, outlines, tissue, haze)


def outline(generator: np.random.Generator, radius: float, corners: int = 60) -> Points:
    """Draw (corners, 2) points of a closed wavy curve around the origin: a circle with a few harmonics."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    orders = np.arange(2, 7)
    waves = generator.uniform(-1, 1, (2, len(orders))) * generator.uniform(0, 0.35) / orders
    radii = radius * (1 + waves[0] @ np.cos(np.outer(orders, angles)) + waves[1] @ np.sin(np.outer(orders, angles)))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def curves(
    generator: np.random.Generator, starts: Points, angles: npt.NDArray[np.float64], length: float, stiffness: float
) -> Points:
    """Draw (n, points, 2) points of n smooth curves, whose directions follow smooth random walks."""
    steps = max(2, int(length / _CURVE_STEP))
    knots = max(2, steps // 16)
    kinks = generator.standard_normal((len(starts), knots)) * np.sqrt(2 * length / knots / stiffness)
    walk = np.concatenate([np.zeros((len(starts), 1)), np.cumsum(kinks, axis=1)], axis=1)
    at = np.linspace(0, knots, steps)
    low = np.minimum(at.astype(int), knots - 1)
    directions = angles[:, None] + walk[:, low] + (walk[:, low + 1] - walk[:, low]) * (at - low)
    moves = _CURVE_STEP * np.stack([np.cos(directions), np.sin(directions)], axis=2)
    return starts[:, None] + np.cumsum(moves, axis=1)


def positions(generator: np.random.Generator, side: int, count: int) -> Points:
    """Draw (count, 2) positions, uniform or in clusters."""
    if generator.random() < 0.5:
        return generator.uniform(0, side, (count, 2))
    centres = generator.uniform(0, side, (int(generator.integers(2, 25)), 2))
    spread = generator.uniform(0.02, 0.12) * side
    return centres[generator.integers(len(centres), size=count)] + spread * generator.standard_normal((count, 2))


def deposit(points: Points, weights: npt.NDArray[np.float64], side: int) -> Canvas:
    """Add point sources (n, 2), x before y, to an empty canvas, each shared between its four nearest pixels."""
    left, top = np.floor(points - 0.5).astype(np.int64).T
    right, bottom = (points - 0.5).T - (left, top)
    canvas = np.zeros(side * side)
    for down, share_y in ((0, 1 - bottom), (1, bottom)):
        for across, share_x in ((0, 1 - right), (1, right)):
            y, x = top + down, left + across
            inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
            share = (weights * share_y * share_x)[inside]
            canvas += np.bincount((y * side + x)[inside], share, minlength=side * side)
    return canvas.reshape(side, side).astype(np.float32)


def clouds(generator: np.random.Generator, side: int, contrast: float, slope: float = 1.5) -> Canvas:
    """Draw positive factors around 1. Their logarithm is `noise` with deviation ``contrast``."""
    factors: Canvas = np.exp(np.float32(contrast) * noise(generator, side, slope))
    return factors


def noise(generator: np.random.Generator, side: int, slope: float) -> Canvas:
    """Draw clouds of mean 0 and deviation 1 whose amplitudes fall with frequency to the power ``slope``."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]) + 1.0 / side
    spectrum = np.fft.rfft2(generator.standard_normal((side, side), dtype=np.float32)) / frequency**slope
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum, s=(side, side))
    normalised: Canvas = (values / values.std()).astype(np.float32)
    return normalised


def _deposit_curves(points: Points, brightness: npt.NDArray[np.float64], side: int) -> Canvas:
    return deposit(points.reshape(-1, 2), np.repeat(brightness, points.shape[1]), side)


def _fill(draw: ImageDraw.ImageDraw, points: Points, brightness: float) -> None:
    draw.polygon([(float(x), float(y)) for x, y in points], fill=brightness)


def _count(generator: np.random.Generator, usual: float, *, most: int) -> int:
    """Draw a count of half to twice the usual one."""
    return int(min(most, 1 + usual * 2 ** generator.uniform(-1, 1)))
