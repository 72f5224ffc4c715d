"""Writing OME-Zarr: what is stored, where it lies in space, and what stands on disk at every moment."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from yaozarrs import validate_zarr_store

import napari_mgbpv2.io.writers.ome_zarr as room
from napari_mgbpv2.errors import Cancelled, DestinationError
from napari_mgbpv2.io.writers.ome_zarr import ImageLayout, OMEZarrWriter, StoredShard, free_space, halve

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
FLOATS = ["f2", "f4", "f8"]

some = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=150, deadline=None)


def a_layout(shape: tuple[int, ...] = (70, 45), axes: str = "yx", **changes: Any) -> ImageLayout:
    defaults: dict[str, Any] = {
        "dtype": np.dtype("u2"),
        "pixel_size": tuple(1.0 if axis == "c" else 0.5 for axis in axes),
        "units": tuple(None if axis in "tc" else "micrometer" for axis in axes),
        "translation": (0.0,) * len(axes),
        "name": "cells",
        "channel_names": None,
        "channel_colors": None,
        "provenance": {"model": "small", "scale": 4},
        "chunk": 16,
        "shard": 32,
        "levels": 3,
    }
    return ImageLayout(shape=shape, axes=axes, **(defaults | changes))


def an_image(layout: ImageLayout, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 100, layout.shape)
    return values.astype(layout.dtype)


def write_levels(writer: OMEZarrWriter, image: np.ndarray) -> None:
    for region in writer.shards():
        writer.write(region, image[region])
    for level in range(1, len(writer.layout.level_shapes())):
        writer.build_level(level)


def write_image(path: Path, layout: ImageLayout, image: np.ndarray | None = None, **options: Any) -> Path:
    with OMEZarrWriter(path, layout, **options) as writer:
        write_levels(writer, an_image(layout) if image is None else image)
        return writer.commit()


def opened(path: Path) -> Any:
    return zarr.open_group(path, mode="r")


def stored(path: Path, level: int = 0) -> np.ndarray:
    return np.asarray(opened(path)[str(level)])


def ome(path: Path) -> dict[str, Any]:
    return dict(opened(path).attrs["ome"])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def plain_mean(image: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 pixels that exist, pixel by pixel, in Python's own numbers."""
    height, width = image.shape[-2:]
    result = np.empty((*image.shape[:-2], -(-height // 2), -(-width // 2)), image.dtype)
    for index in np.ndindex(result.shape):
        *others, y, x = index
        rows, columns = slice(2 * y, min(2 * y + 2, height)), slice(2 * x, min(2 * x + 2, width))
        values = image[(*others, rows, columns)].ravel().tolist()
        if image.dtype.kind == "f":
            result[index] = sum(value / len(values) for value in values)
        else:
            result[index] = (2 * sum(values) + len(values)) // (2 * len(values))  # halves up
    return result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.ome.zarr"


# -- the cut ------------------------------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn, largest: int = 90) -> ImageLayout:
    axes = draw(st.sampled_from(["yx", "cyx", "zyx", "tcyx", "tczyx"]))
    colour = "c" in axes and draw(st.booleans())
    shape = tuple(
        draw(st.integers(3, 4) if axis == "c" and colour else st.integers(1, largest if axis in "yx" else 3))
        for axis in axes
    )
    chunk = draw(st.integers(5, 40))
    deepest = (max(shape[-2:]) - 1).bit_length() + 1
    return a_layout(
        shape,
        axes,
        dtype=np.dtype(draw(st.sampled_from(INTEGERS + FLOATS))),
        chunk=chunk,
        shard=chunk * draw(st.integers(1, 3)),
        colour=colour,
        levels=draw(st.none() | st.integers(1, min(3, deepest))),
    )


@many
@given(layouts())
def test_shards_tile_every_level_exactly_once(layout: ImageLayout) -> None:
    for level, shape in enumerate(layout.level_shapes()):
        covered = np.zeros(shape, int)
        for region in layout.shards(level):
            covered[region] += 1
        assert (covered == 1).all()


@many
@given(layouts())
def test_shards_are_whole_chunks(layout: ImageLayout) -> None:
    for level in range(len(layout.level_shapes())):
        for shard, chunk in zip(layout.shard_shape(level), layout.chunk_shape(level), strict=True):
            assert shard % chunk == 0


@many
@given(layouts())
def test_every_region_knows_its_shard(layout: ImageLayout) -> None:
    indices = [layout.shard_index(region) for region in layout.shards()]
    assert indices == list(np.ndindex(layout.shard_counts()))


def test_shards_of_a_huge_image_come_one_by_one() -> None:
    layout = a_layout((2**20, 2**20), shard=16, levels=1)
    assert next(layout.shards()) == (slice(0, 16), slice(0, 16))


def test_levels_halve_until_both_sides_are_at_most_256() -> None:
    assert a_layout((1025, 300), levels=None).level_shapes() == ((1025, 300), (513, 150), (257, 75), (129, 38))


def test_a_small_image_has_one_level() -> None:
    assert a_layout((256, 256), levels=None).level_shapes() == ((256, 256),)


def test_z_is_not_halved() -> None:
    assert a_layout((9, 40, 40), "zyx", levels=2).level_shapes() == ((9, 40, 40), (9, 20, 20))


def test_uncompressed_bytes_count_all_levels() -> None:
    assert a_layout((4, 6), levels=2).uncompressed_bytes == 2 * (4 * 6 + 2 * 3)


def test_uncompressed_bytes_of_a_huge_image_do_not_overflow() -> None:
    assert a_layout((2**33, 2**33), levels=1, dtype=np.dtype("f8")).uncompressed_bytes == 2**69


@pytest.mark.parametrize("levels", [0, -1, 8])
def test_levels_must_be_possible(levels: int) -> None:
    with pytest.raises(DestinationError, match="choose 1 to 7"):
        a_layout((64, 20), levels=levels)


@pytest.mark.parametrize("dtype", ["bool", "c8", "S3"])
def test_dtypes_that_are_no_image_are_refused(dtype: str) -> None:
    with pytest.raises(DestinationError, match="integers or floats"):
        a_layout(dtype=np.dtype(dtype))


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": "xy"},
        {"axes": "zyx"},
        {"shape": (0, 4)},
        {"pixel_size": (1.0,)},
        {"pixel_size": (0.0, 1.0)},
        {"translation": (0.0, float("nan"))},
        {"colour": True},
        {"channel_names": ("one",)},
        {"provenance": {"noise": float("nan")}},
    ],
)
def test_layouts_that_do_not_fit_together_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ImageLayout(**({field: getattr(a_layout(), field) for field in ImageLayout.__dataclass_fields__} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 16, "shard": 40}, "make the shard a multiple"),
        ({"format": "0.6"}, "choose one of 0.5, 0.4, zarr"),
        ({"codec": "jpeg"}, "choose one of zstd"),
        ({"format": "zarr", "levels": 3}, "has one level, not 3"),
    ],
)
def test_what_a_user_may_choose_wrongly_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DestinationError, match=message):
        a_layout(**changes)


