"""Tiles that stay on a device until they are blended there: the same bits as in memory, and less to bring back.

The device here is the CPU, whose tensors are said to be as far away as a GPU's. `test_cuda.py` has a real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import napari_mgbpv2 as mgbp
from examples import TINY, Array, a_network, an_image, counted_image
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.model.network import Ensemble
from napari_mgbpv2.runtime import Device, Engine, to_host_as
from napari_mgbpv2.upscaling import plan_upscale
from napari_mgbpv2.upscaling.lazy import TiledImage, as_dask
from napari_mgbpv2.upscaling.options import UpscaleOptions

NETWORK = a_network()
TYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tiles that have been blended."""
    blended: list[Any] = []
    weighted = TiledImage.weighted_tile

    def noted(self: TiledImage, tile: Any) -> Any:
        blended.append(weighted(self, tile))
        return blended[-1]

    monkeypatch.setattr(TiledImage, "weighted_tile", noted)
    return blended


def let_them_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "keep_on_device", property(lambda self: True))


def both(monkeypatch: pytest.MonkeyPatch, image: Any, **options: Any) -> tuple[Array, Array]:
    """What blending in memory gives, and blending on the device."""
    given = {"model": NETWORK, "tile": 96, "device": "cpu"} | options
    in_memory = mgbp.upscale(image, **given).compute()
    let_them_stay(monkeypatch)
    return in_memory, mgbp.upscale(image, **given).compute()


class TestBlending:
    @pytest.mark.parametrize("dtype", TYPES)
    def test_it_gives_the_bits_of_blending_in_memory(
        self, dtype: str, monkeypatch: pytest.MonkeyPatch, tiles: list[Any]
    ) -> None:
        image = an_image(50, 60, dtype="u1") > 100 if dtype == "?" else an_image(50, 60, dtype=dtype)
        in_memory, there = both(monkeypatch, image)
        assert there.tobytes() == in_memory.tobytes()
        kinds = [type(tile) for tile in tiles]
        assert set(kinds[: len(kinds) // 2]) == {np.ndarray}
        assert set(kinds[len(kinds) // 2 :]) == {torch.Tensor}

    @pytest.mark.parametrize("window", ["hamming", "triangle", "flat"])
    def test_it_does_for_every_window_and_overlap(self, window: str, monkeypatch: pytest.MonkeyPatch) -> None:
        in_memory, there = both(monkeypatch, an_image(60, 70), window=window, overlap=64, guard=16)
        assert there.tobytes() == in_memory.tobytes()

    def test_it_does_for_colours_and_planes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        in_memory, there = both(monkeypatch, an_image(2, 40, 30, 3), axes="zyxs")
        assert there.tobytes() == in_memory.tobytes()

    def test_it_does_for_an_ensemble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ensemble = Ensemble([TINY, TINY]).eval().requires_grad_(False)
        ensemble.scale = 4
        in_memory, there = both(monkeypatch, an_image(40, 40, 3), model=ensemble)
        assert there.tobytes() == in_memory.tobytes()

    def test_it_does_for_a_background_of_one_colour(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its tile is kept for the next one, and weighing is done in place."""
        image = np.full((120, 120), 200, np.uint8)
        image[:20, :20] = an_image(20, 20)
        in_memory, there = both(monkeypatch, image, guard=8, overlap=32)
        assert there.tobytes() == in_memory.tobytes()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_stays_at_its_place(
        self, bad: float, monkeypatch: pytest.MonkeyPatch, tiles: list[Any]
    ) -> None:
        image = an_image(60, 60, dtype="f4")
        image[30, 20] = bad
        in_memory, there = both(monkeypatch, image)
        assert there.tobytes() == in_memory.tobytes()
        assert isinstance(tiles[-1], torch.Tensor)

    def test_a_conversion_writes_the_same_bytes(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def convert(name: str) -> dict[str, bytes]:
            destination = tmp_path / name
            mgbp.convert(
                an_image(150, 170), destination, scale=4, model=NETWORK, tile=200, shard=256, chunk=64, device="cpu"
            )
            return {
                str(path.relative_to(destination)): path.read_bytes()
                for path in destination.rglob("c/**/*")
                if path.is_file()
            }

        in_memory = convert("memory.ome.zarr")
        let_them_stay(monkeypatch)
        there = convert("device.ome.zarr")
        assert in_memory
        assert there == in_memory

    def test_no_memory_is_held_there_once_all_is_blended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        let_them_stay(monkeypatch)
        image, counted = counted_image(
            plan_upscale(an_image(60, 60), UpscaleOptions(model=NETWORK, device="cpu", tile=96))
        )
        for times in (1, 2):
            as_dask(image, 50).compute()
            assert set(counted.runs.values()) == {times}

    def test_those_who_show_a_tile_have_it_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        let_them_stay(monkeypatch)
        plan = plan_upscale(an_image(30, 30), UpscaleOptions(model=NETWORK, device="cpu"))
        assert isinstance(plan.compute_tile((), 0, 0, 0), np.ndarray)
        assert isinstance(plan.compute_blended_tile((), 0, 0, 0), torch.Tensor)


class TestFetchAs:
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.data())
    def test_it_gives_the_bits_of_the_map_in_memory(self, data: st.DataObject) -> None:
        dtype = np.dtype(data.draw(st.sampled_from(TYPES)))
        low = data.draw(st.sampled_from([0.0, -3.0, 20.0, 0.1]))
        extent = data.draw(st.sampled_from([None, 1.0, 100.0, 4095.0, 0.7]))
        values = ValueMap.of(dtype, None if extent is None else (low, low + extent))
        unit = data.draw(
            arrays.arrays(np.float32, (1, 3, 5), elements=st.floats(-4, 4, width=32) | st.sampled_from([0.5, 1.0]))
        )
        expected = values.from_unit(unit.copy())
        found = to_host_as(values, torch.from_numpy(unit.copy()))
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()

    @pytest.mark.parametrize(("dtype", "size"), [("u1", 1), ("u2", 2), ("f2", 2), ("?", 1), ("f4", 4), ("i4", 4)])
    def test_small_types_come_back_as_what_they_are(
        self, dtype: str, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []
        fetch = Device.start_copy_to_host

        def noted(self: Device, values: torch.Tensor) -> Any:
            sizes.append(values.element_size())
            return fetch(self, values)

        monkeypatch.setattr(Device, "start_copy_to_host", noted)
        to_host_as(ValueMap.of(dtype, None), torch.rand(1, 4, 4))
        assert sizes == [size]
