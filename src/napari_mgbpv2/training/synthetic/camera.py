"""Simulate a scientific camera: shot noise, read noise, and 16-bit counts with an offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint16]

FEW_COUNTS = 0.4  # share of the cameras with an 8-bit range of counts
BRIGHTEST = 20_000.0  # largest counts of light 1, so that brighter light seldom saturates


@dataclass(frozen=True)
class Camera:
    """Camera with an exposure.

    Attributes
    ----------
    photons
        Electrons that a pixel of light 1 gives on average.
    read_noise
        Standard deviation in electrons.
    gain
        Counts per electron.
    offset
        Counts of a pixel without light.
    """

    photons: float
    read_noise: float
    gain: float
    offset: float

    @classmethod
    def random(cls, generator: np.random.Generator) -> Camera:
        """Draw a typical camera: 30 to 30 000 electrons in bright parts, most of the 16-bit range unused.

        Some cameras use an 8-bit range of counts. Their electrons can be so many, as in averaged or filtered exposures,
        that quantisation is larger than the noise.
        """
        read_noise, few_counts = generator.uniform(0.5, 4.0), generator.random() < FEW_COUNTS
        photons = 10 ** generator.uniform(1.5, 8.0 if few_counts else 4.5)
        if few_counts:
            return cls(photons, read_noise, gain=generator.uniform(60, 255) / photons, offset=generator.uniform(0, 20))
        gain = min(10 ** generator.uniform(-0.7, 0.6), BRIGHTEST / photons)
        return cls(photons, read_noise, gain, offset=generator.choice([0.0, 100.0, generator.uniform(0, 500)]))

    @classmethod
    def random_low_count(cls, generator: np.random.Generator) -> Camera:
        """Draw an 8-bit camera with so many electrons that noise is negligible."""
        photons = 10 ** generator.uniform(5, 8)
        read_noise, brightest, offset = (generator.uniform(*ends) for ends in ((0.5, 4), (60, 255), (0, 20)))
        return cls(photons, read_noise, brightest / photons, offset)

    def record(self, light: npt.NDArray[np.float32], generator: np.random.Generator) -> Counts:
        """Record light of any shape, not negative and around 1 in bright parts, as uint16 counts."""
        electrons = generator.poisson(self.photons * light) + self.read_noise * generator.standard_normal(light.shape)
        counts: Counts = np.clip(np.rint(self.offset + self.gain * electrons), 0, 2**16 - 1).astype(np.uint16)
        return counts
