"""The engine: one model per process and device, one forward at a time, exact arithmetic, the guard."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_mgbpv2 as mgbp
from examples import TINY, a_network, an_image
from napari_mgbpv2.errors import DeviceError
from napari_mgbpv2.imaging.resampling import ResamplingWeights, bicubic_resize
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble
from napari_mgbpv2.runtime import (
    Device,
    Engine,
    ModelFile,
    available_devices,
    choose_device,
    choose_precision,
    constant_tiles,
    get_device,
    get_engine,
    measure_guard,
    release_device_memory,
    run_on_engine_thread,
)
from napari_mgbpv2.runtime.constant_tiles import ConstantTileCache
from napari_mgbpv2.runtime.inference import InferenceNetwork
from napari_mgbpv2.tiling.grid import CONSTANT_TILE_CACHE_SIZE, Span

CPU = torch.device("cpu")


def run_whole(engine: Engine, side: int = 40) -> Any:
    image = an_image(3, side, side, dtype="f4")
    area = (Span(0, 4 * side), Span(0, 4 * side))
    return engine.run(lambda rows, columns: image[:, rows, columns], area, area, (side, side), 4)


class TestEngine:
    def test_two_forwards_never_run_at_once_on_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running, most, lock = 0, 0, threading.Lock()

        def run(self: Any, image: torch.Tensor, *_: Any) -> torch.Tensor:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
            return image

        monkeypatch.setattr(InferenceNetwork, "__call__", run)
        engines = [Engine(a_network(seed=seed), CPU) for seed in range(2)]
        monkeypatch.setattr(Device, "run", lambda self, work: work())  # The thread of the device would hide the lock.
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: run_whole(engines[number % 2]), range(16)))
        assert most == 1

    def test_memory_is_not_released_during_a_forward(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = InferenceNetwork.__call__
        releasing = threading.Thread(target=release_device_memory)
        retained: list[int] = []

        def release_meanwhile(self: Any, *arguments: Any) -> torch.Tensor:
            output = forward(self, *arguments)
            releasing.start()
            releasing.join(0.2)
            retained.append(self.workspace.nbytes)
            return output

        monkeypatch.setattr(InferenceNetwork, "__call__", release_meanwhile)
        run_whole(Engine(a_network(), CPU))
        releasing.join(30)
        assert retained[0] > 0
        assert get_device("cpu").workspace.nbytes == 0

    def test_all_arithmetic_is_done_by_the_thread_of_the_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second team of OpenMP threads would make both slow."""
        threads: set[int] = set()
        forward = InferenceNetwork.__call__

        def noted(self: Any, *arguments: Any) -> torch.Tensor:
            threads.add(threading.get_ident())
            return forward(self, *arguments)

        monkeypatch.setattr(InferenceNetwork, "__call__", noted)
        engines = [Engine(a_network(seed=seed), CPU) for seed in range(2)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: run_whole(engines[number % 2]), range(6)))
        assert len(threads) == 1
        assert threading.get_ident() not in threads

    def test_an_error_reaches_whoever_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Any, *_: Any) -> torch.Tensor:
            raise MemoryError("no more")

        engine = Engine(a_network(), CPU)
        with monkeypatch.context() as patched:
            patched.setattr(InferenceNetwork, "__call__", fail)
            with pytest.raises(MemoryError, match="no more"):
                run_whole(engine)
        assert run_whole(engine).shape == (3, 160, 160)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
    def test_a_forked_process_has_a_thread_of_its_own(self) -> None:
        run_on_engine_thread(threading.get_ident)
        child = os.fork()
        if not child:
            os._exit(0 if run_on_engine_thread(lambda: 3) == 3 else 1)
        deadline = time.monotonic() + 30
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ended[1] == 0

    def test_it_gives_what_the_network_gives_for_the_upscaled_image(self) -> None:
        network, image = a_network(), an_image(3, 40, 40, dtype="f4")
        enlarged = bicubic_resize(torch.from_numpy(image)[None], 160, 160)
        np.testing.assert_allclose(run_whole(Engine(network, CPU)), network(enlarged)[0], atol=1e-5, rtol=0)

    def test_memory_for_later_tiles_is_released_on_request(self) -> None:
        engine = Engine(a_network(), CPU)
        before = run_whole(engine)
        assert get_device("cpu").workspace.nbytes > 0
        release_device_memory()
        assert get_device("cpu").workspace.nbytes == 0
        assert np.array_equal(run_whole(engine), before)

    def test_a_process_loads_a_model_file_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = ModelFile.of(save_model(a_network(seed=7), tmp_path / "a.safetensors"))
        loads, original = [], ModelFile.load
        monkeypatch.setattr(ModelFile, "load", lambda self: loads.append(1) or original(self))
        with ThreadPoolExecutor(4) as pool:
            engines = set(pool.map(lambda _: get_engine(model, False, "cpu", "float32"), range(8)))
        assert len(engines) == len(loads) == 1

    def test_the_network_given_is_not_touched(self) -> None:
        network = a_network().train()
        Engine(network, CPU)
        assert network.training
        assert next(network.parameters()).is_contiguous()

    def test_reduced_precision_stays_close(self) -> None:
        exact, reduced = (run_whole(Engine(mgbp.load_model("x4"), CPU, name)) for name in ("float32", "bfloat16"))
        error = np.sqrt(np.mean((exact - reduced) ** 2))
        assert 0 < error < 0.02
        assert reduced.dtype == np.float32