# -- the mean -----------------------------------------------------------------------------------------------------


@many
@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7))
    )
)
def test_halved_integers_are_the_exact_mean_with_halves_up(image: np.ndarray) -> None:
    half = halve(image)
    assert half.dtype == image.dtype
    np.testing.assert_array_equal(half, plain_mean(image))


@many
@given(
    st.sampled_from(FLOATS).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
            elements={"min_value": 0, "max_value": 1000, "allow_subnormal": False},
        )
    )
)
def test_halved_floats_are_the_mean(image: np.ndarray) -> None:
    half = halve(image)
    assert half.dtype == image.dtype
    np.testing.assert_allclose(half, plain_mean(image), rtol=4 * np.finfo(image.dtype).eps)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("extreme", ["min", "max"])
def test_halving_extreme_values_keeps_them(dtype: str, extreme: str) -> None:
    limits = np.finfo(dtype) if dtype in FLOATS else np.iinfo(dtype)
    image = np.full((3, 4), getattr(limits, extreme), dtype)
    np.testing.assert_array_equal(halve(image), image[:2, :2])


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_spreads_to_its_own_pixel_only(dtype: str) -> None:
    image = np.ones((4, 4), dtype)
    image[0, 1] = np.nan
    np.testing.assert_array_equal(halve(image), np.array([[np.nan, 1], [1, 1]], dtype))


