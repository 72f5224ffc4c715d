"""Writing OME-TIFF: what other programs find in the file, and what it takes to write it."""

from __future__ import annotations

import errno
import itertools
import os
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import CountingSource, an_image
from napari_mgbpv2.errors import Cancelled, DestinationError, SourceError
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.io.writers.ome_tiff import COMPRESSIONS, read_provenance, tiff_dtype, tiles, write_ome_tiff, writer

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4"]
FLOATS = ["f4", "f8"]

# https://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd, UnitsLength and UnitsTime
SI = ["Y", "Z", "E", "P", "T", "G", "M", "k", "h", "da", "", "d", "c", "m", "µ", "n", "p", "f", "a", "z", "y"]
OME_LENGTHS = {f"{prefix}m" for prefix in SI} | {"Å", "in", "ft", "yd", "mi", "pc", "pixel"}
OME_TIMES = {f"{prefix}s" for prefix in SI} | {"min", "h", "d"}


def a_pyramid(*shape: int, levels: int = 3, dtype: str = "u1") -> list[np.ndarray]:
    """Levels that have nothing in common but that each is half as large, so that none can stand for another."""
    shapes = [(*shape[:-2], *(-(-side // 2**level) for side in shape[-2:])) for level in range(levels)]
    return [an_image(*each, dtype=dtype, seed=level) for level, each in enumerate(shapes)]


def write(path: Path, levels: list[Any], axes: str, **changes: Any) -> Path:
    options: dict[str, Any] = {
        "colour": False,
        "pixel_size": [1.0 if axis == "c" else 0.5 for axis in axes],
        "units": [{"c": None, "t": "second"}.get(axis, "micrometer") for axis in axes],
        "translation": [0.0] * len(axes),
        "name": "cells",
        "channel_names": None,
        "channel_colors": None,
        "provenance": {"model": "small", "scale": 4},
        "tile": 16,
    }
    write_ome_tiff(path, levels, axes=axes, **(options | changes))
    return path


def as_stored(level: np.ndarray, axes: str, colour: bool) -> np.ndarray:
    return np.moveaxis(level, axes.index("c"), -1) if colour else level


def pixels_element(path: Path) -> ET.Element:
    with tifffile.TiffFile(path) as tif:
        root = ET.fromstring(tif.ome_metadata or "")
    (pixels,) = (element for element in root.iter() if element.tag.endswith("}Pixels"))
    return pixels


def attributes(path: Path, element: str) -> list[dict[str, str]]:
    return [dict(each.attrib) for each in pixels_element(path).iter() if each.tag.endswith(f"}}{element}")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.ome.tif"


# -- pixels -------------------------------------------------------------------------------------------------------


@st.composite
def images(draw: st.DrawFn) -> tuple[list[np.ndarray], str, dict[str, Any]]:
    axes = draw(st.sampled_from(["yx", "cyx", "zyx", "tyx", "tcyx", "czyx", "tzyx", "tczyx"]))
    colour = "c" in axes and draw(st.booleans())
    sides = {"y": (1, 70), "x": (5, 70)}  # no level is a single pixel
    shape = tuple(
        draw(st.integers(3, 4) if axis == "c" and colour else st.integers(*sides.get(axis, (1, 3)))) for axis in axes
    )
    levels = a_pyramid(*shape, levels=draw(st.integers(1, 3)), dtype=draw(st.sampled_from(INTEGERS + FLOATS)))
    options = {
        "colour": colour,
        "tile": draw(st.sampled_from([16, 32, 64])),
        "compression": draw(st.sampled_from(list(COMPRESSIONS))),
        "translation": [draw(st.sampled_from([0.0, -0.375])) for _ in axes],
    }
    return levels, axes, options


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images())
def test_every_level_of_any_image_is_read_back(
    tmp_path: Path, image: tuple[list[np.ndarray], str, dict[str, Any]]
) -> None:
    levels, axes, options = image
    path = write(tmp_path / "any.ome.tif", levels, axes, **options)
    with tifffile.TiffFile(path) as tif:
        (series,) = tif.series
        assert len(series.levels) == len(levels)
    for number, level in enumerate(levels):
        expected = as_stored(level, axes, options["colour"])
        for read in (tifffile.imread(path, level=number), np.asarray(open_source(path, level=number).data)):
            assert read.dtype == level.dtype
            np.testing.assert_array_equal(read.reshape(expected.shape), expected)  # readers skip axes of length 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("colour", [False, True], ids=["channels", "colour"])
def test_every_dtype_is_kept(path: Path, dtype: str, colour: bool, compression: str) -> None:
    levels = a_pyramid(3, 50, 37, dtype=dtype)
    write(path, levels, "cyx", colour=colour, compression=compression)
    for number, level in enumerate(levels):
        read = tifffile.imread(path, level=number)
        assert read.dtype == level.dtype
        np.testing.assert_array_equal(read, as_stored(level, "cyx", colour))


def test_a_single_pixel_is_written(path: Path) -> None:
    write(path, [np.array([[7]], "u1")], "yx")
    assert tifffile.imread(path).item() == 7


def test_half_floats_are_written_as_floats(path: Path) -> None:
    (image,) = a_pyramid(20, 20, levels=1, dtype="f2")
    write(path, [image], "yx")
    assert tifffile.imread(path).dtype == np.float32
    np.testing.assert_array_equal(tifffile.imread(path), image)


def test_not_finite_values_are_kept(path: Path) -> None:
    image = np.array([[np.nan, np.inf], [-np.inf, 0]], "f4")
    write(path, [image], "yx")
    np.testing.assert_array_equal(tifffile.imread(path), image)


def test_pixels_of_the_other_byte_order_are_written(path: Path) -> None:
    (image,) = a_pyramid(20, 30, levels=1, dtype="u2")
    write(path, [image.astype(image.dtype.newbyteorder("S"))], "yx")
    np.testing.assert_array_equal(tifffile.imread(path), image)


@pytest.mark.parametrize("dtype", ["u8", "i8", "bool", "c8", "S3"])
def test_types_that_ome_tiff_lacks_are_refused(path: Path, dtype: str) -> None:
    with pytest.raises(DestinationError, match="choose OME-Zarr"):
        write(path, [np.zeros((8, 8), dtype)], "yx")
    assert not path.exists()


def test_the_type_that_will_be_written_is_told_beforehand() -> None:
    assert (tiff_dtype(">u2"), tiff_dtype("f2")) == (np.dtype("u2"), np.dtype("f4"))


def test_levels_of_sharded_zarr_arrays_are_written(path: Path) -> None:
    levels = a_pyramid(2, 150, 170)
    stored = []
    for level in levels:
        array = zarr.create_array({}, shape=level.shape, dtype="u1", chunks=(1, 32, 32), shards=(1, 64, 64))
        array[...] = level
        stored.append(array)
    write(path, stored, "cyx", tile=32)
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(tifffile.imread(path, level=number), level)


# -- layout -------------------------------------------------------------------------------------------------------


def test_lower_levels_are_reduced_images_below_each_page(path: Path) -> None:
    write(path, a_pyramid(2, 64, 64), "cyx")
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 2
        for page in tif.pages:
            assert [(sub.shape, int(sub.subfiletype)) for sub in page.pages] == [((32, 32), 1), ((16, 16), 1)]


def test_every_level_is_tiled(path: Path) -> None:
    write(path, a_pyramid(200, 90), "yx", tile=32)
    with tifffile.TiffFile(path) as tif:
        assert {level.keyframe.tile for level in tif.series[0].levels} == {(32, 32)}


def test_an_image_smaller_than_a_tile_has_smaller_tiles(path: Path) -> None:
    write(path, a_pyramid(20, 50, levels=1), "yx", tile=512)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.tile == (32, 64)


@pytest.mark.parametrize(("samples", "extra"), [(3, ()), (4, (2,))], ids=["RGB", "RGBA"])
def test_colour_samples_lie_side_by_side(path: Path, samples: int, extra: tuple[int, ...]) -> None:
    write(path, a_pyramid(samples, 40, 40), "cyx", colour=True)
    with tifffile.TiffFile(path) as tif:
        for level in tif.series[0].levels:
            page = level.keyframe
            assert (page.photometric.name, page.planarconfig.name, page.extrasamples) == ("RGB", "CONTIG", extra)


def test_channels_are_pages(path: Path) -> None:
    write(path, a_pyramid(3, 40, 40), "cyx")
    with tifffile.TiffFile(path) as tif:
        assert (len(tif.pages), tif.pages.first.photometric.name) == (3, "MINISBLACK")


@pytest.mark.parametrize(("dtype", "predictor"), [("u2", "HORIZONTAL"), ("i4", "HORIZONTAL"), ("f4", "NONE")])
def test_only_integers_are_predicted(path: Path, dtype: str, predictor: str) -> None:
    write(path, a_pyramid(40, 40, dtype=dtype), "yx")
    with tifffile.TiffFile(path) as tif:
        assert tifffile.PREDICTOR(tif.pages.first.predictor).name == predictor


def test_smooth_integers_are_compressed(path: Path) -> None:
    ramp = np.add.outer(np.arange(256, dtype="u2"), np.arange(256, dtype="u2"))
    write(path, [ramp], "yx", tile=256)
    assert path.stat().st_size < ramp.nbytes / 20


def test_a_small_image_is_a_classic_tiff(path: Path) -> None:
    write(path, a_pyramid(40, 40), "yx")
    with tifffile.TiffFile(path) as tif:
        assert not tif.is_bigtiff


@pytest.mark.parametrize(("limit", "is_big"), [(9 * 256, True), (9 * (256 + 32) + 1024, False)])
def test_an_image_that_might_not_fit_is_a_big_tiff(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, is_big: bool
) -> None:
    levels = a_pyramid(40, 40, levels=1)
    monkeypatch.setattr(writer, "CLASSIC_BYTES", limit)
    write(path, levels, "yx")
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff == is_big
    np.testing.assert_array_equal(tifffile.imread(path), levels[0])


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, a_pyramid(100, 100), "yx") for name in ("a.ome.tif", "b.ome.tif"))
    assert first.read_bytes() == second.read_bytes()


# -- what is said of it -------------------------------------------------------------------------------------------


def test_pixel_sizes_units_and_channels_are_read_back(path: Path) -> None:
    write(
        path,
        a_pyramid(2, 2, 3, 40, 40),
        "tczyx",
        pixel_size=[30.0, 1.0, 2.0, 0.25, 125.0],
        units=["millisecond", None, "micrometer", "micrometer", "nanometer"],
        channel_names=["DAPI", "GFP & co"],
        channel_colors=["0000ff", "FF8000"],
    )
    source = open_source(path)
    assert (source.kind, source.axes) == ("OME-TIFF", "tczyx")
    assert source.pixel_size == {"t": 30.0, "z": 2.0, "y": 0.25, "x": 125.0}
    assert source.units == {"t": "millisecond", "z": "micrometer", "y": "micrometer", "x": "nanometer"}
    assert source.channel_names == ("DAPI", "GFP & co")
    assert source.channel_colors == ("0000FF", "FF8000")


def test_a_lower_level_is_read_with_larger_pixels(path: Path) -> None:
    write(path, a_pyramid(40, 80), "yx", pixel_size=[0.5, 0.25])
    assert open_source(path, level=2).pixel_size == {"y": 2.0, "x": 1.0}


def test_a_colour_image_is_read_as_one(path: Path) -> None:
    write(path, a_pyramid(4, 40, 50), "cyx", colour=True)
    source = open_source(path)
    assert (source.axes, source.data.shape, source.channel_names) == ("yxs", (40, 50, 4), None)


def test_an_image_without_a_channel_axis_keeps_the_name_of_its_channel(path: Path) -> None:
    write(path, a_pyramid(40, 40), "yx", channel_names=["DAPI"], channel_colors=["00FF00"])
    source = open_source(path)
    assert (source.channel_names, source.channel_colors) == (("DAPI",), ("00FF00",))


@pytest.mark.parametrize(
    "unit", ["meter", "nanometer", "decameter", "yottameter", "angstrom", "inch", "foot", "yard", "mile", "parsec"]
)
def test_lengths_have_units_that_ome_knows(path: Path, unit: str) -> None:
    write(path, a_pyramid(40, 40), "yx", units=[unit, unit])
    assert pixels_element(path).get("PhysicalSizeXUnit") in OME_LENGTHS
    assert open_source(path).units == {"y": unit, "x": unit}


@pytest.mark.parametrize("unit", ["second", "microsecond", "kilosecond", "minute", "hour", "day"])
def test_times_have_units_that_ome_knows(path: Path, unit: str) -> None:
    write(path, a_pyramid(2, 40, 40), "tyx", units=[unit, None, None])
    assert pixels_element(path).get("TimeIncrementUnit") in OME_TIMES
    assert open_source(path).units["t"] == unit


def test_a_size_without_a_unit_does_not_become_micrometres(path: Path) -> None:
    write(path, a_pyramid(2, 40, 40), "tyx", pixel_size=[1.0, 0.25, 0.25], units=[None, None, None])
    source = open_source(path)
    assert source.pixel_size == {"t": 1.0, "y": 0.25, "x": 0.25}
    assert source.units == {"t": None, "y": None, "x": None}


def test_each_page_carries_its_position(path: Path) -> None:
    write(
        path,
        a_pyramid(2, 2, 40, 40),
        "tzyx",
        pixel_size=[10.0, 2.0, 0.5, 0.5],
        units=["second", "micrometer", "micrometer", "nanometer"],
        translation=[5.0, 1.0, -0.375, -0.25],
    )
    found = [
        (plane["TheT"], plane["DeltaT"], plane["TheZ"], plane["PositionZ"], plane["PositionY"], plane["PositionX"])
        for plane in attributes(path, "Plane")
    ]
    assert found == [
        ("0", "5.0", "0", "1.0", "-0.375", "-0.25"),
        ("0", "5.0", "1", "3.0", "-0.375", "-0.25"),
        ("1", "15.0", "0", "1.0", "-0.375", "-0.25"),
        ("1", "15.0", "1", "3.0", "-0.375", "-0.25"),
    ]
    assert attributes(path, "Plane")[0]["PositionXUnit"] == "nm"


def test_an_image_at_the_origin_has_no_positions(path: Path) -> None:
    write(path, a_pyramid(2, 40, 40), "zyx")
    assert attributes(path, "Plane") == []


def test_programs_without_ome_find_the_resolution_of_each_level(path: Path) -> None:
    write(path, a_pyramid(64, 64), "yx", pixel_size=[0.5, 0.25])
    with tifffile.TiffFile(path) as tif:
        found = [level.keyframe.get_resolution("CENTIMETER") for level in tif.series[0].levels]
    assert found == [(40000, 20000), (20000, 10000), (10000, 5000)]  # x, y


@pytest.mark.parametrize("units", [[None, None], ["parsec", "parsec"]])
def test_no_resolution_is_made_up(path: Path, units: list[str | None]) -> None:
    write(path, a_pyramid(40, 40), "yx", units=units)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.resolutionunit.name == "NONE"


def test_the_provenance_is_a_map_annotation_of_the_image(path: Path) -> None:
    write(path, a_pyramid(40, 40), "yx", provenance={"model": "x4 <1>", "scale": 4, "software": {"µ": "1"}})
    with tifffile.TiffFile(path) as tif:
        root = ET.fromstring(tif.ome_metadata or "")
    (annotation,) = (element for element in root.iter() if element.tag.endswith("}MapAnnotation"))
    (reference,) = (element for element in root.iter() if element.tag.endswith("}AnnotationRef"))
    assert reference.get("ID") == annotation.get("ID")
    found = {entry.get("K"): entry.text for entry in annotation.iter() if entry.tag.endswith("}M")}
    assert found == {"model": "x4 <1>", "scale": "4", "software": '{"µ": "1"}'}


def test_the_provenance_can_be_read_back(path: Path) -> None:
    provenance = {
        **{"text": "a\nb", "empty": "", "digits": "4", "word": "null", "none": None, "number": 4, "Value": {"a": []}},
        **{"Description": "mine", "Namespace": "other"},  # words of tifffile's own
    }
    write(path, a_pyramid(40, 40), "yx", provenance=provenance)
    assert read_provenance(path) == provenance


def test_no_other_file_has_a_provenance(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", an_image(20, 20), metadata={"MapAnnotation": {"scale": "4"}})
    tifffile.imwrite(tmp_path / "a.tif", an_image(20, 20))
    (tmp_path / "a.txt").write_text("scale 4")
    assert [read_provenance(tmp_path / name) for name in ("a.ome.tif", "a.tif", "a.txt", "none.tif")] == [None] * 4


def test_no_provenance_is_no_annotation(path: Path) -> None:
    write(path, a_pyramid(40, 40), "yx", provenance={})
    with tifffile.TiffFile(path) as tif:
        assert "Annotation" not in (tif.ome_metadata or "Annotation")


def test_characters_that_xml_lacks_do_not_spoil_it(path: Path) -> None:
    write(path, a_pyramid(40, 40), "yx", name="a\x00b\udc80 µ {}", channel_names=["\x1b"], pixel_size=[0.25, 0.25])
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].name == "a\ufffdb\ufffd µ {}"
    assert open_source(path).pixel_size["x"] == 0.25


@pytest.mark.parametrize(
    ("shape", "axes", "colour"), [((2, 3, 2, 40, 40), "tczyx", False), ((2, 4, 40, 40), "tcyx", True)]
)
def test_the_ome_xml_keeps_to_the_schema(path: Path, shape: tuple[int, ...], axes: str, colour: bool) -> None:
    ome_types = pytest.importorskip("ome_types")
    names = None if colour else ["a", "b", "c"]
    write(path, a_pyramid(*shape), axes, colour=colour, channel_names=names, translation=[1.0] * len(axes))
    with tifffile.TiffFile(path) as tif:
        ome_types.validate_xml(tif.ome_metadata)


# -- what it takes ------------------------------------------------------------------------------------------------


class GeneratedLevel:
    """Pixels made when they are asked for, so that a large image needs no memory."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, np.dtype("u1")

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        rows, columns = (np.arange(part.start, part.stop) for part in region[-2:])
        plane = (np.add.outer(rows, columns) % 251).astype("u1")
        return np.broadcast_to(plane, (*(part.stop - part.start for part in region[:-2]), *plane.shape))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let blocks be of 16 tiles of 64 x 64 pixels."""
    size = 16 * 64 * 64
    for module in (tiles, writer):
        monkeypatch.setattr(module, "BLOCK_BYTES", size)
    return size


@pytest.mark.parametrize(
    ("shape", "axes", "colour"),
    [((500, 3000), "yx", False), ((2, 3, 200, 700), "czyx", False), ((2, 3, 200, 700), "tcyx", True)],
)
def test_every_pixel_is_read_once_and_few_at_a_time(
    path: Path, small_blocks: int, shape: tuple[int, ...], axes: str, colour: bool
) -> None:
    levels = [CountingSource(level) for level in a_pyramid(*shape, levels=2)]
    write(path, levels, axes, colour=colour, tile=64)
    for level in levels:
        times = np.zeros(level.shape, int)
        for window in level.windows:
            times[window] += 1
            assert times[window].size <= small_blocks
            assert [part.start % 64 for part in window[-2:]] == [0, 0]  # a chunk of 64 or 32 is decoded once
        assert (times == 1).all()


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_set_by_the_blocks_and_not_by_the_image(path: Path, small_blocks: int) -> None:
    write(path, [GeneratedLevel(64, 64)], "yx")  # what is loaded once
    peaks = [
        peak_bytes(lambda shape=shape: write(path, [GeneratedLevel(*shape)], "yx", tile=64))
        for shape in ((320, 2048), (320, 32768))
    ]
    assert max(peaks) < 2 * 2**20 + 25 * small_blocks  # GeneratedLevel itself takes 8 blocks for each that it makes
    assert peaks[1] < peaks[0] + 2**20


def test_steps_count_the_tiles_of_all_levels(path: Path, small_blocks: int) -> None:
    steps: list[tuple[int, int]] = []
    write(path, a_pyramid(2, 300, 1500), "cyx", tile=64, on_step=lambda done, total: steps.append((done, total)))
    total = 2 * (5 * 24 + 3 * 12 + 2 * 6)
    assert {total for _, total in steps} == {total}
    assert all(before < after for (before, _), (after, _) in itertools.pairwise(steps))
    assert (len(steps) > 10, steps[-1]) == (True, (total, total))


# -- when it fails ------------------------------------------------------------------------------------------------


def test_a_cancelled_file_is_removed(path: Path, small_blocks: int) -> None:
    answers: Iterator[bool] = itertools.chain([False] * 5, itertools.repeat(True))
    source = CountingSource(an_image(640, 3000))
    with pytest.raises(Cancelled, match=r"cells\.ome\.tif"):
        write(path, [source], "yx", tile=64, cancelled=lambda: next(answers))
    assert not path.exists()
    assert source.pixels_read < source.array.size / 2


def test_a_full_disk_is_told_and_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DestinationError, match=r"cells\.ome\.tif: the disk is full"):
        write(path, a_pyramid(40, 40), "yx")
    assert not path.exists()


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"a\.ome\.tif: it cannot be written \(No such file"):
        write(tmp_path / "missing" / "a.ome.tif", a_pyramid(40, 40), "yx")


