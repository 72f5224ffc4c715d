"""Synthetic training images: dead leaves with the edges, textures and strokes of real ones.

Random ellipses, polygons, strokes and letters of power-law size cover one another; they are filled with flat
colours, gradients, stripes and 1/f noise. Such occluding "leaves" have the scale invariance of natural images.
"""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Scene = npt.NDArray[np.uint8]

SUPERSAMPLING = 2  # shapes are drawn this much larger and averaged down: smooth edges at any angle
SMALLEST_LEAF = 6.0  # radius in drawn pixels


def random_scene(generator: np.random.Generator, size: int = 512) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    generator
        Source of all randomness: the same state draws the same scene.
    size
        Height and width in pixels.

    Returns
    -------
    ndarray
        (size, size, 3), uint8, RGB.
    """
    side = size * SUPERSAMPLING
    canvas = Image.fromarray(_texture(generator, side))
    textures = [_texture(generator, side // 2) for _ in range(3)]
    for _ in range(int(generator.integers(250, 900))):
        _draw_leaf(canvas, textures, generator)
    return _develop(canvas.resize((size, size), Image.Resampling.BOX), generator)


def _draw_leaf(canvas: Image.Image, textures: list[Scene], generator: np.random.Generator) -> None:
    """Add one shape of random kind, size, position and fill."""
    side = canvas.width
    radius = _power_law(generator, SMALLEST_LEAF, side / 3)
    x, y = generator.uniform(-radius, side + radius, 2)
    box = (int(x - radius), int(y - radius), int(x + radius) + 1, int(y + radius) + 1)
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    kind = generator.choice(["ellipse", "polygon", "stroke", "letters"], p=[0.35, 0.4, 0.15, 0.1])
    _SHAPES[kind](ImageDraw.Draw(mask), mask.width, generator)
    canvas.paste(_make_fill(mask.size, textures, generator), box[:2], mask)


def _ellipse(draw: ImageDraw.ImageDraw, side: int, generator: np.random.Generator) -> None:
    half = generator.uniform(0.3, 1.0, 2) * side / 2
    middle = side / 2
    draw.ellipse((middle - half[0], middle - half[1], middle + half[0], middle + half[1]), fill=255)


def _polygon(draw: ImageDraw.ImageDraw, side: int, generator: np.random.Generator) -> None:
    corners = int(generator.integers(3, 8))
    angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
    radii = generator.uniform(0.5, 1.0, corners) * side / 2
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) + side / 2
    draw.polygon([(float(a), float(b)) for a, b in points], fill=255)


def _stroke(draw: ImageDraw.ImageDraw, side: int, generator: np.random.Generator) -> None:
    points = generator.uniform(0, side, (int(generator.integers(2, 6)), 2))
    width = max(1, round(_power_law(generator, 1.0, max(1.5, side / 4))))
    draw.line([(float(a), float(b)) for a, b in points], fill=255, width=width, joint="curve")


def _letters(draw: ImageDraw.ImageDraw, side: int, generator: np.random.Generator) -> None:
    text = "".join(generator.choice(list(string.ascii_letters + string.digits), int(generator.integers(1, 8))))
    font = ImageFont.load_default(size=max(8.0, 1.6 * side / max(2, len(text))))
    draw.text((0, side / 4), text, fill=255, font=font)


_SHAPES = {"ellipse": _ellipse, "polygon": _polygon, "stroke": _stroke, "letters": _letters}


def _make_fill(size: tuple[int, int], textures: list[Scene], generator: np.random.Generator) -> Image.Image:
    """Draw a flat colour, a gradient, stripes, or a crop of a texture, of (width, height) ``size``."""
    width, height = size
    colour = _colour(generator)
    kind = generator.choice(["flat", "gradient", "stripes", "texture"], p=[0.4, 0.25, 0.08, 0.27])
    if kind == "flat":
        return Image.new("RGB", size, tuple(int(c) for c in colour))
    if kind == "texture" and max(size) <= textures[0].shape[0]:
        source = textures[int(generator.integers(len(textures)))]
        top, left = (int(generator.integers(source.shape[0] - n + 1)) for n in (height, width))
        piece = source[top : top + height, left : left + width].astype(np.float32)
        values = (piece - piece.mean()) * generator.uniform(0.1, 0.9) + colour
    else:
        angle = generator.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * np.arange(width)[None, :] + np.sin(angle) * np.arange(height)[:, None]
        if kind == "stripes":
            period = _power_law(generator, 4.0, max(6.0, width / 2))
            wave = (ramp / period % 1.0 < generator.uniform(0.3, 0.7)).astype(np.float32)
        else:
            wave = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1.0)
        values = colour + wave[..., None] * (_colour(generator) - colour)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _texture(generator: np.random.Generator, side: int) -> Scene:
    """Draw (side, side, 3) uint8 1/f^a noise around a random colour, stretched along a random direction."""
    frequency_y, frequency_x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    angle, stretch = generator.uniform(0, np.pi), generator.uniform(1.0, 4.0) ** 2
    along = frequency_x * np.cos(angle) + frequency_y * np.sin(angle)
    across = frequency_y * np.cos(angle) - frequency_x * np.sin(angle)
    radius = np.sqrt(along**2 * stretch + across**2 / stretch) + 1.0 / side
    spectrum = np.fft.rfft2(generator.standard_normal((side, side))) / radius ** generator.uniform(0.7, 1.6)
    field = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    field /= field.std() + 1e-6
    tint = 1.0 + 0.2 * generator.standard_normal(3)
    values = _colour(generator) + generator.uniform(10, 50) * field[..., None] * tint
    texture: Scene = np.clip(values, 0, 255).astype(np.uint8)
    return texture


def _develop(image: Image.Image, generator: np.random.Generator) -> Scene:
    """Add the effects of a camera: slight blur, contrast and noise."""
    if generator.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.1)))
    values = np.asarray(image, dtype=np.float32)
    contrast = generator.uniform(0.4, 1.0) if generator.random() < 0.5 else 1.0
    values = (values - values.mean()) * contrast + values.mean()
    if generator.random() < 0.3:
        values = values + generator.uniform(0.0, 3.0) * generator.standard_normal(values.shape, dtype=np.float32)
    developed: Scene = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return developed


def _colour(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw an RGB colour in 0..255 of any brightness, mostly of low saturation as in nature."""
    chroma = 35.0 * generator.standard_normal(3)
    return np.clip(generator.uniform(0, 255) + chroma, 0, 255).astype(np.float32)


def _power_law(generator: np.random.Generator, least: float, most: float) -> float:
    """Draw a size with density proportional to size^-2 between ``least`` and ``most``."""
    return float(1.0 / generator.uniform(1.0 / most, 1.0 / least))
