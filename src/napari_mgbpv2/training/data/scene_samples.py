"""Samples from synthetic scenes, for models that are to know no photograph."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.tiling import Span
from napari_mgbpv2.training.data.degradation import Orientation, Pair, degraded_crop
from napari_mgbpv2.training.data.samples import ENDLESS, check_numbers
from napari_mgbpv2.training.data.scratch import Scratch
from napari_mgbpv2.training.scenes import Scene, numbered_scene

_STREAM = 0


class SceneSamples(Dataset[Pair]):
    """An endless set of pairs from synthetic scenes, each a function of (seed, index).

    Sample ``index`` lies in one of the last ``pool`` scenes up to number ``first_scenes + index // uses``.

    Parameters
    ----------
    scale
        Shrinking factor.
    patch
        Height and width of a sample at target resolution. It may lie anywhere, also off the grid of source pixels.
    seed
        The same seed gives the same scenes and samples.
    channels
        3, or 1: red, green or blue of a scene.
    round_to_8_bits
        Whether the low-resolution image is rounded to 256 values, as one that was saved is.
    augment
        Whether samples are turned and mirrored, 8 ways.
    pool
        Scenes to choose among at the most.
    uses
        Samples after which a new scene joins and, once the pool is full, the oldest one leaves.
    first_scenes
        Scenes that the first samples choose among.
    scene_size
        Height and width of a scene.
    """

    def __init__(
        self,
        scale: int,
        patch: int,
        seed: int,
        *,
        channels: int = 3,
        round_to_8_bits: bool = True,
        augment: bool = True,
        pool: int = 160,
        uses: int = 64,
        first_scenes: int = 24,
        scene_size: int = 512,
    ) -> None:
        check_numbers(scale, patch, seed)
        if channels not in (1, 3):
            raise ImageError(f"scenes have 3 channels or 1, not {channels}.")
        if min(pool, uses, first_scenes) < 1:
            raise ImageError("pool, uses and first_scenes must be at least 1.")
        self._size = scene_size // scale * scale
        if self._size < patch:
            raise ImageError(f"a patch of {patch} px does not fit into scenes of {scene_size} px.")
        self.scale, self.patch, self.seed, self.channels = scale, patch, seed, channels
        self.round_to_8_bits, self.augment = round_to_8_bits, augment
        self.pool, self.uses, self.first_scenes, self.scene_size = pool, uses, first_scenes, scene_size
        self._store = Scratch()

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Pair:
        """Return sample ``index``: input and target, (channels, patch, patch) each."""
        if not 0 <= index < ENDLESS:
            raise IndexError(f"sample {index}: samples are numbered from 0")
        generator = np.random.default_rng((self.seed, _STREAM, index))
        frontier = self.first_scenes + index // self.uses
        scene = self._scene(int(generator.integers(max(0, frontier - self.pool), frontier)))
        rows, columns = (self._crop(generator) for _ in range(2))
        channel = int(generator.integers(3))
        orientation = Orientation.drawn(generator) if self.augment else Orientation()
        return orientation.apply(self._pair(scene, channel, rows, columns))

    def validation(self, count: int, size: int) -> list[Pair]:
        """Return the middles of scenes that no sample is cut from."""
        size = min(size, self._size)
        start = (self._size - size) // 2
        middle = Span(start, start + size)
        scenes = (numbered_scene(self.seed, number, self.scene_size, held_out=True) for number in range(count))
        return [
            Orientation().apply(self._pair(scene, number % 3, middle, middle)) for number, scene in enumerate(scenes)
        ]

    def _crop(self, generator: np.random.Generator) -> Span:
        start = int(generator.integers(self._size - self.patch + 1))
        return Span(start, start + self.patch)

    def _pair(self, scene: Scene, channel: int, rows: Span, columns: Span) -> Pair:
        samples = slice(None) if self.channels == 3 else slice(channel, channel + 1)

        def read(high: slice, wide: slice) -> Tensor:
            pixels = np.ascontiguousarray(scene[high, wide, samples].transpose(2, 0, 1))
            return torch.from_numpy(pixels).float() / 255

        size = (self._size, self._size)
        return degraded_crop(read, size, self.scale, rows, columns, round_to_8_bits=self.round_to_8_bits)

    def _scene(self, number: int) -> Scene:
        """Draw a scene, or take it from the folder where whichever loader worker has drawn it has left it."""
        path = self._path(number)
        try:
            kept: Scene = np.load(path, mmap_mode="r")
            return kept
        except (OSError, ValueError):
            scene = numbered_scene(self.seed, number, self.scene_size)
        partial = path.with_suffix(f".{os.getpid()}")
        try:
            with open(partial, "wb") as file:
                np.save(file, scene)
            os.replace(partial, path)
            self._path(number - 2 * self.pool).unlink(missing_ok=True)  # workers are not that far apart
        except OSError:  # a full disk costs time, not the run
            partial.unlink(missing_ok=True)
        return scene

    def _path(self, number: int) -> Path:
        return self._store.path / f"{number}.npy"