class TestConstantTiles:
    """Tiles whose source has one colour throughout are computed once."""

    @pytest.fixture
    def forwards(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        done: list[int] = []
        forward = InferenceNetwork.__call__

        def noted(self: Any, *arguments: Any) -> torch.Tensor:
            done.append(1)
            return forward(self, *arguments)

        monkeypatch.setattr(InferenceNetwork, "__call__", noted)
        return done

    @staticmethod
    def image(*colours: float) -> Any:
        """A picture in the midst of an even background, whose upper half has the first colour."""
        image = np.full((3, 200, 200), colours[-1], dtype=np.float32)
        image[:, :100] = colours[0]
        image[:, 90:110, 90:110] = an_image(3, 20, 20, dtype="f4")
        return image

    @staticmethod
    def upscale(image: Any, **options: Any) -> Any:
        network = a_network(ModelConfig(features=(6, 5, 4), noise_channels=1), scale=4, guard=8)
        return mgbp.upscale(image, 4, model=network, device="cpu", axes="cyx", tile=64, overlap=16, **options).compute()

    def test_they_have_the_bits_that_computing_each_would_give(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = self.upscale(self.image(0.25, 1.0))
        monkeypatch.setattr(constant_tiles, "is_constant", lambda source: False)
        assert np.array_equal(kept, self.upscale(self.image(0.25, 1.0)))

    def test_the_background_is_not_computed_again(self, forwards: list[int]) -> None:
        self.upscale(self.image(1.0))
        with_background = len(forwards)
        forwards.clear()
        self.upscale(an_image(3, 200, 200, dtype="f4"))
        assert with_background < len(forwards) / 2

    def test_each_network_of_an_ensemble_has_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ensemble = Ensemble([TINY, TINY]).eval().requires_grad_(False)
        image = np.full((3, 40, 40), 0.5, dtype=np.float32)
        area = (Span(0, 160), Span(0, 160))
        results = []
        for _ in range(2):
            engine = Engine(ensemble, CPU)
            for _ in range(2):
                results.append(engine.run(lambda rows, columns: image[:, rows, columns], area, area, (40, 40), 4))
            monkeypatch.setattr(constant_tiles, "is_constant", lambda source: False)
        assert all(np.array_equal(result, results[0]) for result in results)

    def test_noise_makes_every_tile_another_one(self, forwards: list[int]) -> None:
        self.upscale(self.image(1.0), noise=0.5)
        noisy = len(forwards)
        forwards.clear()
        self.upscale(an_image(3, 200, 200, dtype="f4"))
        assert noisy == len(forwards)

    def test_what_is_kept_is_not_what_is_handed_out(self) -> None:
        engine, area = Engine(a_network(), CPU), (Span(0, 160), Span(0, 160))
        first, second = (
            engine.run(lambda rows, columns: np.ones((3, 40, 40), dtype=np.float32), area, area, (40, 40), 4)
            for _ in range(2)
        )
        first += 1
        assert not np.shares_memory(first, second)
        third = engine.run(lambda rows, columns: np.ones((3, 40, 40), dtype=np.float32), area, area, (40, 40), 4)
        assert np.array_equal(second, third)

    def test_no_more_than_some_are_kept(self) -> None:
        tiles, weights, region = (
            ConstantTileCache(),
            (ResamplingWeights.of(np.arange(8), 4, 2),) * 2,
            (slice(0, 8), slice(0, 8)),
        )
        computed: list[int] = []

        def find(colour: int) -> None:
            source = np.full((1, 2, 2), colour, dtype=np.float32)
            tiles.get_or_compute(0, source, weights, region, lambda: computed.append(colour) or torch.zeros(1))

        for colour in (*range(CONSTANT_TILE_CACHE_SIZE), 0, CONSTANT_TILE_CACHE_SIZE, 0, 1):
            find(colour)
        assert computed == [*range(CONSTANT_TILE_CACHE_SIZE), CONSTANT_TILE_CACHE_SIZE, 1]

    def test_they_are_forgotten_when_memory_is_given_back(self, forwards: list[int]) -> None:
        engine, area = Engine(a_network(), CPU), (Span(0, 160), Span(0, 160))
        for _ in range(2):
            engine.run(lambda rows, columns: np.ones((3, 40, 40), dtype=np.float32), area, area, (40, 40), 4)
        assert len(forwards) == 1
        release_device_memory()
        engine.run(lambda rows, columns: np.ones((3, 40, 40), dtype=np.float32), area, area, (40, 40), 4)
        assert len(forwards) == 2


class TestDevice:
    @pytest.mark.parametrize(("one", "other"), [("cpu", CPU), ("meta", "meta:0"), ("meta", torch.device("meta", 0))])
    def test_a_device_has_one_object_whatever_its_name(self, one: str, other: Any) -> None:
        assert get_device(one) is get_device(other)

    def test_two_indices_are_two_devices(self) -> None:
        assert get_device("meta:0") is not get_device("meta:1")

    def test_engines_of_a_device_share_its_workspace(self) -> None:
        one, other = Engine(a_network(seed=1), CPU), Engine(a_network(seed=2), "cpu")
        assert one.networks[0].workspace is other.networks[0].workspace is get_device("cpu").workspace

    def test_work_on_the_thread_may_run_more_work_there(self) -> None:
        device = get_device("cpu")
        assert device.run(lambda: device.run(threading.get_ident)) == device.run(threading.get_ident)


class TestDevices:
    def test_the_cpu_is_always_there(self) -> None:
        assert choose_device("cpu") == "cpu"

    def test_without_a_name_the_fastest_kind_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose_device() == "cuda"
        assert choose_device("cuda:1") == "cuda:1"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert choose_device() == "mps"
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert choose_device() == "cpu"

    def test_each_device_is_listed_with_its_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert available_devices()[-1] == "cpu"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert available_devices() == ["cuda", "cuda:0", "cuda:1", "cpu"]

    def test_half_floats_are_not_offered_on_a_cpu(self) -> None:
        with pytest.raises(DeviceError, match=r"'float16' is not offered on cpu; choose one of float32, bfloat16"):
            choose_precision("float16", "cpu")
        assert choose_precision("float16", "cuda") == "float16"


class TestGuard:
    def test_the_packaged_models_carry_the_guard_that_their_weights_need(self) -> None:
        for card in mgbp.list_models():
            assert card.guard == measure_guard(mgbp.load_model(card.name), card.scale or 1)

    def test_it_is_aligned_and_never_more_than_the_reach(self) -> None:
        for config in (ModelConfig(features=(5, 4)), ModelConfig(features=(5, 4, 4), kernel=5)):
            guard = measure_guard(a_network(config), 2)
            assert guard % config.alignment == 0
            assert 0 < guard < config.reach + config.alignment

    def test_weights_that_reach_further_need_more(self) -> None:
        network = a_network(ModelConfig(features=(6, 5, 4, 4)))
        weak = measure_guard(network, 4)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith(("Downscale", "Upscale")):
                    parameter.mul_(3)
        assert weak < measure_guard(network, 4)
