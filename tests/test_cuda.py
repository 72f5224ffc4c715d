"""What only a machine with a CUDA device can show: that it gives what a CPU gives, the same bits each time.

The rest of the suite tests the same code with stand-ins. Without a device, all of this is left out.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_mgbpv2 as mgbp
from examples import Array, a_network, an_image
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.runtime import Engine, get_device, release_device_memory
from napari_mgbpv2.runtime.cuda_graphs import CAPTURE_AFTER_RUNS, CUDA_GRAPHS_ENV_VAR, CudaGraphCapturer, GraphedNetwork
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace
from napari_mgbpv2.tiling.grid import Span

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")
NOISY = ModelConfig(features=(12, 8, 6), noise_channels=1)
PICTURE = an_image(120, 150, 3, dtype="f4")


def upscaled(image: Any = PICTURE, **options: Any) -> Array:
    return mgbp.upscale(image, **({"model": "x4", "tile": 200, "device": "cuda"} | options)).compute()


def psnr(found: Array, expected: Array) -> float:
    return float(-10 * np.log10(np.mean(np.square(found - expected, dtype=np.float64))))


class TestResults:
    def test_full_precision_is_that_of_a_cpu(self) -> None:
        np.testing.assert_allclose(upscaled(), upscaled(device="cpu"), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("precision", "least"), [("float16", 50), ("bfloat16", 35)])
    def test_half_precision_stays_close(self, precision: str, least: float) -> None:
        assert psnr(upscaled(precision=precision), upscaled()) > least

    @pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
    def test_the_same_bits_come_each_time(self, precision: str) -> None:
        first = upscaled(precision=precision)
        release_device_memory()
        assert first.tobytes() == upscaled(precision=precision).tobytes()

    def test_noise_is_that_of_a_cpu(self) -> None:
        options: dict[str, Any] = {"model": "x4-perceptual", "noise": 1.0, "seed": 3}
        np.testing.assert_allclose(upscaled(**options), upscaled(device="cpu", **options), atol=1e-4, rtol=0)

    def test_blending_on_the_device_gives_the_bits_of_blending_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        image = an_image(120, 150, 3)
        there = upscaled(image)
        monkeypatch.setattr(Engine, "keep_on_device", property(lambda self: False))
        assert there.tobytes() == upscaled(image).tobytes()

    def test_a_conversion_gives_the_bits_of_the_lazy_image(self, tmp_path: Path) -> None:
        import zarr

        image = an_image(120, 150, 3)
        mgbp.convert(image, tmp_path / "a.ome.zarr", scale=4, model="x4", tile=200, device="cuda", shard=256, chunk=64)
        stored = np.moveaxis(zarr.open_array(tmp_path / "a.ome.zarr" / "0")[:], 0, -1)
        assert np.asarray(stored).tobytes() == upscaled(image).tobytes()


class TestReplaying:
    @pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
    def test_recorded_forwards_give_the_bits_of_the_network(self, precision: torch.dtype) -> None:
        network = InferenceNetwork(a_network(NOISY), Workspace(), CUDA, precision)
        replaying, sides = (
            GraphedNetwork(network, CudaGraphCapturer(CUDA)),
            [NOISY.natural_up(size) for size in (90, 140)],
        )
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with warnings.catch_warnings(), exact:  # as the engine computes
            warnings.simplefilter("error")
            for seed in range(8 * CAPTURE_AFTER_RUNS):
                side = sides[seed % 2]
                generator = torch.Generator(CUDA).manual_seed(seed)
                image, noise = torch.rand(2, 1, 3, side, side, generator=generator, device=CUDA)
                wanted = slice(4 * (seed % 3), side), slice(0, side)
                found = replaying(image, noise, 0.5, wanted)
                # a larger forward meanwhile, which makes the usual workspace another one
                network(torch.rand(1, 3, sides[1], sides[1], device=CUDA))
                assert torch.equal(found, network(image, noise, 0.5, wanted))
        assert len(replaying._graphs) == 6

    @pytest.fixture
    def is_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Engines made in the test record; those of other tests do not."""
        monkeypatch.setenv(CUDA_GRAPHS_ENV_VAR, "1")
        monkeypatch.setattr(get_device(CUDA), "_engines", {})

    @pytest.mark.usefixtures("is_on")
    def test_threads_that_blend_meanwhile_do_not_disturb_a_recording(self) -> None:
        image = an_image(1, 200, 200, dtype="f4")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(lambda _: upscaled(image, tile=200), range(8)))
        assert all(result.tobytes() == results[0].tobytes() for result in results)

    @pytest.mark.usefixtures("is_on")
    def test_their_memory_is_given_back(self) -> None:
        engine, area = Engine(a_network(), CUDA), (Span(0, 640), Span(0, 640))
        release_device_memory()
        before = torch.cuda.memory_reserved()
        for seed in range(CAPTURE_AFTER_RUNS + 1):
            image = an_image(3, 160, 160, dtype="f4", seed=seed)
            engine.run(lambda rows, columns, image=image: image[:, rows, columns], area, area, (160, 160), 4)
        assert torch.cuda.memory_reserved() > before
        release_device_memory()
        assert torch.cuda.memory_reserved() <= before + 2**22
