"""The promises as properties, for images, tiles, chunks, places and stops that nobody chose.

The same network (1) is tests/test_checkpoints.py and test_network.py, one answer (4) test_upscaling.py, bounded memory
(6) test_walking.py, and safe files (11) test_checkpoints.py and test_fuzz.py.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import napari_mgbpv2 as mgbp
from examples import TINY, CountingSource, a_network, an_image, counted_image, untiled
from napari_mgbpv2.conversion import ConversionJob, Report, prepare, run
from napari_mgbpv2.errors import Cancelled, TilingError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.upscaling import plan_upscale
from napari_mgbpv2.upscaling.lazy import as_dask
from napari_mgbpv2.upscaling.options import UpscaleOptions

NETWORK = a_network()
SCALE = 4
REACH = TINY.reach

sides = st.integers(1, 100)
tiles = st.integers(2 * REACH + 16, 240)
few = settings(max_examples=25, deadline=None)


def parts(size: int) -> st.SearchStrategy[slice]:
    """A part of an axis that is not empty."""
    ends = st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True)
    return ends.map(lambda at: slice(min(at), max(at)))


@few
@given(height=sides, width=sides, tile=tiles, data=st.data())
def test_lazy_a_window_reads_and_runs_what_lies_near_it(
    height: int, width: int, tile: int, data: st.DataObject
) -> None:
    """2: the pixels and tiles within a tile's length and the reach of the bicubic kernel, and no others."""
    source = CountingSource(an_image(height, width))
    image, counter = counted_image(plan_upscale(source, UpscaleOptions(model=NETWORK, tile=tile)))
    assert source.windows == []
    window = [data.draw(parts(SCALE * size)) for size in (height, width)]
    image[tuple(window)]
    longest = NETWORK.config.natural_up(tile)
    for read in source.windows:
        for part, asked in zip(read, window, strict=True):
            assert part.start >= (asked.start - longest) // SCALE - 3
            assert part.stop <= -(-(asked.stop + longest) // SCALE) + 3
    assert set(counter.runs.values()) == {1}
    everything, of_all = counted_image(plan_upscale(source, UpscaleOptions(model=NETWORK, tile=tile)))
    everything[...]
    assert counter.runs.keys() <= of_all.runs.keys()


@few
@given(height=sides, width=sides, tile=tiles, chunk=st.integers(20, 400), workers=st.integers(1, 4))
def test_once_whatever_the_chunks_each_tile_is_run_once(
    height: int, width: int, tile: int, chunk: int, workers: int
) -> None:
    """3."""
    plan = plan_upscale(an_image(height, width), UpscaleOptions(model=NETWORK, tile=tile))
    image, counter = counted_image(plan)
    with dask.config.set(scheduler="threads", num_workers=workers):
        as_dask(image, chunk=chunk).compute()
    assert set(counter.runs.values()) == {1}
    assert len(counter.runs) == plan.layout.tiles


@few
@given(
    height=sides,
    width=sides,
    tile=tiles,
    overlap=st.none() | st.integers(2 * REACH, 2 * REACH + 60),
    window=st.sampled_from(["hamming", "triangle", "flat"]),
    noise=st.sampled_from([0.0, 0.5]),
)
def test_no_seams_tiled_is_untiled(
    height: int, width: int, tile: int, overlap: int | None, window: str, noise: float
) -> None:
    """5: beyond the network's reach nothing of a tile's border is left."""
    image = an_image(height, width, dtype="f4")
    options: dict[str, Any] = {"model": NETWORK, "noise": noise}
    try:
        tiled = np.asarray(mgbp.upscale(image, tile=tile, overlap=overlap, window=window, **options))
    except TilingError:  # the overlap leaves nothing of the tile
        assume(False)
    whole = untiled(image, **options)
    assert np.abs(tiled - whole).max() <= 1e-5 * max(1.0, np.abs(whole).max())


@few
@given(
    dtype=st.sampled_from(["u1", "u2", "i2", "u4", "f4", "f8"]),
    low=st.floats(0, 0.7),
    width=st.floats(0.1, 0.3),
    height=st.integers(4, 30),
)
def test_values_a_change_of_units_changes_nothing_else(dtype: str, low: float, width: float, height: int) -> None:
    """7: the same picture in another part of any type's range comes out in that part, as exactly as the type says."""
    kind = np.dtype(dtype)
    largest = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
    at, size = (
        np.round(low * largest, 3 if kind.kind == "f" else 0),
        np.round(width * largest, 3 if kind.kind == "f" else 0),
    )
    picture = np.round(an_image(height, 20, dtype="f8"), 1)
    stored = (at + picture * size).astype(kind)
    result = mgbp.upscale(stored, model=NETWORK, value_range=(at, at + size))
    assert result.dtype == kind
    plain = np.asarray(mgbp.upscale(((stored - at) / size).astype("f4"), model=NETWORK, value_range=(0, 1)))
    expected = at + plain.astype("f8") * size
    if kind.kind != "f":
        expected = np.clip(expected, np.iinfo(kind).min, np.iinfo(kind).max)
    step = 1e-4 * size if kind.kind == "f" else 1 + 1e-4 * size
    np.testing.assert_allclose(result.compute().astype("f8"), expected, atol=step, rtol=0)


@few
@given(data=st.data(), carried=st.lists(st.sampled_from("tzc"), max_size=2, unique=True), height=st.integers(1, 20))
def test_axes_any_order_gives_the_same_planes(data: st.DataObject, carried: list[str], height: int) -> None:
    """8."""
    sizes = {axis: data.draw(st.integers(1, 3), label=axis) for axis in carried} | {"y": height, "x": 13}
    axes = "".join(data.draw(st.permutations(sorted(sizes))))
    image = an_image(*(sizes[axis] for axis in axes), dtype="u2")
    result = np.asarray(mgbp.upscale(image, model=NETWORK, axes=axes))
    assert result.shape == tuple(
        size * (SCALE if axis in "yx" else 1) for axis, size in zip(axes, image.shape, strict=True)
    )
    order = [axes.index(axis) for axis in (*carried, "y", "x")]
    planes, upscaled = image.transpose(order), result.transpose(order)
    for index in np.ndindex(planes.shape[:-2]):
        alone = np.asarray(mgbp.upscale(planes[index], model=NETWORK, axes="yx"))
        np.testing.assert_array_equal(upscaled[index], alone)


@few
@given(
    scale=st.sampled_from([2, 3, 4]),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    pixel=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)),
)
def test_in_place_the_edges_of_the_image_stay_where_they_were(
    scale: int, size: tuple[int, int], pixel: tuple[float, float]
) -> None:
    """9: on every level, and after being upscaled twice."""
    network = a_network(scale=scale)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        np.save(path, an_image(*size))
        told = {"pixel_size": {"y": pixel[0], "x": pixel[1]}, "unit": "um"}
        once = mgbp.convert(path, Path(folder) / "once.ome.zarr", model=network, levels=2, **told)
        twice = mgbp.convert(once, Path(folder) / "twice.ome.zarr", model=network)
        for result, level in ((once, 0), (once, 1), (twice, 0)):
            found = open_source(result, level=level)
            for axis, length, step in zip("yx", size, pixel, strict=True):
                left = found.translation[axis] - found.pixel_size[axis] / 2
                assert left == pytest.approx(-step / 2, rel=1e-9)
                if level == 0:
                    right = left + found.data.shape["yx".index(axis)] * found.pixel_size[axis]
                    assert right == pytest.approx((length - 0.5) * step, rel=1e-9)


