"""What `convert` promises: the pixels of `upscale`, in place, each tile once, bounded, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import Array, CountedTiles, a_network, an_image
from napari_mgbpv2.conversion import ConversionJob, prepare, run
from napari_mgbpv2.conversion.oom import smaller_tile, with_tile
from napari_mgbpv2.conversion.shards import ShardWork
from napari_mgbpv2.errors import Cancelled, DestinationError, SourceError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.upscaling.options import UpscaleOptions

NETWORK = a_network()


def stored(path: Path, level: int = 0) -> Array:
    return np.asarray(zarr.open_group(path, mode="r")[str(level)])


def multiscale(path: Path) -> dict[str, Any]:
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    multiscale: dict[str, Any] = attributes["ome"]["multiscales"][0]
    return multiscale


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "result.ome.zarr"


class TestPixels:
    """The result is that of `upscale`."""

    def test_a_png_becomes_an_ome_zarr(self, tmp_path: Path, destination: Path) -> None:
        image = an_image(50, 60, 3)
        Image.fromarray(image).save(tmp_path / "a.png")
        assert mgbp.convert(tmp_path / "a.png", destination, model=NETWORK) == destination
        expected = mgbp.upscale(image, model=NETWORK).compute()
        np.testing.assert_array_equal(stored(destination).transpose(1, 2, 0), expected)

    def test_an_image_of_many_shards_and_tiles_is_whole(self, tmp_path: Path, destination: Path) -> None:
        image = an_image(530, 1040)
        np.save(tmp_path / "a.npy", image)
        mgbp.convert(tmp_path / "a.npy", destination, model=NETWORK, tile=400)
        np.testing.assert_array_equal(stored(destination), mgbp.upscale(image, model=NETWORK, tile=400).compute())

    def test_every_level_halves_the_one_before(self, tmp_path: Path, destination: Path) -> None:
        np.save(tmp_path / "a.npy", an_image(200, 150))
        mgbp.convert(tmp_path / "a.npy", destination, model=NETWORK)
        shapes = [stored(destination, level).shape for level in range(len(multiscale(destination)["datasets"]))]
        assert shapes == [(800, 600), (400, 300), (200, 150)]

    @pytest.mark.parametrize("suffix", ["zarr", "ome.zarr", "tif", "npy"])
    def test_formats_give_the_same(self, tmp_path: Path, destination: Path, suffix: str) -> None:
        image = an_image(3, 40, 45, dtype="u2")
        path = tmp_path / f"a.{suffix}"
        if suffix == "zarr":
            zarr.create_array(path, data=image, dimension_names=["c", "y", "x"])
        elif suffix == "tif":
            tifffile.imwrite(path, image, imagej=True, metadata={"axes": "CYX"})
        elif suffix == "npy":
            np.save(path, image)
        else:
            mgbp.convert(image, path, model=a_network(scale=1), axes="cyx", guard=0)
            image = stored(path)
        mgbp.convert(path, destination, model=NETWORK, axes="cyx")
        np.testing.assert_array_equal(stored(destination), mgbp.upscale(image, model=NETWORK, axes="cyx").compute())

    def test_axes_are_put_into_the_order_of_ome_zarr(self, tmp_path: Path, destination: Path) -> None:
        image = an_image(2, 3, 4, 10, 12, dtype="u2")
        tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "TZCYX"})
        mgbp.convert(tmp_path / "a.tif", destination, model=NETWORK)
        assert [axis["name"] for axis in multiscale(destination)["axes"]] == list("tczyx")
        expected = mgbp.upscale(image, model=NETWORK, axes="tzcyx").compute()
        np.testing.assert_array_equal(stored(destination), expected.transpose(0, 2, 1, 3, 4))

    def test_an_array_may_be_converted(self, destination: Path) -> None:
        image = an_image(20, 20)
        mgbp.convert(image, destination, model=NETWORK)
        np.testing.assert_array_equal(stored(destination), mgbp.upscale(image, model=NETWORK).compute())

    def test_a_lower_level_of_a_pyramid_may_be_the_source(self, tmp_path: Path, destination: Path) -> None:
        mgbp.convert(an_image(100, 90), tmp_path / "a.ome.zarr", model=NETWORK)
        mgbp.convert(tmp_path / "a.ome.zarr", destination, model=NETWORK, level=1)
        expected = mgbp.upscale(stored(tmp_path / "a.ome.zarr", 1), model=NETWORK).compute()
        np.testing.assert_array_equal(stored(destination), expected)


class TestOnceAndBounded:
    def test_each_tile_runs_once(self, tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over several rows and columns of shards."""
        tiles = CountedTiles()
        original = ShardWork.image

        def counted(self: ShardWork, wrap_compute: Any, is_stored: Any) -> Any:
            return original(self, lambda compute: tiles(wrap_compute(compute)), is_stored)

        monkeypatch.setattr(ShardWork, "image", counted)
        np.save(tmp_path / "a.npy", an_image(1100, 1100))
        prepared = prepare(ConversionJob(tmp_path / "a.npy", destination, UpscaleOptions(model=NETWORK, tile=600)))
        run(prepared)
        assert set(tiles.runs.values()) == {1}
        assert len(tiles.runs) == prepared.plan.layout.tiles
        assert len(list(prepared.layout.shards())) == 25

    def test_the_memory_said_does_not_grow_with_the_image(self, destination: Path) -> None:
        class Huge:
            dtype = np.dtype("u1")

            def __init__(self, side: int) -> None:
                self.shape = (side, side, 3)

        said = [
            prepare(ConversionJob(Huge(side), destination, UpscaleOptions(model="x4"))).memory_bytes
            for side in (10**4, 10**5, 10**6)
        ]
        assert said[2] < 1.2 * said[1] < 3 * 10**9

    def test_preparing_reads_and_writes_nothing(self, tmp_path: Path, destination: Path) -> None:
        from examples import CountingSource

        source = CountingSource(an_image(100, 100))
        prepare(ConversionJob(source, destination, UpscaleOptions(model=NETWORK)))
        assert source.windows == []
        assert list(tmp_path.iterdir()) == []