def test_halving_leaves_its_input_alone() -> None:
    image = np.arange(16, dtype="u1").reshape(4, 4)
    halve(image)
    np.testing.assert_array_equal(image, np.arange(16).reshape(4, 4))


# -- what is stored -----------------------------------------------------------------------------------------------


@some
@given(layouts(largest=60), st.integers(0, 9))
def test_level_0_is_the_image_and_each_further_level_the_mean_of_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, layout: ImageLayout, seed: int
) -> None:
    # in images with alpha, colours are weighed by it: see the tests of alpha
    assume(not (layout.colour and layout.shape[layout.axes.index("c")] in (2, 4)))
    image = an_image(layout, seed)
    path = write_image(tmp_path_factory.mktemp("stored") / "x.ome.zarr", layout, image)
    validate_zarr_store(path)
    levels = [stored(path, level) for level in range(len(layout.level_shapes()))]
    np.testing.assert_array_equal(levels[0], image)
    for finer, coarser in itertools.pairwise(levels):
        assert coarser.dtype == layout.dtype
        if layout.dtype.kind == "f":
            np.testing.assert_allclose(coarser, plain_mean(finer), rtol=4 * np.finfo(layout.dtype).eps)
        else:
            np.testing.assert_array_equal(coarser, plain_mean(finer))


def test_a_colour_image_is_stored(path: Path) -> None:
    layout = a_layout((3, 70, 45), "cyx", colour=True, dtype=np.dtype("u1"))
    write_image(path, layout)
    np.testing.assert_array_equal(stored(path), an_image(layout))


def test_data_that_is_not_contiguous_is_stored(path: Path) -> None:
    layout = a_layout((70, 45))
    image = an_image(layout)
    write_image(path, layout, np.asfortranarray(image))
    np.testing.assert_array_equal(stored(path), image)


def test_data_of_the_other_byte_order_is_stored(path: Path) -> None:
    layout = a_layout()
    image = an_image(layout)
    write_image(path, layout, image.astype(image.dtype.newbyteorder("S")))
    np.testing.assert_array_equal(stored(path), image)


def test_threads_may_write_different_shards(path: Path) -> None:
    layout = a_layout((3, 100, 100), "cyx", chunk=8, shard=16)
    image = an_image(layout)
    with OMEZarrWriter(path, layout) as writer:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda region: writer.write(region, image[region]), writer.shards()))
        for level in (1, 2):
            writer.build_level(level)
        writer.commit()
    np.testing.assert_array_equal(stored(path), image)


def test_every_shard_is_one_file_even_where_all_is_zero(path: Path) -> None:
    layout = a_layout((64, 64), levels=1)
    write_image(path, layout, np.zeros((64, 64), "u2"))
    assert sum(file.is_file() for file in (path / "0" / "c").rglob("*")) == 4


def test_arrays_name_their_dimensions(path: Path) -> None:
    write_image(path, a_layout((2, 40, 40), "zyx"))
    assert opened(path)["1"].metadata.dimension_names == ("z", "y", "x")


def test_colour_samples_share_a_chunk(path: Path) -> None:
    write_image(path, a_layout((3, 40, 40), "cyx", colour=True))
    assert opened(path)["0"].chunks == (3, 16, 16)


def test_channels_have_chunks_of_their_own(path: Path) -> None:
    write_image(path, a_layout((3, 40, 40), "cyx"))
    array = opened(path)["0"]
    assert (array.chunks, array.shards) == ((1, 16, 16), (1, 32, 32))


def test_files_hold_nothing_but_metadata_and_shards(path: Path) -> None:
    write_image(path, a_layout((40, 40), levels=1))
    found = Counter(file.name for file in path.rglob("*") if file.is_file())
    assert found == {"zarr.json": 2, "0": 2, "1": 2}


