"""What a scientific camera makes of light: shot noise, read noise, and numbers of 16 bits on a pedestal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint16]

FEW_COUNTS = 0.4  # share of the cameras whose counts are as few as those of 8 bits
BRIGHTEST = 20_000.0  # counts of light 1 at the most: what is brighter still is seldom lost


@dataclass(frozen=True)
class Camera:
    """A camera and an exposure.

    Attributes
    ----------
    photons
        Electrons that a pixel of light 1 gives on average.
    read_noise
        Deviation in electrons.
    gain
        Counts an electron.
    offset
        Counts of a pixel without light.
    """

    photons: float
    read_noise: float
    gain: float
    offset: float

    @classmethod
    def random(cls, generator: np.random.Generator) -> Camera:
        """Draw one from what is in use: 30 to 30 000 electrons in the bright parts, most of 16 bits left empty.

        Some give no more counts than 8 bits hold; of so many electrons at times, as when many exposures are averaged
        or filtered before they are saved, that the steps of the counts are all that is left of the noise.
        """
        read_noise, few_counts = generator.uniform(0.5, 4.0), generator.random() < FEW_COUNTS
        photons = 10 ** generator.uniform(1.5, 8.0 if few_counts else 4.5)
        if few_counts:
            return cls(photons, read_noise, gain=generator.uniform(60, 255) / photons, offset=generator.uniform(0, 20))
        gain = min(10 ** generator.uniform(-0.7, 0.6), BRIGHTEST / photons)
        return cls(photons, read_noise, gain, offset=generator.choice([0.0, 100.0, generator.uniform(0, 500)]))

    @classmethod
    def random_low_count(cls, generator: np.random.Generator) -> Camera:
        """Draw one of 8 bits, of so many electrons that they leave no noise."""
        photons = 10 ** generator.uniform(5, 8)
        read_noise, brightest, offset = (generator.uniform(*ends) for ends in ((0.5, 4), (60, 255), (0, 20)))
        return cls(photons, read_noise, brightest / photons, offset)

    def record(self, light: npt.NDArray[np.float32], generator: np.random.Generator) -> Counts:
        """Expose: light of any shape, not negative and around 1 where it is bright, to counts."""
        electrons = generator.poisson(self.photons * light) + self.read_noise * generator.standard_normal(light.shape)
        counts: Counts = np.clip(np.rint(self.offset + self.gain * electrons), 0, 2**16 - 1).astype(np.uint16)
        return counts