def test_a_file_that_may_not_be_opened_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path.write_bytes(b"mine")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        with pytest.raises(DestinationError, match=r"cells\.ome\.tif: it cannot be written \(Permission denied"):
            write(path, a_pyramid(40, 40), "yx")
    assert path.read_bytes() == b"mine"


def test_a_level_that_cannot_be_read_is_told_as_it_is(path: Path) -> None:
    class Damaged(CountingSource):
        def __getitem__(self, window: tuple[slice, ...]) -> np.ndarray:
            raise SourceError("level.zarr: is damaged")

    with pytest.raises(SourceError, match=r"level\.zarr: is damaged"):
        write(path, [Damaged(an_image(40, 40))], "yx")
    assert not path.exists()


def test_a_file_that_is_there_is_replaced(path: Path) -> None:
    path.write_bytes(b"old" * 10**5)
    levels = a_pyramid(40, 40)
    write(path, levels, "yx")
    np.testing.assert_array_equal(tifffile.imread(path), levels[0])
    assert path.stat().st_size < 10**5


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": "xy"},
        {"axes": "zyx"},
        {"levels": [np.zeros((0, 4), "u1")]},
        {"levels": [np.zeros((40, 40), "u1"), np.zeros((20, 20), "u2")]},
        {"levels": [np.zeros((40, 40), "u1"), np.zeros((2, 20, 20), "u1")]},
        {"pixel_size": [1.0]},
        {"pixel_size": [0.0, 1.0]},
        {"translation": [0.0, float("nan")]},
        {"colour": True},
        {"channel_names": ["one", "two"]},
        {"channel_colors": ["red"]},
        {"provenance": {"noise": float("nan")}},
        {"tile": 40},
        {"tile": 0},
        {"compression": "jpeg"},
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(path: Path, changes: dict[str, Any]) -> None:
    arguments = {"levels": a_pyramid(40, 40), "axes": "yx", "units": [None] * 2, "translation": [0.0] * 2}
    with pytest.raises(ValueError, match=r"."):
        write(path, **(arguments | {"pixel_size": [1.0] * 2} | changes))
    assert not path.exists()