# -- where it lies ------------------------------------------------------------------------------------------------


def transformations(path: Path) -> list[tuple[list[float], list[float]]]:
    datasets = ome(path)["multiscales"][0]["datasets"]
    return [tuple(entry[entry["type"]] for entry in dataset["coordinateTransformations"]) for dataset in datasets]


def test_pixels_double_and_their_centres_move_by_half_pixels(path: Path) -> None:
    layout = a_layout((2, 64, 64), "zyx", pixel_size=(2.0, 0.5, 0.25), translation=(1.0, 10.0, -20.0))
    write_image(path, layout)
    assert transformations(path) == [
        ([2.0, 0.5, 0.25], [1.0, 10.0, -20.0]),
        ([2.0, 1.0, 0.5], [1.0, 10.25, -19.875]),
        ([2.0, 2.0, 1.0], [1.0, 10.75, -19.625]),
    ]


def test_a_ramp_lies_at_the_same_place_on_every_level(path: Path) -> None:
    layout = a_layout((64, 64), dtype=np.dtype("f8"), pixel_size=(0.5, 3.0), translation=(7.0, -2.0))
    position = layout.translation[1] + layout.pixel_size[1] * np.arange(64)
    write_image(path, layout, np.broadcast_to(position, (64, 64)))
    for level, (scale, translation) in enumerate(transformations(path)):
        row = stored(path, level)[0]
        np.testing.assert_allclose(row, translation[1] + scale[1] * np.arange(row.size))


def test_axes_carry_type_and_unit(path: Path) -> None:
    write_image(path, a_layout((1, 2, 40, 40), "tcyx", units=("second", None, "micrometer", None)))
    assert ome(path)["multiscales"][0]["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space"},
    ]


def test_the_image_carries_its_name(path: Path) -> None:
    write_image(path, a_layout())
    assert ome(path)["multiscales"][0]["name"] == "cells"


# -- how it looks -------------------------------------------------------------------------------------------------


def channels(path: Path) -> list[dict[str, Any]]:
    return list(ome(path)["omero"]["channels"])


def test_an_image_without_channels_has_no_omero_block(path: Path) -> None:
    write_image(path, a_layout())
    assert "omero" not in ome(path)


def test_channels_carry_names_and_colours(path: Path) -> None:
    names = ("DAPI", "GFP")
    write_image(path, a_layout((2, 40, 40), "cyx", channel_names=names, channel_colors=("0000ff", "00FF00")))
    assert [(one["label"], one["color"]) for one in channels(path)] == [("DAPI", "0000FF"), ("GFP", "00FF00")]


def test_channels_without_colours_differ(path: Path) -> None:
    write_image(path, a_layout((4, 20, 20), "cyx"))
    assert len({one["color"] for one in channels(path)}) == 4


def test_one_channel_is_white(path: Path) -> None:
    write_image(path, a_layout((1, 20, 20), "cyx"))
    assert channels(path)[0]["color"] == "FFFFFF"


def test_colour_samples_are_red_green_blue_and_alpha_is_off(path: Path) -> None:
    write_image(path, a_layout((4, 20, 20), "cyx", colour=True))
    assert [one["color"] for one in channels(path)[:3]] == ["FF0000", "00FF00", "0000FF"]
    assert [one["active"] for one in channels(path)] == [True, True, True, False]


def test_the_window_of_a_colour_image_is_the_whole_range(path: Path) -> None:
    write_image(path, a_layout((3, 20, 20), "cyx", colour=True, dtype=np.dtype("u1")))
    assert [one["window"] for one in channels(path)] == [{"start": 0, "end": 255, "min": 0, "max": 255}] * 3


def test_the_window_of_each_channel_starts_and_ends_with_its_values(path: Path) -> None:
    image = np.zeros((2, 40, 40), "u2")
    image[0, 0, 0], image[0, 39, 39], image[1] = 7, 900, 100
    image[1, 5, 5] = 300
    write_image(path, a_layout(image.shape, "cyx"), image)
    windows = [one["window"] for one in channels(path)]
    assert windows == [
        {"start": 0, "end": 900, "min": 0, "max": 65535},
        {"start": 100, "end": 300, "min": 0, "max": 65535},
    ]