class TestInPlace:
    """Promise 9."""

    def test_the_result_covers_exactly_the_area_of_the_source(self, tmp_path: Path, destination: Path) -> None:
        path = tmp_path / "a.ome.tif"
        metadata = {
            "axes": "CYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["DAPI", "GFP"]},
        }
        tifffile.imwrite(path, an_image(2, 40, 50, dtype="u2"), metadata=metadata)
        mgbp.convert(path, destination, model=NETWORK)
        before, after = open_source(path), open_source(destination)
        for axis, size in (("y", 40), ("x", 50)):
            pixel = before.pixel_size[axis]
            assert after.pixel_size[axis] == pixel / 4
            left = after.translation[axis] - after.pixel_size[axis] / 2
            assert left == pytest.approx(before.translation[axis] - pixel / 2, abs=1e-12)
            right = left + 4 * size * after.pixel_size[axis]
            assert right == pytest.approx(before.translation[axis] - pixel / 2 + size * pixel, abs=1e-12)
            assert after.units[axis] == "micrometer"
        assert after.channel_names == ("DAPI", "GFP")

    def test_a_ramp_lies_where_it_lay(self, destination: Path) -> None:
        """Physical position predicts the value in the source and in the result alike."""
        ramp = np.tile(np.linspace(0.2, 0.8, 64, dtype="f4"), (64, 1))
        mgbp.convert(ramp, destination, model="x4")
        result = open_source(destination)
        positions = result.translation["x"] + result.pixel_size["x"] * np.arange(256)
        expected = 0.2 + 0.6 * positions / 63
        np.testing.assert_allclose(stored(destination)[100, 40:-40], expected[40:-40], atol=3e-3)

    def test_z_keeps_its_pixel_size(self, tmp_path: Path, destination: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", an_image(3, 20, 20), imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}
        )
        mgbp.convert(tmp_path / "a.tif", destination, model=NETWORK)
        assert open_source(destination).pixel_size["z"] == 2.0

    def test_the_result_says_how_it_came_to_be(self, tmp_path: Path, destination: Path) -> None:
        np.save(tmp_path / "a.npy", an_image(20, 20, dtype="u2"))
        mgbp.convert(tmp_path / "a.npy", destination, scale=4, value_range=(100, 4000))
        attributes = json.loads((destination / "zarr.json").read_text())["attributes"]["napari_mgbpv2"]
        assert attributes["source"].endswith("a.npy")
        assert attributes["model"] == "microscopy-x4"
        assert len(attributes["model_sha256"]) == 64
        assert attributes["value_range"] == [100, 4000]
        assert {"scale", "tile", "guard", "window", "noise", "seed", "precision", "versions"} <= set(attributes)


