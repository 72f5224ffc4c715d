"""Training pairs: sharp patches and what is left of them after bicubic shrinking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from napari_mgbpv2.resampling import bicubic_resize, shrink
from napari_mgbpv2.training.scenes import random_scene

Pair = tuple[Tensor, Tensor]

FIRST_SCENES = 24


def degrade(target: Tensor, scale: int) -> Tensor:
    """What the network gets: (B, C, H, W) in [0, 1] shrunk, rounded to 8 bits and upscaled again, bicubically."""
    height, width = target.shape[-2:]
    source = (shrink(target, scale) * 255).round().clamp(0, 255) / 255
    return bicubic_resize(source, height, width)


class ScenePatches(IterableDataset[Pair]):
    """An endless stream of (input, target) patches from synthetic scenes.

    Parameters
    ----------
    scale
        Shrinking factor.
    patch
        Height and width of a patch at target resolution; patches lie on the grid of source pixels.
    seed
        The same seed gives the same stream, for the same number of loader workers.
    pool
        Scenes held at a time at the most; the stream begins with `FIRST_SCENES` of them.
    uses
        Patches after which a new scene is drawn and, once the pool is full, takes the place of another.
    scene_size
        Height and width of a scene; a multiple of ``scale``.
    """

    def __init__(
        self, scale: int, patch: int, seed: int, *, pool: int = 160, uses: int = 64, scene_size: int = 512
    ) -> None:
        super().__init__()
        self.scale, self.patch, self.seed = scale, patch, seed
        self.pool, self.uses, self.scene_size = pool, uses, scene_size

    def __iter__(self) -> Iterator[Pair]:
        worker = get_worker_info()
        generator = np.random.default_rng([self.seed, worker.id if worker else 0])
        scenes = [self._pair(generator) for _ in range(FIRST_SCENES)]
        drawn = 0
        while True:
            if drawn % self.uses == 0:
                if len(scenes) >= self.pool:
                    scenes.pop(int(generator.integers(len(scenes))))
                scenes.append(self._pair(generator))
            drawn += 1
            yield self._crop(scenes[int(generator.integers(len(scenes)))], generator)

    def _pair(self, generator: np.random.Generator) -> Pair:
        target = to_tensor(random_scene(generator, self.scene_size))
        return degrade(target[None], self.scale)[0], target

    def _crop(self, pair: Pair, generator: np.random.Generator) -> Pair:
        offsets = [int(generator.integers((self.scene_size - self.patch) // self.scale + 1)) for _ in range(2)]
        top, left = (offset * self.scale for offset in offsets)
        turns, flipped = int(generator.integers(4)), bool(generator.integers(2))
        crops = [image[:, top : top + self.patch, left : left + self.patch] for image in pair]
        crops = [torch.rot90(crop, turns, (1, 2)) for crop in crops]
        if flipped:
            crops = [crop.flip(2) for crop in crops]
        return crops[0].contiguous(), crops[1].contiguous()


def to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    """(H, W, C) uint8 to (C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