def test_the_window_of_floats_is_0_to_1_and_what_lies_beyond(path: Path) -> None:
    image = np.full((1, 20, 20), 0.5, "f4")
    image[0, 0, :3] = 0.25, 8.0, np.nan
    write_image(path, a_layout(image.shape, "cyx", dtype=image.dtype), image)
    assert channels(path)[0]["window"] == {"start": 0.25, "end": 8.0, "min": 0.0, "max": 8.0}


def test_the_window_of_a_flat_channel_is_the_whole_range(path: Path) -> None:
    write_image(path, a_layout((1, 20, 20), "cyx"), np.full((1, 20, 20), 5, "u2"))
    assert channels(path)[0]["window"] == {"start": 0, "end": 65535, "min": 0, "max": 65535}


def test_provenance_stands_beside_the_metadata(path: Path) -> None:
    write_image(path, a_layout(provenance={"model": "small", "value_range": [0, 255]}))
    attributes = dict(opened(path).attrs)
    assert attributes["napari_mgbpv2"] == {"model": "small", "value_range": [0, 255]}
    assert attributes["ome"]["version"] == "0.5"


# -- what a caller may not do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "region",
    [
        (slice(0, 16), slice(0, 32)),
        (slice(16, 48), slice(0, 32)),
        (slice(0, 64), slice(0, 32)),
        (slice(64, 96), slice(0, 32)),
        (slice(0, 32, 2), slice(0, 32)),
        (slice(0, 32),),
        (slice(None), slice(None)),
        (slice(96, 128), slice(0, 32)),
        (slice(-32, 0), slice(0, 32)),
    ],
)
def test_a_region_that_is_not_one_whole_shard_is_refused(path: Path, region: tuple[slice, ...]) -> None:
    with OMEZarrWriter(path, a_layout((70, 45))) as writer, pytest.raises(ValueError, match="not one whole shard"):
        writer.write(region, np.zeros((32, 32), "u2"))


@pytest.mark.parametrize("data", [np.zeros((32, 31), "u2"), np.zeros((32, 32), "u1"), np.zeros((1, 32, 32), "u2")])
def test_data_that_does_not_fit_its_shard_is_refused(path: Path, data: np.ndarray) -> None:
    with OMEZarrWriter(path, a_layout()) as writer, pytest.raises(ValueError, match="the shard is"):
        writer.write((slice(0, 32), slice(0, 32)), data)


def test_a_level_is_not_built_from_an_incomplete_one(path: Path) -> None:
    with OMEZarrWriter(path, a_layout()) as writer, pytest.raises(ValueError, match="level 0 is not complete"):
        writer.build_level(1)


@pytest.mark.parametrize("level", [0, 3, -1])
def test_only_levels_of_the_layout_are_built(path: Path, level: int) -> None:
    with OMEZarrWriter(path, a_layout()) as writer, pytest.raises(ValueError, match="not one of 1 to 2"):
        writer.build_level(level)


def test_nothing_is_made_from_what_has_gone(path: Path) -> None:
    """Zarr reads what is not there as black."""
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            writer.write(region, an_image(layout)[region])
        (path.with_name(f"{path.name}.partial") / "0" / "c" / "1" / "1").unlink()
        with pytest.raises(DestinationError, match=r"1 file of .*partial went missing while it was written"):
            writer.downsample_shard((0, 0), 1)