def convert(destination: Path, *, stop: int | None = None, resume: bool = False) -> None:
    """Convert a small image of several shards, up to a number of them."""
    told: list[Report] = []
    form: dict[str, Any] = {"chunk": 32, "shard": 64, "levels": 2, "options": UpscaleOptions(model=NETWORK, tile=150)}
    prepared = prepare(ConversionJob(an_image(60, 50, dtype="u2"), destination, resume=resume, **form))
    run(prepared, cancelled=lambda: bool(told) and stop is not None and told[-1].shards >= stop, tell=told.append)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@settings(max_examples=10, deadline=None)
@given(stops=st.lists(st.integers(1, 15), min_size=1, max_size=3, unique=True).map(sorted))
def test_nothing_lost_however_often_it_stops_the_bytes_are_the_same(stops: list[int]) -> None:
    """10: and before the end there is nothing that looks like a result."""
    with TemporaryDirectory() as folder:
        whole, stopped = (Path(folder) / name / "a.ome.zarr" for name in ("whole", "stopped"))
        convert(whole)
        for number, stop in enumerate(stops):
            with pytest.raises(Cancelled):
                convert(stopped, stop=stop, resume=number > 0)
            assert not stopped.exists()
        convert(stopped, resume=True)
        assert content(stopped.parent) == content(whole.parent)