class TestProgress:
    def test_it_rises_step_by_step_to_the_end(self, destination: Path) -> None:
        told: list[tuple[int, int]] = []
        mgbp.convert(an_image(100, 100), destination, model=NETWORK, tile=200, progress=lambda *at: told.append(at))
        totals = {total for _, total in told}
        assert len(totals) == 1
        assert [done for done, _ in told] == list(range(1, totals.pop() + 1))

    def test_cancelling_stops_before_the_next_tile_and_leaves_nothing(self, tmp_path: Path, destination: Path) -> None:
        told: list[int] = []
        with pytest.raises(Cancelled, match="stopped before the image was complete"):
            mgbp.convert(
                an_image(100, 100),
                destination,
                model=NETWORK,
                tile=200,
                progress=lambda done, total: told.append(done),
                cancelled=lambda: len(told) >= 3,
            )
        assert told == [1, 2, 3]
        assert list(tmp_path.iterdir()) == []

    def test_cancelling_works_between_the_levels_too_and_keeps_what_is_done(
        self, tmp_path: Path, destination: Path
    ) -> None:
        told: list[tuple[int, int]] = []
        with pytest.raises(Cancelled, match="what is done is kept"):
            mgbp.convert(
                an_image(300, 300),
                destination,
                model=NETWORK,
                progress=lambda *at: told.append(at),
                cancelled=lambda: bool(told) and told[-1][0] == told[-1][1] - 1,
            )
        assert [path.name for path in tmp_path.iterdir()] == [f"{destination.name}.partial"]


class TestNothingLost:
    def test_an_existing_destination_is_kept(self, destination: Path) -> None:
        mgbp.convert(an_image(20, 20), destination, model=NETWORK)
        before = stored(destination)
        with pytest.raises(DestinationError, match="exists already"):
            mgbp.convert(an_image(20, 20, seed=1), destination, model=NETWORK)
        np.testing.assert_array_equal(stored(destination), before)

    def test_overwriting_must_be_asked_for(self, destination: Path) -> None:
        mgbp.convert(an_image(20, 20), destination, model=NETWORK)
        mgbp.convert(an_image(30, 20), destination, model=NETWORK, overwrite=True)
        assert stored(destination).shape == (120, 80)

    def test_a_source_that_fails_half_way_leaves_nothing(self, tmp_path: Path, destination: Path) -> None:
        class Failing:
            shape, dtype = (100, 100), np.dtype("u1")

            def __getitem__(self, window: tuple[slice, ...]) -> Array:
                if window[0].stop > 60:
                    raise SourceError("the disk has gone")
                return np.zeros([part.stop - part.start for part in window], "u1")

        with pytest.raises(SourceError, match="the disk has gone"):
            mgbp.convert(Failing(), destination, model=NETWORK, tile=200)
        assert list(tmp_path.iterdir()) == []


def test_a_model_file_of_the_users_own_is_used(tmp_path: Path, destination: Path) -> None:
    model = save_model(a_network(seed=3), tmp_path / "mine.safetensors", scale=4)
    image = an_image(20, 20)
    mgbp.convert(image, destination, model=model)
    np.testing.assert_array_equal(stored(destination), mgbp.upscale(image, model=a_network(seed=3)).compute())


@pytest.mark.parametrize("shape", [(400, 400), (300, 900), (900, 300), (1300, 1300)], ids=str)
def test_where_memory_runs_out_tiles_of_any_shape_become_about_four_times_smaller(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    """By default tiles are wide, as wide as the image if that costs least."""

    def pixels(grid: Any) -> int:
        return int(grid.rows.tile * grid.columns.tile)

    prepared = prepare(ConversionJob(an_image(*shape), tmp_path / "a.ome.zarr", UpscaleOptions(model=a_network())))
    tile = smaller_tile(prepared.plan)
    assert tile is not None
    smaller = with_tile(prepared, tile)
    assert pixels(smaller.plan.layout.grid) < 0.3 * pixels(prepared.plan.layout.grid)