def test_an_incomplete_image_is_not_committed(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            writer.write(region, an_image(layout)[region])
        with pytest.raises(ValueError, match="level 1 is not complete: 0 of"):
            writer.commit()
    assert names(path.parent) == []


def test_a_committed_writer_is_closed(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        write_levels(writer, an_image(layout))
        writer.commit()
        with pytest.raises(ValueError, match="closed"):
            write_levels(writer, an_image(layout))
    validate_zarr_store(path)


def test_building_tells_of_each_shard(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            writer.write(region, an_image(layout)[region])
        told: list[StoredShard] = []
        writer.build_level(1, on_shard=told.append)
        assert [layout.shard_region(shard.index, 1) for shard in told] == list(writer.shards(1))


def test_building_stops_on_request(path: Path) -> None:
    layout = a_layout((100, 100))
    told: list[StoredShard] = []
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            writer.write(region, an_image(layout)[region])
        with pytest.raises(Cancelled):
            writer.build_level(1, cancelled=lambda: len(told) == 2, on_shard=told.append)
    assert len(told) == 2
    assert names(path.parent) == []


# -- nothing unfinished is seen or left ---------------------------------------------------------------------------


def test_the_destination_is_not_there_before_the_commit(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        write_levels(writer, an_image(layout))
        assert not path.exists()
        assert writer.commit() == path
    assert path.exists()


def test_the_unfinished_store_has_no_ome_metadata(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        write_levels(writer, an_image(layout))
        attributes = zarr.open_group(path.with_name(path.name + ".partial"), mode="r").attrs
        assert "ome" not in attributes


def test_a_commit_leaves_the_image_alone_in_its_folder(path: Path) -> None:
    write_image(path, a_layout())
    assert names(path.parent) == [path.name]


def test_leaving_without_a_commit_leaves_nothing(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        write_levels(writer, an_image(layout))
    assert names(path.parent) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_leaving_by_an_exception_leaves_nothing(path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), OMEZarrWriter(path, a_layout()):
        raise error
    assert names(path.parent) == []


def test_closing_waits_for_the_writes_of_other_threads(path: Path) -> None:
    layout = a_layout((400, 400), levels=1)
    image = an_image(layout)
    writer = OMEZarrWriter(path, layout)
    started, closed = threading.Event(), threading.Event()

    def write_on() -> None:
        for region in writer.shards():
            try:
                writer.write(region, image[region])
            except ValueError:
                closed.set()
                return
            started.set()

    thread = threading.Thread(target=write_on)
    thread.start()
    started.wait()
    writer.close()
    thread.join()
    assert closed.is_set()
    assert names(path.parent) == []


def test_a_missing_parent_is_created(tmp_path: Path) -> None:
    assert write_image(tmp_path / "new" / "folder" / "x.ome.zarr", a_layout()).is_dir()


def test_a_relative_destination_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_image(Path("x.ome.zarr"), a_layout()) == tmp_path / "x.ome.zarr"


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(DestinationError, match="file is a file, not a folder; choose another place"):
        OMEZarrWriter(tmp_path / "file" / "x.ome.zarr", a_layout())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_an_unwritable_parent_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(DestinationError, match="cannot be written"):
            OMEZarrWriter(tmp_path / "x.ome.zarr", a_layout())
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("ending", [".partial", ".replaced", ".lock"])
def test_names_of_unfinished_work_are_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DestinationError, match="unfinished"):
        OMEZarrWriter(tmp_path / f"x{ending}", a_layout())


def fail_with(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "cannot be written")])
def test_a_full_or_failing_disk_is_told_and_nothing_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    layout = a_layout()
    writer = OMEZarrWriter(path, layout)
    monkeypatch.setattr(os, "fsync", fail_with(number))
    region = next(writer.shards())
    with pytest.raises(DestinationError, match=words):
        writer.write(region, an_image(layout)[region])
    assert names(path.parent) == []


def test_other_threads_are_told_of_a_full_disk_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = a_layout()
    writer = OMEZarrWriter(path, layout)
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    for region in writer.shards():
        with pytest.raises(DestinationError, match="the disk is full"):
            writer.write(region, an_image(layout)[region])


def test_a_disk_that_fills_up_at_the_start_is_told_and_nothing_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr.storage._local, "_put", fail_with(errno.ENOSPC))
    with pytest.raises(DestinationError, match="the disk is full"):
        OMEZarrWriter(path, a_layout())
    assert names(path.parent) == []


def test_all_is_brought_down_to_the_disk_before_it_appears(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.add(os.fstat(descriptor).st_ino))
    write_image(path, a_layout())
    assert {file.stat().st_ino for file in path.rglob("*") if file.is_file()} <= flushed


def test_free_space_of_a_path_to_come_is_that_of_its_disk(tmp_path: Path) -> None:
    assert free_space(tmp_path / "not" / "yet") > 0


# -- what is there already ----------------------------------------------------------------------------------------


def test_an_existing_destination_is_not_overwritten_unasked(path: Path) -> None:
    write_image(path, a_layout())
    with pytest.raises(DestinationError, match="exists already"):
        OMEZarrWriter(path, a_layout())
    np.testing.assert_array_equal(stored(path), an_image(a_layout()))


def test_overwriting_replaces_the_image(path: Path) -> None:
    write_image(path, a_layout())
    smaller = a_layout((20, 20), levels=1)
    write_image(path, smaller, overwrite=True)
    np.testing.assert_array_equal(stored(path), an_image(smaller))
    assert names(path.parent) == [path.name]
    assert "1" not in names(path)


def test_the_old_image_stays_until_the_new_one_is_complete(path: Path) -> None:
    write_image(path, a_layout())
    with OMEZarrWriter(path, a_layout((20, 20)), overwrite=True) as writer:
        write_levels(writer, np.zeros((20, 20), "u2"))
        assert stored(path).shape == (70, 45)


def test_the_old_image_stays_when_the_new_one_fails(path: Path) -> None:
    write_image(path, a_layout())
    with pytest.raises(RuntimeError), OMEZarrWriter(path, a_layout((20, 20)), overwrite=True):
        raise RuntimeError
    np.testing.assert_array_equal(stored(path), an_image(a_layout()))
    assert names(path.parent) == [path.name]


def test_the_old_image_is_put_back_when_the_new_one_cannot_take_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(path, a_layout())
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".partial") and Path(target) == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    with OMEZarrWriter(path, a_layout((20, 20)), overwrite=True) as writer:
        write_levels(writer, np.zeros((20, 20), "u2"))
        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(DestinationError, match="Permission denied"):
            writer.commit()
    np.testing.assert_array_equal(stored(path), an_image(a_layout()))
    assert names(path.parent) == [path.name]


def test_an_image_that_appears_meanwhile_is_kept(path: Path) -> None:
    with OMEZarrWriter(path, a_layout()) as writer:
        write_levels(writer, an_image(a_layout()))
        path.mkdir()
        with pytest.raises(DestinationError, match="exists already"):
            writer.commit()
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_arrays_may_be_overwritten(path: Path, zarr_format: Any) -> None:
    zarr.create_array(path, data=np.ones((4, 4)), chunks=(2, 2), zarr_format=zarr_format)
    write_image(path, a_layout(), overwrite=True)
    validate_zarr_store(path)


def test_a_plain_directory_is_never_overwritten(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(DestinationError, match="not a Zarr store"):
        OMEZarrWriter(path, a_layout(), overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"


def test_a_file_is_never_overwritten(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(DestinationError, match="not a directory"):
        OMEZarrWriter(path, a_layout(), overwrite=True)
    assert path.read_text() == "mine"


def test_a_zarr_array_with_chunks_beside_its_metadata_may_be_overwritten(path: Path) -> None:
    encoding = {"name": "default", "separator": "."}
    zarr.create_array(path, data=np.ones((4, 4)), chunks=(2, 2), chunk_key_encoding=encoding)
    assert "c.0.0" in names(path)
    write_image(path, a_layout(), overwrite=True)
    validate_zarr_store(path)


@pytest.mark.parametrize("stranger", ["notes.txt", "photographs/one.jpg", "2024/one.jpg", "c/one.jpg", "zarr.pdf"])
def test_a_zarr_store_that_holds_other_things_is_never_overwritten(path: Path, stranger: str) -> None:
    write_image(path, a_layout())
    (path / stranger).parent.mkdir(exist_ok=True)
    (path / stranger).write_text("mine")
    with pytest.raises(DestinationError, match="not part of a Zarr store"):
        OMEZarrWriter(path, a_layout(), overwrite=True)
    assert (path / stranger).read_text() == "mine"


def test_a_refusal_leaves_no_lock(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DestinationError):
        OMEZarrWriter(path, a_layout())
    assert names(path.parent) == [path.name]


# -- two at once, and the killed ----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_while_the_first_works(path: Path) -> None:
    layout = a_layout()
    with OMEZarrWriter(path, layout) as writer:
        with pytest.raises(DestinationError, match="being written"):
            OMEZarrWriter(path, layout)
        write_levels(writer, an_image(layout))
        writer.commit()
    np.testing.assert_array_equal(stored(path), an_image(layout))


@pytest.mark.parametrize("content", [b"", b'{"pid": 1, "host": "elsewhere", "token": "0"}'])
def test_a_lock_that_a_killed_process_has_left_is_in_nobodys_way(path: Path, content: bytes) -> None:
    """Whatever it says: the process may have the number of another one now, or its container the name of another."""
    path.with_name(path.name + ".lock").write_bytes(content)
    write_image(path, a_layout())
    assert names(path.parent) == [path.name]


def test_a_foreign_thing_under_the_unfinished_name_is_kept(path: Path) -> None:
    foreign = path.with_name(path.name + ".partial")
    zarr.create_group(foreign, attributes={"mine": True})
    with pytest.raises(DestinationError, match="is not unfinished output of this program"):
        OMEZarrWriter(path, a_layout())
    assert dict(zarr.open_group(foreign, mode="r").attrs) == {"mine": True}
    assert names(path.parent) == [foreign.name]


@pytest.mark.parametrize("content", [[], ["zarr." + 32 * "0" + ".partial"]])
def test_what_a_run_killed_at_its_very_start_leaves_is_removed(path: Path, content: list[str]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.mkdir()
    for name in content:
        (partial / name).touch()
    write_image(path, a_layout())
    assert names(path.parent) == [path.name]


def test_an_old_image_set_aside_by_a_killed_run_comes_back(path: Path) -> None:
    write_image(path, a_layout())
    path.rename(path.with_name(path.name + ".replaced"))
    with pytest.raises(DestinationError, match="exists already"):
        OMEZarrWriter(path, a_layout())
    np.testing.assert_array_equal(stored(path), an_image(a_layout()))
    assert names(path.parent) == [path.name]


def test_an_old_image_that_a_killed_run_had_replaced_goes(path: Path) -> None:
    write_image(path, a_layout())
    write_image(path.with_name("old"), a_layout((20, 20))).rename(path.with_name(path.name + ".replaced"))
    with pytest.raises(DestinationError, match="exists already"):
        OMEZarrWriter(path, a_layout())
    assert stored(path).shape == (70, 45)
    assert names(path.parent) == [path.name]


KILLED = """
import sys, time
import numpy as np
from napari_mgbpv2.io.writers.ome_zarr import StoredShard, ImageLayout, OMEZarrWriter

layout = ImageLayout((70, 45), np.dtype("u2"), "yx", (1, 1), (None, None), (0, 0), "x", None, None, {}, 16, 32)
with OMEZarrWriter(sys.argv[1], layout) as writer:
    writer.write(next(writer.shards()), np.ones((32, 32), "u2"))
    print("written", flush=True)
    time.sleep(60)
"""


def run_until_written(path: Path) -> subprocess.Popen[bytes]:
    source = str(Path(room.__file__).parents[4])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"written"
    return process


def test_a_killed_run_leaves_no_destination_and_the_next_one_succeeds(path: Path) -> None:
    process = run_until_written(path)
    process.kill()
    process.communicate()
    assert not path.exists()
    write_image(path, a_layout())
    np.testing.assert_array_equal(stored(path), an_image(a_layout()))
    assert names(path.parent) == [path.name]


def test_another_process_that_lives_is_respected(path: Path) -> None:
    process = run_until_written(path)
    try:
        with pytest.raises(DestinationError, match="being written"):
            OMEZarrWriter(path, a_layout())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="no Ctrl-C to another process there")
def test_an_interrupted_process_leaves_nothing(path: Path) -> None:
    process = run_until_written(path)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert names(path.parent) == []
