"""Synthetic single-channel microscopy: structures, out of focus in part, through optics onto a camera.

A field holds blobs (nuclei, vesicles, spots), filaments or membranes, or several of them, on an uneven background,
blurred by a small point spread function and recorded by a simulated camera. Most fields fluoresce; some absorb, like
stained tissue in transmitted light.
"""

from __future__ import annotations

import numpy as np

from napari_mgbpv2.training.synthetic.camera import Camera, Counts
from napari_mgbpv2.training.synthetic.structures import STRUCTURES, Canvas, clouds

SUPERSAMPLING = 2  # canvas pixels along a pixel of the camera
MARGIN = 20  # camera pixels around a field, because the blur's Fourier transform is periodic
SHARPNESS = 0.5, 5.0  # least and greatest deviation of the point spread function, in pixels of the camera
SMOOTH_SHARPNESS = 2.0, 8.0  # the same of a smooth micrograph
SMOOTH = 0.45  # share of smooth micrographs
ABSORBING = 0.25  # share of the fields
BRIGHT = 99.8  # percentile that defines the brightness of structures


def random_field(generator: np.random.Generator, size: int = 512, camera: Camera | None = None) -> Counts:
    """Draw one field as a camera records it.

    Parameters
    ----------
    generator
        Source of all randomness: the same state draws the same field.
    size
        Height and width in pixels.
    camera
        By default a random one.

    Returns
    -------
    ndarray
        (size, size, 1), uint16 counts.
    """
    camera = camera or Camera.random(generator)
    return camera.record(random_light(generator, size), generator)[..., None]


def random_micrograph(generator: np.random.Generator, size: int = 512) -> Counts:
    """Draw a field, or a smooth picture whose only steps are those of quantisation.

    Without such pictures in training, a network takes quantisation steps for detail and sharpens them.

    Parameters
    ----------
    generator
        Source of all randomness: the same state draws the same picture.
    size
        Height and width in pixels.

    Returns
    -------
    ndarray
        (size, size, 1), uint16 counts.
    """
    if generator.random() >= SMOOTH:
        return random_field(generator, size)
    light = random_light(generator, size, SMOOTH_SHARPNESS)
    return Camera.random_low_count(generator).record(light, generator)[..., None]


def random_light(generator: np.random.Generator, size: int = 512, sharpness: tuple[float, float] = SHARPNESS) -> Canvas:
    """Draw noise-free light: (size, size) float32, not negative, around 1 in bright parts."""
    side = (size + 2 * MARGIN) * SUPERSAMPLING
    blur = SUPERSAMPLING * np.exp(generator.uniform(*np.log(sharpness)))
    canvas = np.zeros((side, side), np.float32)
    for kind in generator.choice(len(STRUCTURES), int(generator.integers(1, 4)), replace=False):
        layer = blur_layer(STRUCTURES[kind](generator, side), blur, *_random_defocus(generator))
        canvas += np.float32(generator.uniform(0.3, 1.0)) / _bright_level(layer) * layer
    structures = np.maximum(_downsample_by_mean(canvas)[MARGIN:-MARGIN, MARGIN:-MARGIN], 0)
    structures /= _bright_level(structures)
    illumination = clouds(generator, size, generator.uniform(0, 0.2), slope=3.0)
    light: Canvas
    if generator.random() < ABSORBING:
        light = illumination * np.exp(-np.float32(generator.uniform(0.2, 2.5)) * structures)
    else:
        background = np.float32(10 ** generator.uniform(-2.5, -0.3))
        uneven = clouds(generator, size, generator.uniform(0, 0.5), slope=2.5)
        light = illumination * (structures + background * uneven)
    return light


def blur_layer(canvas: Canvas, deviation: float, wide_deviation: float, wide_share: float) -> Canvas:
    """Blur with the sum of two Gaussians: light in focus, and a share of light out of focus."""
    squared = np.fft.fftfreq(len(canvas))[:, None] ** 2 + np.fft.rfftfreq(len(canvas))[None, :] ** 2
    near, far = (np.exp(-2 * (np.pi * each) ** 2 * squared) for each in (deviation, wide_deviation))
    spectrum = np.fft.rfft2(canvas) * ((1 - wide_share) * near + wide_share * far)
    made: Canvas = np.fft.irfft2(spectrum, s=canvas.shape).astype(np.float32)
    return made


def _random_defocus(generator: np.random.Generator) -> tuple[float, float]:
    """Draw the deviation in canvas pixels and the share of light out of focus, zero in half of the cases."""
    share = generator.uniform(0, 0.7) if generator.random() < 0.5 else 0.0
    return generator.uniform(5, 50), share


def _downsample_by_mean(canvas: Canvas) -> Canvas:
    side = len(canvas) // SUPERSAMPLING
    averaged: Canvas = canvas.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean(axis=(1, 3))
    return averaged


def _bright_level(values: Canvas) -> np.float32:
    """Return the brightness of the bright parts; for a few points, nearly the largest value."""
    return np.float32(max(np.percentile(values, BRIGHT), 0.05 * values.max(), 1e-6))
