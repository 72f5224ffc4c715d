"""What `open_source` promises of every format that it reads."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources import ImageSource, as_array, open_source

Array = npt.NDArray[Any]


def pixels(*shape: int, dtype: npt.DTypeLike = "u2", seed: int = 0) -> Array:
    """Make random integers over the whole range of an integer dtype, or floats in [0, 1)."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def all_of(source: ImageSource) -> Array:
    """Read all pixels of a source."""
    return np.asarray(source.data[(slice(None),) * source.data.ndim])


def assert_reads(source: ImageSource, expected: Array) -> None:
    """Check shape and dtype, all pixels, and a window with odd corners."""
    assert source.data.shape == expected.shape
    assert source.data.dtype == expected.dtype.newbyteorder("=")
    assert source.data.ndim == len(source.axes) == expected.ndim
    np.testing.assert_array_equal(all_of(source), expected)
    window = tuple(slice(size // 3, size // 3 + max(1, size // 2)) for size in expected.shape)
    np.testing.assert_array_equal(source.data[window], expected[window])


def write_ome_zarr(
    path: Path,
    levels: list[Array],
    axes: list[dict[str, str]],
    datasets: list[list[dict[str, Any]]],
    *,
    version: str = "0.5",
    transforms: list[dict[str, Any]] | None = None,
    channels: list[dict[str, str]] | None = None,
) -> Path:
    """Write an OME-Zarr; ``datasets`` has the transforms of each level."""
    multiscale: dict[str, Any] = {
        "axes": axes,
        "datasets": [{"path": str(i), "coordinateTransformations": each} for i, each in enumerate(datasets)],
    }
    if transforms:
        multiscale["coordinateTransformations"] = transforms
    ome: dict[str, Any] = {"multiscales": [multiscale]}
    if channels:
        ome["omero"] = {"channels": channels}
    if version == "0.5":
        attributes: dict[str, Any] = {"ome": {"version": "0.5", **ome}}
    else:
        multiscale["version"] = version
        attributes = ome
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    for i, level in enumerate(levels):
        array = group.create_array(str(i), shape=level.shape, chunks=(16,) * level.ndim, dtype=level.dtype)
        array[...] = level
    return path


CZYX = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
CYX = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


def unit_scale(ndim: int) -> list[dict[str, Any]]:
    """Return the transforms of a level that does not say its pixel size."""
    return [{"type": "scale", "scale": [1.0] * ndim}]


class TestTiffPixels:
    """Whatever its storage, a TIFF reads as the array that was written."""

    @pytest.mark.parametrize("shape", [(100, 130), (5, 60, 70), (2, 3, 40, 50)])
    @pytest.mark.parametrize(
        "storage",
        [
            {},
            {"bigtiff": True},
            {"byteorder": ">"},
            {"tile": (32, 48)},
            {"tile": (32, 48), "compression": "zstd", "predictor": True},
            {"rowsperstrip": 7, "compression": "lzw"},
            {"rowsperstrip": 1, "compression": "zlib"},
            {"compression": "zlib", "rowsperstrip": 1000, "byteorder": ">"},
        ],
        ids=["contiguous", "bigtiff", "big-endian", "tiled", "tiled-zstd", "strips-lzw", "rows", "one-strip"],
    )
    def test_greys(self, tmp_path: Path, shape: tuple[int, ...], storage: dict[str, Any]) -> None:
        image = pixels(*shape)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **storage)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f2", "f4", "f8"])
    def test_dtypes(self, tmp_path: Path, dtype: str) -> None:
        image = pixels(50, 60, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", tile=(16, 16))
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_bilevel_is_boolean(self, tmp_path: Path) -> None:
        image = pixels(40, 52, dtype="u1") > 127
        tifffile.imwrite(tmp_path / "a.tif", image)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    @pytest.mark.parametrize("storage", [{}, {"tile": (16, 32), "compression": "zstd"}, {"compression": "lzw"}])
    def test_rgb_samples_are_s(self, tmp_path: Path, storage: dict[str, Any]) -> None:
        image = pixels(50, 60, 3, dtype="u1")
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **storage)
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "yxs"
        assert_reads(source, image)

    @pytest.mark.parametrize("storage", [{}, {"tile": (16, 32), "compression": "zstd"}])
    def test_planar_rgb_has_s_first(self, tmp_path: Path, storage: dict[str, Any]) -> None:
        image = pixels(3, 50, 60, dtype="u1")
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", planarconfig="separate", **storage)
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "syx"
        assert_reads(source, image)

    def test_jpeg_tiles_are_rgb(self, tmp_path: Path) -> None:
        image = np.full((64, 96, 3), (200, 100, 50), "u1")
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(32, 32), compression="jpeg")
        read = all_of(open_source(tmp_path / "a.tif"))
        assert np.abs(read.astype(int) - image).max() <= 3

    def test_jpeg_tiles_that_overhang(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(70, 90, dtype="u1"), tile=(32, 32), compression="jpeg")
        assert_reads(open_source(tmp_path / "a.tif"), tifffile.imread(tmp_path / "a.tif"))

    def test_volume_tiles(self, tmp_path: Path) -> None:
        image = pixels(20, 50, 60)
        tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 16, 32), compression="zstd", photometric="minisblack")
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_written_by_pillow(self, tmp_path: Path) -> None:
        image = pixels(50, 60, 3, dtype="u1")
        Image.fromarray(image).save(tmp_path / "a.tif", compression="tiff_lzw")
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_opening_decodes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), tile=(16, 16), compression="zstd")
        decoded = count_decoded(monkeypatch)
        open_source(tmp_path / "a.tif")
        assert decoded == []

    def test_a_window_decodes_only_its_tiles(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), tile=(16, 16), compression="zstd")
        source = open_source(tmp_path / "a.tif")
        decoded = count_decoded(monkeypatch)
        source.data[slice(16, 32), slice(15, 33)]
        assert sorted(decoded) == [4, 5, 6]

    def test_windows_of_a_page_in_one_strip_decode_it_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = pixels(256, 256)
        tifffile.imwrite(tmp_path / "a.tif", image, rowsperstrip=256, compression="zlib")
        source = open_source(tmp_path / "a.tif")
        decoded = count_decoded(monkeypatch)
        with ThreadPoolExecutor(4) as threads:
            rows = list(threads.map(lambda y: source.data[slice(y, y + 8), slice(None)], range(0, 256, 8)))
        np.testing.assert_array_equal(np.concatenate(rows), image)
        assert decoded == [0]

    def test_a_page_with_many_tiles(self, tmp_path: Path) -> None:
        image = pixels(2, 640, 640)
        tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 16), compression="zlib", photometric="minisblack")
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_no_file_is_held_open(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 64, 64), compression="zlib", photometric="minisblack")
        source = open_source(tmp_path / "a.tif")
        all_of(source)
        process = psutil.Process()
        assert str(tmp_path / "a.tif") not in [file.path for file in process.open_files()]

    def test_kept_segments_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("napari_mgbpv2.sources.tiff_pixels._CACHE_BYTES", 4 * 16 * 16 * 2)
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), tile=(16, 16), compression="zstd")
        source = open_source(tmp_path / "a.tif")
        decoded = count_decoded(monkeypatch)
        all_of(source)
        source.data[slice(48, 64), slice(0, 64)]  # the last four are still there
        assert len(decoded) == 16
        source.data[slice(0, 16), slice(0, 16)]
        assert len(decoded) == 17

    def test_sparse_tiles_are_empty(self, tmp_path: Path) -> None:
        blocks = itertools.chain([np.ones((16, 16), "u2").tobytes()], itertools.repeat(b"", 3))
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            writer.write(blocks, shape=(32, 32), dtype="u2", tile=(16, 16), compression="none", metadata=None)
        expected = np.zeros((32, 32), "u2")
        expected[:16, :16] = 1
        assert_reads(open_source(tmp_path / "a.tif"), expected)

    def test_ome_of_several_files(self, tmp_path: Path) -> None:
        image = pixels(2, 40, 50)
        for name, plane, uuid in (("one", image[0], "urn:uuid:1"), ("two", image[1], "urn:uuid:2")):
            xml = MULTIFILE_OME.replace("THIS", uuid)
            tifffile.imwrite(tmp_path / f"{name}.ome.tif", plane, description=xml, metadata=None, compression="zlib")
        source = open_source(tmp_path / "one.ome.tif")
        assert source.axes == "zyx"
        assert_reads(source, image)


MULTIFILE_OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="THIS"><Image ID="Image:0"><Pixels ID="Pixels:0"
DimensionOrder="XYZCT" Type="uint16" SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="one.ome.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="two.ome.tif">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the index of each segment is appended when it is decoded."""
    from napari_mgbpv2.sources.tiff_pixels import TiffArray

    decoded: list[int] = []
    decode = TiffArray._decode

    def counting(self: TiffArray, number: int, page: Any, index: int, inside: tuple[int, ...]) -> Array:
        decoded.append(index)
        return decode(self, number, page, index, inside)

    monkeypatch.setattr(TiffArray, "_decode", counting)
    return decoded


class TestTiffMetadata:
    """Axes, pixel sizes, units and channels come from wherever the flavour of TIFF has them."""

    def test_ome(self, tmp_path: Path) -> None:
        image = pixels(2, 3, 4, 32, 40)
        metadata = {
            "axes": "TCZYX",
            **{"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 200.0, "PhysicalSizeYUnit": "nm"},
            **{"PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm", "TimeIncrement": 3.0, "TimeIncrementUnit": "ms"},
            "Channel": {"Name": ["DAPI", "GFP", "Cy5"], "Color": [0x0000FFFF, 0x00FF00FF, -16776961]},
        }
        tifffile.imwrite(tmp_path / "a.ome.tif", image, photometric="minisblack", metadata=metadata)
        source = open_source(tmp_path / "a.ome.tif")
        assert_reads(source, image)
        assert (source.kind, source.axes) == ("OME-TIFF", "tczyx")
        assert source.pixel_size == {"t": 3.0, "z": 0.5, "y": 200.0, "x": 0.1}
        assert source.units == {"t": "millisecond", "z": "micrometer", "y": "nanometer", "x": "micrometer"}
        assert source.translation == {"t": 0.0, "z": 0.0, "y": 0.0, "x": 0.0}
        assert source.channel_names == ("DAPI", "GFP", "Cy5")
        assert source.channel_colors == ("0000FF", "00FF00", "FF0000")

    def test_the_name_of_a_single_channel_is_kept(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels(32, 40), metadata={"axes": "YX", "Channel": {"Name": ["DAPI"]}})
        source = open_source(tmp_path / "a.ome.tif")
        assert (source.axes, source.channel_names) == ("yx", ("DAPI",))

    def test_imagej(self, tmp_path: Path) -> None:
        image = pixels(2, 4, 3, 32, 40)
        metadata = {"axes": "TZCYX", "spacing": 0.5, "unit": "um", "finterval": 3.0}
        tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, resolution=(10.0, 5.0), metadata=metadata)
        source = open_source(tmp_path / "a.tif")
        assert_reads(source, image)
        assert (source.kind, source.axes) == ("ImageJ TIFF", "tzcyx")
        assert source.pixel_size == {"t": 3.0, "z": 0.5, "y": 0.2, "x": 0.1}
        assert source.units == {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}

    def test_imagej_escaped_micro_sign(self, tmp_path: Path) -> None:
        metadata = {"axes": "YX", "unit": "\\u00B5m"}
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 40), imagej=True, resolution=(4.0, 4.0), metadata=metadata)
        source = open_source(tmp_path / "a.tif")
        assert (source.units["x"], source.pixel_size["x"]) == ("micrometer", 0.25)

    def test_imagej_channels(self, tmp_path: Path) -> None:
        ramp = np.arange(256, dtype="u1")
        tables = [np.stack([ramp, ramp * 0, ramp * 0]), np.stack([ramp * 0, ramp, ramp])]
        metadata = {"axes": "CYX", "Labels": ["nuclei", "actin"], "LUTs": tables, "mode": "composite"}
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 32, 40, dtype="u1"), imagej=True, metadata=metadata)
        source = open_source(tmp_path / "a.tif")
        assert source.channel_names == ("nuclei", "actin")
        assert source.channel_colors == ("FF0000", "00FFFF")

    @pytest.mark.parametrize(
        ("resolution", "unit", "size"), [(4000, "CENTIMETER", 2.5), (25400, "INCH", 1.0), (300, "INCH", 25400 / 300)]
    )
    def test_resolution_tags_are_micrometres(self, tmp_path: Path, resolution: float, unit: str, size: float) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 40), resolution=(resolution,) * 2, resolutionunit=unit)
        source = open_source(tmp_path / "a.tif")
        assert source.pixel_size == pytest.approx({"y": size, "x": size})
        assert source.units == {"y": "micrometer", "x": "micrometer"}

    @pytest.mark.parametrize(
        ("resolution", "unit"), [(72, "INCH"), (96, "INCH"), (28.35, "CENTIMETER"), (1, "INCH"), (5, "NONE")]
    )
    def test_resolutions_that_mean_nothing_are_unknown(self, tmp_path: Path, resolution: float, unit: str) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 40), resolution=(resolution,) * 2, resolutionunit=unit)
        source = open_source(tmp_path / "a.tif")
        assert source.pixel_size == {"y": 1.0, "x": 1.0}
        assert source.units == {"y": None, "x": None}

    def test_slide_scans_say_micrometres_per_pixel(self, tmp_path: Path) -> None:
        about = "Aperio Image Library v11\n64x64 (16x16) none|AppMag = 40|MPP = 0.2520"
        image = pixels(64, 64, 3, dtype="u1")
        tifffile.imwrite(tmp_path / "a.svs", image, tile=(16, 16), description=about, photometric="rgb", metadata=None)
        source = open_source(tmp_path / "a.svs")
        assert source.kind == "Aperio SVS"
        assert source.pixel_size == {"y": 0.252, "x": 0.252}
        assert source.units == {"y": "micrometer", "x": "micrometer"}

    def test_an_unnamed_axis_is_z(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(5, 32, 40), photometric="minisblack")
        assert open_source(tmp_path / "a.tif").axes == "zyx"

    def test_an_unknown_axis_besides_z_is_t(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 5, 32, 40), photometric="minisblack", metadata={"axes": "RZYX"})
        assert open_source(tmp_path / "a.tif").axes == "tzyx"

    def test_more_unknown_axes_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 2, 2, 32, 40), photometric="minisblack")
        with pytest.raises(SourceError, match=r"a\.tif: has the axes QQQYX"):
            open_source(tmp_path / "a.tif")

    def test_damaged_ome_xml_leaves_the_pixels(self, tmp_path: Path) -> None:
        image = pixels(32, 40)
        xml = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image></OME>'
        tifffile.imwrite(tmp_path / "a.ome.tif", image, description=xml, metadata=None)
        source = open_source(tmp_path / "a.ome.tif")
        assert_reads(source, image)
        assert source.pixel_size == {"y": 1.0, "x": 1.0}

    @pytest.mark.parametrize(
        ("tag", "at", "value"),
        [("ResolutionUnit", 4, 2), ("ResolutionUnit", 2, 2), ("XResolution", 4, 2), ("YResolution", 4, 0)],
        ids=["two-units", "unit-of-letters", "two-resolutions", "no-resolution"],
    )
    def test_damaged_resolution_leaves_the_pixels(self, tmp_path: Path, tag: str, at: int, value: int) -> None:
        image = pixels(32, 40)
        tifffile.imwrite(tmp_path / "a.tif", image, resolution=(300, 300), resolutionunit="INCH")
        overwrite_tag(tmp_path / "a.tif", tag, at, value)
        source = open_source(tmp_path / "a.tif")
        assert_reads(source, image)
        assert source.units["x"] is None

    def test_ome_images_without_pixels_do_not_shift_the_metadata(self, tmp_path: Path) -> None:
        described = "".join(
            OME_IMAGE.format(name, size, data)
            for name, size, data in (("no", 9, ""), ("yes", 3, '<TiffData IFD="0"/>'))
        )
        xml = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{described}</OME>'
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels(40, 50), description=xml, metadata=None)
        assert open_source(tmp_path / "a.ome.tif").pixel_size == {"y": 1.0, "x": 3.0}


OME_IMAGE = """<Image Name="{0}"><Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="50" SizeY="40" SizeZ="1" SizeC="1"
SizeT="1" PhysicalSizeX="{1}"><Channel SamplesPerPixel="1"/>{2}</Pixels></Image>"""


def overwrite_tag(path: Path, tag: str, at: int, value: int) -> None:
    """Write 2 bytes into a tag of the first page: 2 bytes behind its start is its type, 4 its count, 8 its value."""
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.tags[tag].offset
    with path.open("r+b") as file:
        file.seek(offset + at)
        file.write(struct.pack("<H", value))


class TestTiffSeriesAndLevels:
    """A file may hold several images, each in several resolutions."""

    @pytest.fixture
    def pyramid(self, tmp_path: Path) -> Path:
        """Write two images; the second has three levels and pixels of 0.25 micrometres."""
        sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
        image = pixels(128, 128)
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            writer.write(pixels(16, 16, seed=1), metadata={"axes": "YX"})
            writer.write(image, subifds=2, tile=(32, 32), metadata={"axes": "YX", **sizes})
            writer.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
            writer.write(image[::4, ::4], subfiletype=1, tile=(32, 32))
        return tmp_path / "a.ome.tif"

    def test_series_chooses_the_image_and_its_metadata(self, pyramid: Path) -> None:
        assert_reads(open_source(pyramid), pixels(16, 16, seed=1))
        second = open_source(pyramid, series=1)
        assert_reads(second, pixels(128, 128))
        assert second.pixel_size == {"y": 0.25, "x": 0.25}

    def test_level_chooses_the_resolution(self, pyramid: Path) -> None:
        assert_reads(open_source(pyramid, series=1, level=2), pixels(128, 128)[::4, ::4])

    def test_a_level_lies_on_the_full_image(self, pyramid: Path) -> None:
        source = open_source(pyramid, series=1, level=2)
        assert source.pixel_size == {"y": 1.0, "x": 1.0}
        assert source.translation == {"y": 0.375, "x": 0.375}  # half of four pixels less half of one

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"series": 2}, "no series 2; choose 0 to 1"),
            ({"series": -1}, "no series -1"),
            ({"series": 1, "level": 3}, "no level 3; choose 0 to 2"),
            ({"level": 1}, "no level 1; choose 0"),
        ],
    )
    def test_what_is_not_there_is_refused(self, pyramid: Path, choice: dict[str, int], message: str) -> None:
        with pytest.raises(SourceError, match=rf"a\.ome\.tif: .*{message}"):
            open_source(pyramid, **choice)


class TestDamagedTiff:
    """Missing bytes are an error, never zeros."""

    @pytest.mark.parametrize("fraction", [0.01, 0.3, 0.6, 0.95])
    @pytest.mark.parametrize(
        "storage",
        [
            {"metadata": None},
            {"compression": "zlib"},
            {"compression": "zlib", "metadata": None},
            {"tile": (16, 16), "metadata": None},
            {"imagej": True},
            {"ome": True, "compression": "zlib"},
            {"ome": True},
        ],
    )
    def test_cut_short(self, tmp_path: Path, storage: dict[str, Any], fraction: float) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(6, 64, 64), photometric="minisblack", **storage)
        cut(path, fraction)
        with pytest.raises(SourceError, match=r"a\.tif: "):
            all_of(open_source(path))

    def test_cut_short_by_pillow_with_its_directory_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        Image.fromarray(pixels(64, 64, dtype="u1")).save(path, compression="tiff_lzw")
        cut(path, 0.5)
        with pytest.raises(SourceError, match=r"a\.tif: "):
            all_of(open_source(path))

    def test_cut_short_after_opening(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(64, 64), tile=(16, 16), compression="zlib")
        source = open_source(path)
        cut(path, 0.5)
        source.data[slice(0, 16), slice(0, 16)]
        with pytest.raises(SourceError, match=r"a\.tif: the file is cut short"):
            source.data[slice(48, 64), slice(48, 64)]

    @pytest.mark.parametrize(
        ("tag", "at", "value"),
        [
            ("ImageLength", 8, 0),
            ("StripOffsets", 2, 2),
            ("StripByteCounts", 2, 2),
            ("Compression", 8, 9999),
        ],
    )
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_impossible_tags(self, tmp_path: Path, compression: str | None, tag: str, at: int, value: int) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(64, 64), rowsperstrip=16, compression=compression, metadata=None)
        overwrite_tag(path, tag, at, value)
        with pytest.raises(SourceError, match=r"a\.tif: "):
            assert_reads(open_source(path), pixels(64, 64))

    @pytest.mark.parametrize(("at", "value"), [(8, 0), (2, 2)])
    def test_impossible_strips(self, tmp_path: Path, at: int, value: int) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), rowsperstrip=16, compression="zlib")
        overwrite_tag(tmp_path / "a.tif", "RowsPerStrip", at, value)
        with pytest.raises(SourceError, match=r"a\.tif: cannot be read as TIFF"):
            open_source(tmp_path / "a.tif")

    def test_impossible_size_of_a_later_page(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(2, 64, 64), compression="zlib", photometric="minisblack", bigtiff=True)
        with tifffile.TiffFile(path) as tif:
            count = tif.pages[1].tags["StripByteCounts"]
        with path.open("r+b") as file:
            file.seek(count.offset + 2)
            file.write(struct.pack("<HQQ", 16, 1, 2**60))  # type, count and value
        with pytest.raises(SourceError, match=r"a\.tif: "):
            all_of(open_source(path))

    def test_tiles_without_width(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), tile=(16, 16), compression="zlib")
        overwrite_tag(tmp_path / "a.tif", "TileWidth", 8, 0)
        with pytest.raises(SourceError, match=r"a\.tif: cannot be read as TIFF"):
            open_source(tmp_path / "a.tif")

    def test_a_later_page_cut_short_leaves_the_others(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        image = pixels(2, 64, 64)
        tifffile.imwrite(path, image, compression="zlib", photometric="minisblack", metadata=None)
        cut(path, 0.9)
        source = open_source(path)
        np.testing.assert_array_equal(source.data[slice(0, 1), slice(None), slice(None)], image[:1])
        with pytest.raises(SourceError, match="cut short"):
            all_of(source)

    def test_spoilt_segment(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(64, 64), tile=(32, 32), compression="zlib")
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages.first.dataoffsets[3]
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * 40)
        with pytest.raises(SourceError, match=r"a\.tif: segment 3 of page 0 cannot be decoded"):
            all_of(open_source(path))

    def test_missing_file_of_several(self, tmp_path: Path) -> None:
        xml = MULTIFILE_OME.replace("THIS", "urn:uuid:1")
        tifffile.imwrite(tmp_path / "one.ome.tif", pixels(40, 50), description=xml, metadata=None, compression="zlib")
        with pytest.raises(SourceError, match="page 1 is missing"):
            all_of(open_source(tmp_path / "one.ome.tif"))

    def test_complex_pixels_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), "c8"))
        with pytest.raises(SourceError, match="holds complex64 values"):
            open_source(tmp_path / "a.tif")


def cut(path: Path, fraction: float) -> None:
    """Keep only the first part of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])


class TestPictures:
    """PNG, JPEG and their like."""

    @pytest.mark.parametrize(
        ("image", "axes"),
        [
            (pixels(20, 30, dtype="u1"), "yx"),
            (pixels(20, 30), "yx"),
            (pixels(20, 30, 2, dtype="u1"), "yxs"),
            (pixels(20, 30, 3, dtype="u1"), "yxs"),
            (pixels(20, 30, 4, dtype="u1"), "yxs"),
        ],
        ids=["L", "I;16", "LA", "RGB", "RGBA"],
    )
    def test_png(self, tmp_path: Path, image: Array, axes: str) -> None:
        Image.fromarray(image).save(tmp_path / "a.png")
        source = open_source(tmp_path / "a.png")
        assert (source.kind, source.axes) == ("PNG", axes)
        assert source.pixel_size == {"y": 1.0, "x": 1.0}
        assert source.units == {"y": None, "x": None}
        assert_reads(source, image)

    @pytest.mark.parametrize("samples", [2, 3, 4])
    def test_png_of_16_bits_keeps_them(self, tmp_path: Path, samples: int) -> None:
        from imagecodecs import png_encode

        image = pixels(20, 30, samples)
        (tmp_path / "a.png").write_bytes(png_encode(image))
        assert_reads(open_source(tmp_path / "a.png"), image)

    def test_png_of_16_bits_with_a_transparent_colour(self, tmp_path: Path) -> None:
        from imagecodecs import png_encode

        image = pixels(20, 30, 3)
        encoded, colour = png_encode(image), b"tRNS" + image[0, 0].astype(">u2").tobytes()
        before = encoded.index(b"IDAT") - 4
        chunk = struct.pack(">I", 6) + colour + struct.pack(">I", zlib.crc32(colour))
        (tmp_path / "a.png").write_bytes(encoded[:before] + chunk + encoded[before:])
        assert_reads(open_source(tmp_path / "a.png"), image)

    @pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "gif"])
    def test_other_formats(self, tmp_path: Path, suffix: str) -> None:
        Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
        read = all_of(open_source(tmp_path / f"a.{suffix}"))
        assert read.shape == (20, 30, 3)
        assert np.abs(read.astype(int) - (200, 100, 50)).max() <= 3

    def test_palettes_become_colours(self, tmp_path: Path) -> None:
        colours = Image.fromarray(pixels(20, 30, 3, dtype="u1")).quantize(16)
        colours.save(tmp_path / "a.png")
        assert_reads(open_source(tmp_path / "a.png"), np.asarray(colours.convert("RGB")))

    def test_masks_become_grey(self, tmp_path: Path) -> None:
        mask = pixels(20, 30, dtype="u1") > 127
        Image.fromarray(mask).save(tmp_path / "a.png")
        assert_reads(open_source(tmp_path / "a.png"), mask.astype("u1") * np.uint8(255))

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_exif_orientation_is_honoured(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / f"a.{suffix}", exif=exif)
        with Image.open(tmp_path / f"a.{suffix}") as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        assert_reads(open_source(tmp_path / f"a.{suffix}"), upright)

    def test_opening_decodes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        Image.fromarray(pixels(200, 300, dtype="u1")).save(path)
        cut(path, 0.5)
        source = open_source(path)
        assert source.data.shape == (200, 300)
        with pytest.raises(SourceError, match=r"a\.png: this PNG is damaged or cut short"):
            all_of(source)

    def test_pictures_of_any_size_are_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        image = pixels(64, 64, dtype="u1")
        Image.fromarray(image).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert_reads(open_source(tmp_path / "a.png"), image)
        assert Image.MAX_IMAGE_PIXELS == 10

    def test_formats_that_pillow_only_recognises_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        with pytest.raises(SourceError, match=r"a\.h5: HDF5 is not read"):
            open_source(tmp_path / "a.h5")

    def test_text_named_png_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("this is no picture")
        with pytest.raises(SourceError, match=r"a\.png: the content is no image of a known format"):
            open_source(tmp_path / "a.png")


class TestNpy:
    """NumPy's own files."""

    @pytest.mark.parametrize(
        ("shape", "axes"), [((20, 30), "yx"), ((5, 20, 30), "zyx"), ((20, 30, 3), "yxs"), ((2, 5, 20, 30), "czyx")]
    )
    def test_axes_by_dimensions(self, tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
        image = pixels(*shape)
        np.save(tmp_path / "a.npy", image)
        source = open_source(tmp_path / "a.npy")
        assert (source.kind, source.axes) == ("NumPy array", axes)
        assert_reads(source, image)

    @pytest.mark.parametrize(
        "image", [np.asfortranarray(pixels(20, 30)), pixels(20, 30).astype(">u2"), pixels(20, 30, dtype="f4")]
    )
    def test_any_layout(self, tmp_path: Path, image: Array) -> None:
        np.save(tmp_path / "a.npy", image)
        assert_reads(open_source(tmp_path / "a.npy"), image)

    def test_cut_short(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", pixels(20, 30))
        cut(tmp_path / "a.npy", 0.5)
        with pytest.raises(SourceError, match=r"a\.npy: cannot be read as a NumPy array"):
            open_source(tmp_path / "a.npy")

    @pytest.mark.parametrize("place", [40, 59])
    def test_damaged_header(self, tmp_path: Path, place: int) -> None:
        np.save(tmp_path / "a.npy", pixels(20, 30))
        with (tmp_path / "a.npy").open("r+b") as file:
            file.seek(place)
            file.write(b"(")
        with pytest.raises(SourceError, match=r"a\.npy: cannot be read as a NumPy array"):
            open_source(tmp_path / "a.npy")

    def test_no_pixels_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", pixels(0, 30))
        with pytest.raises(SourceError, match=r"a\.npy: has no pixels, shape \(0, 30\)"):
            open_source(tmp_path / "a.npy")

    def test_objects_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
        with pytest.raises(SourceError, match="Python objects"):
            open_source(tmp_path / "a.npy")

    def test_structures_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((4, 4), [("a", "u1"), ("b", "f4")]))
        with pytest.raises(SourceError, match="an image has boolean, integer or floating-point pixels"):
            open_source(tmp_path / "a.npy")

    def test_one_dimension_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", pixels(20))
        with pytest.raises(SourceError, match=r"a\.npy: the image has 1 axes, shape \(20,\)"):
            open_source(tmp_path / "a.npy")


class TestZarrArrays:
    """Plain arrays, and groups of one."""

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [((40, 50), "yx"), ((9, 40, 50), "zyx"), ((40, 50, 4), "yxs"), ((2, 9, 40, 50), "czyx"), ((1,) * 5, "tczyx")],
    )
    def test_axes_by_dimensions(self, tmp_path: Path, version: Any, shape: tuple[int, ...], axes: str) -> None:
        image = pixels(*shape)
        array = zarr.create_array(
            tmp_path / "a.zarr", shape=shape, chunks=(16,) * len(shape), dtype="u2", zarr_format=version
        )
        array[...] = image
        source = open_source(tmp_path / "a.zarr")
        assert (source.kind, source.axes) == (f"Zarr v{version} array", axes)
        assert_reads(source, image)

    def test_colours_may_be_floats(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(40, 50, 3), dtype="f4")
        assert open_source(tmp_path / "a.zarr").axes == "yxs"

    @pytest.mark.parametrize(
        ("names", "axes"),
        [(["t", "y", "x"], "tyx"), (["channel", "Y", "X"], "cyx"), (["time", "row", "col"], "tyx")],
    )
    def test_axes_by_dimension_names(self, tmp_path: Path, names: list[str], axes: str) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(3, 40, 50), dtype="u2", dimension_names=names)
        assert open_source(tmp_path / "a.zarr").axes == axes

    def test_axes_by_array_dimensions(self, tmp_path: Path) -> None:
        attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["c", "y", "x"]}
        zarr.create_array(tmp_path / "a.zarr", shape=(3, 40, 50), dtype="u2", zarr_format=2, attributes=attributes)
        assert open_source(tmp_path / "a.zarr").axes == "cyx"

    def test_big_endian_reads_as_native(self, tmp_path: Path) -> None:
        image = pixels(40, 50)
        zarr.create_array(tmp_path / "a.zarr", data=image.astype(">u2"), zarr_format=2)
        assert_reads(open_source(tmp_path / "a.zarr"), image)

    def test_group_of_one_array(self, tmp_path: Path) -> None:
        image = pixels(40, 50)
        zarr.open_group(tmp_path / "a.zarr").create_array("only", data=image)
        assert_reads(open_source(tmp_path / "a.zarr"), image)

    def test_group_of_several_arrays_lists_them(self, tmp_path: Path) -> None:
        group = zarr.open_group(tmp_path / "a.zarr")
        group.create_array("left", data=pixels(4, 4))
        group.create_array("right", data=pixels(4, 4))
        with pytest.raises(SourceError, match=r"a\.zarr: .*several arrays \(left, right\)"):
            open_source(tmp_path / "a.zarr")

    def test_an_array_inside_a_group_opens_by_its_path(self, tmp_path: Path) -> None:
        group = zarr.open_group(tmp_path / "a.zarr")
        group.create_array("left", data=pixels(4, 4))
        group.create_array("right", data=pixels(5, 5))
        assert_reads(open_source(tmp_path / "a.zarr" / "right"), pixels(5, 5))

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("nested", [False, True], ids=["at-root", "in-a-folder"])
    def test_zip(self, tmp_path: Path, version: Any, nested: bool) -> None:
        image = pixels(40, 50)
        zarr.create_array(tmp_path / "a.zarr", data=image, chunks=(16, 16), zarr_format=version)
        root, base = (tmp_path, "a.zarr") if nested else (tmp_path / "a.zarr", ".")
        shutil.make_archive(str(tmp_path / "b.zarr"), "zip", root, base)
        assert_reads(open_source(tmp_path / "b.zarr.zip"), image)

    @pytest.mark.parametrize("dtype", [[("a", "<i4"), ("b", "<f4")], "<c8", "<M8[s]"])
    def test_what_is_no_number_is_refused(self, tmp_path: Path, dtype: Any) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(4, 4), dtype=np.dtype(dtype), zarr_format=2)
        with pytest.raises(SourceError, match=r"a\.zarr: holds .* an image has boolean, integer or floating-point"):
            open_source(tmp_path / "a.zarr")

    def test_objects_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.zarr").mkdir()
        metadata = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "|O", "compressor": None}
        metadata |= {"fill_value": None, "order": "C", "filters": [{"id": "pickle"}]}
        (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(metadata))
        with pytest.raises(SourceError, match=r"a\.zarr: "):
            open_source(tmp_path / "a.zarr")

    def test_folder_without_zarr_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="is a folder without Zarr metadata"):
            open_source(tmp_path)

    def test_zip_without_zarr_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "text").write_text("nothing")
        shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a")
        with pytest.raises(SourceError, match=r"b\.zip: this \.zip holds no Zarr"):
            open_source(tmp_path / "b.zip")

    def test_zip_cut_short_is_refused(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
        cut(tmp_path / "a.zarr.zip", 0.5)
        with pytest.raises(SourceError, match=r"a\.zarr\.zip: cannot be read as \.zip"):
            open_source(tmp_path / "a.zarr.zip")

    def test_zip_of_an_unknown_kind_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zarr.zip"
        zarr.create_array(tmp_path / "a.zarr", data=pixels(40, 50))
        shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
        content = path.read_bytes()
        version = content.index(b"PK\1\2") + 6  # that is needed to extract the first file
        path.write_bytes(content[:version] + b"\xff" + content[version + 1 :])
        with pytest.raises(SourceError, match=r"a\.zarr\.zip: cannot be read as \.zip"):
            open_source(path)

    @pytest.mark.parametrize("version", [2, 3])
    def test_damaged_metadata_are_refused(self, tmp_path: Path, version: Any) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(4, 4), zarr_format=version)
        cut(tmp_path / "a.zarr" / ("zarr.json" if version == 3 else ".zarray"), 0.5)
        with pytest.raises(SourceError, match=r"a\.zarr: cannot be read as Zarr"):
            open_source(tmp_path / "a.zarr")

    def test_damaged_chunk_is_an_error_when_read(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(64, 64), chunks=(64, 64))
        cut(tmp_path / "a.zarr" / "c" / "0" / "0", 0.5)
        with pytest.raises(SourceError, match=r"a\.zarr: a chunk of .* cannot be read"):
            all_of(open_source(tmp_path / "a.zarr"))

    @pytest.mark.parametrize("version", [2, 3])
    def test_empty_shards_and_chunks_are_errors_when_read(self, tmp_path: Path, version: Any) -> None:
        shards = {"shards": (32, 32)} if version == 3 else {}
        zarr.create_array(tmp_path / "a.zarr", data=pixels(64, 64), chunks=(16, 16), zarr_format=version, **shards)
        (tmp_path / "a.zarr" / ("c/1/0" if version == 3 else "2.0")).write_bytes(b"")
        source = open_source(tmp_path / "a.zarr")
        np.testing.assert_array_equal(source.data[slice(0, 32), slice(0, 64)], pixels(64, 64)[:32])
        with pytest.raises(SourceError, match="the Zarr is damaged"):
            all_of(source)

    def test_shards_that_were_never_written_have_the_fill_value(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(16, 16), shards=(32, 32), dtype="u2")
        assert_reads(open_source(tmp_path / "a.zarr"), np.zeros((64, 64), "u2"))

    def test_no_pixels_are_refused(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(0, 4), chunks=(4, 4), dtype="u2")
        with pytest.raises(SourceError, match=r"a\.zarr: has no pixels"):
            open_source(tmp_path / "a.zarr")

    def test_a_group_with_a_damaged_member_is_refused(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr").create_array("only", data=pixels(4, 4))
        cut(tmp_path / "a.zarr" / "only" / "zarr.json", 0.5)
        with pytest.raises(SourceError, match=r"a\.zarr: something in it cannot be read as Zarr"):
            open_source(tmp_path / "a.zarr")

    def test_another_level_is_refused(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(4, 4))
        with pytest.raises(SourceError, match="no level 1; choose 0"):
            open_source(tmp_path / "a.zarr", level=1)


class TestOMEZarr:
    """OME-Zarr 0.4 and 0.5: axes, units, composed transforms, channels."""

    @pytest.fixture(params=["0.4", "0.5"])
    def volume(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Write two levels of two channels with transforms of both kinds and both places."""
        image = pixels(2, 6, 40, 50)
        return write_ome_zarr(
            tmp_path / "cells.ome.zarr",
            [image, image[:, :, ::2, ::2]],
            CZYX,
            [
                [{"type": "scale", "scale": [1.0, 0.5, 0.1, 0.1]}],
                [
                    {"type": "scale", "scale": [1.0, 0.5, 0.2, 0.2]},
                    {"type": "translation", "translation": [0.0, 0.0, 0.05, 0.05]},
                ],
            ],
            version=request.param,
            transforms=[
                {"type": "scale", "scale": [1.0, 2.0, 2.0, 2.0]},
                {"type": "translation", "translation": [0.0, 0.0, 10.0, 20.0]},
            ],
            channels=[{"label": "DAPI", "color": "0000ff"}, {"label": "GFP", "color": "00FF00"}],
        )

    def test_pixels_of_any_level(self, volume: Path) -> None:
        assert_reads(open_source(volume), pixels(2, 6, 40, 50))
        assert_reads(open_source(volume, level=1), pixels(2, 6, 40, 50)[:, :, ::2, ::2])

    def test_axes_and_units(self, volume: Path) -> None:
        source = open_source(volume)
        assert source.axes == "czyx"
        assert source.units == {"z": "micrometer", "y": "micrometer", "x": "micrometer"}

    def test_transforms_of_the_dataset_come_first(self, volume: Path) -> None:
        source = open_source(volume, level=1)
        assert source.pixel_size == {"z": 1.0, "y": 0.4, "x": 0.4}
        assert source.translation == pytest.approx({"z": 0.0, "y": 10.1, "x": 20.1})

    def test_channels(self, volume: Path) -> None:
        source = open_source(volume)
        assert source.channel_names == ("DAPI", "GFP")
        assert source.channel_colors == ("0000FF", "00FF00")

    def test_kind_says_the_version(self, volume: Path) -> None:
        assert open_source(volume).kind in ("OME-Zarr 0.4", "OME-Zarr 0.5")

    def test_a_level_that_is_not_there_is_refused(self, volume: Path) -> None:
        with pytest.raises(SourceError, match="no level 2; choose 0 to 1"):
            open_source(volume, level=2)

    @pytest.mark.parametrize(
        "channels",
        [
            [{"label": "Red"}, {"label": "Green"}, {"label": "Blue"}],
            [{"label": "r"}, {"label": "g"}, {"label": "b"}],
            [{"color": "FF0000"}, {"color": "00FF00"}, {"color": "0000FF"}],
            [{"label": f"Channel {i}", "color": color} for i, color in enumerate(("FF0000", "00FF00", "0000FF"))],
        ],
    )
    def test_red_green_blue_are_a_colour_image(self, tmp_path: Path, channels: list[dict[str, str]]) -> None:
        image = pixels(3, 20, 30, dtype="u1")
        source = open_source(write_ome_zarr(tmp_path / "a.zarr", [image], CYX, [unit_scale(3)], channels=channels))
        assert source.axes == "syx"
        assert source.pixel_size == {"y": 1.0, "x": 1.0}
        assert (source.channel_names, source.channel_colors) == (None, None)
        assert_reads(source, image)

    def test_red_green_blue_and_alpha_are_a_colour_image(self, tmp_path: Path) -> None:
        channels = [{"label": label} for label in ("Red", "Green", "Blue", "Alpha")]
        image = pixels(4, 20, 30, dtype="u1")
        source = open_source(write_ome_zarr(tmp_path / "a.zarr", [image], CYX, [unit_scale(3)], channels=channels))
        assert source.axes == "syx"

    @pytest.mark.parametrize(
        "channels",
        [
            [{"label": "blue"}, {"label": "green"}, {"label": "red"}],
            [
                {"label": "Cy5", "color": "FF0000"},
                {"label": "GFP", "color": "00FF00"},
                {"label": "DAPI", "color": "0000FF"},
            ],
            [{"label": "red"}, {"label": "green"}, {"label": "blue"}, {"label": "alpha"}],
        ],
        ids=["another-order", "stains", "too-many"],
    )
    def test_other_channels_stay_independent(self, tmp_path: Path, channels: list[dict[str, str]]) -> None:
        image = pixels(3, 20, 30, dtype="u1")
        source = open_source(write_ome_zarr(tmp_path / "a.zarr", [image], CYX, [unit_scale(3)], channels=channels))
        assert source.axes == "cyx"

    @pytest.mark.parametrize("size", [0.0, -0.5, float("nan"), float("inf")])
    def test_a_pixel_size_that_is_no_length_is_unknown(self, tmp_path: Path, size: float) -> None:
        transforms = [{"type": "scale", "scale": [1.0, 1.0, size, 0.5]}]
        source = open_source(write_ome_zarr(tmp_path / "a.zarr", [pixels(1, 1, 20, 30)], CZYX, [transforms]))
        assert source.pixel_size == {"z": 1.0, "y": 1.0, "x": 0.5}
        assert source.units == {"z": "micrometer", "y": None, "x": "micrometer"}

    def test_old_levels_without_transforms_lie_on_the_full_image(self, tmp_path: Path) -> None:
        image = pixels(2, 20, 30)
        path = write_ome_zarr(tmp_path / "a.zarr", [image, image[:, ::2, ::2]], CYX, [[], []], version="0.3")
        source = open_source(path, level=1)
        assert source.pixel_size == {"y": 2.0, "x": 2.0}
        assert source.translation == {"y": 0.5, "x": 0.5}

    def test_an_image_without_resolutions_is_refused(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", attributes={"ome": {"multiscales": [{"axes": CYX, "datasets": []}]}})
        with pytest.raises(SourceError, match=r"a\.zarr: this OME-Zarr holds no image"):
            open_source(tmp_path / "a.zarr")

    def test_names_that_do_not_fit_the_channels_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zarr"
        write_ome_zarr(path, [pixels(2, 20, 30)], CYX, [unit_scale(3)], channels=[{"label": "DAPI"}])
        assert open_source(path).channel_names is None

    def test_zip(self, tmp_path: Path) -> None:
        image = pixels(2, 20, 30)
        write_ome_zarr(tmp_path / "a.ome.zarr", [image], CYX, [unit_scale(3)])
        shutil.make_archive(str(tmp_path / "b.ome.zarr"), "zip", tmp_path / "a.ome.zarr")
        source = open_source(tmp_path / "b.ome.zarr.zip")
        assert source.name == "b"
        assert_reads(source, image)

    def test_bioformats2raw_opens_its_first_image(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
        for series in (0, 1):
            path = tmp_path / "a.zarr" / str(series)
            write_ome_zarr(path, [pixels(2, 20, 30, seed=series)], CYX, [unit_scale(3)], version="0.4")
        assert_reads(open_source(tmp_path / "a.zarr"), pixels(2, 20, 30))
        assert_reads(open_source(tmp_path / "a.zarr", series=1), pixels(2, 20, 30, seed=1))
        with pytest.raises(SourceError, match="nothing is at '2' in this Zarr"):
            open_source(tmp_path / "a.zarr", series=2)

    def test_plates_are_refused(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "plate": {}}})
        with pytest.raises(SourceError, match="is a plate of many images; give one of them"):
            open_source(tmp_path / "a.zarr")

    @pytest.mark.parametrize(
        "ome",
        [
            {"multiscales": [{"datasets": [{"path": "0"}]}]},
            {"multiscales": [{"axes": CYX}]},
            {"multiscales": [{"axes": CYX, "datasets": [{}]}]},
            {"multiscales": "nonsense"},
            {"multiscales": []},
            {"multiscales": [{"axes": CYX, "datasets": [{"path": "1"}]}]},
            {"multiscales": [{"axes": CYX[1:], "datasets": [{"path": "0"}]}]},
            {"multiscales": [{"axes": CYX, "datasets": [{"path": "0"}], "coordinateTransformations": [{}]}]},
            {
                "multiscales": [
                    {
                        "axes": CYX,
                        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 2]}]}],
                    }
                ]
            },
        ],
    )
    def test_damaged_metadata_are_refused(self, tmp_path: Path, ome: dict[str, Any]) -> None:
        group = zarr.open_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", **ome}})
        group.create_array("0", data=pixels(2, 20, 30))
        with pytest.raises(SourceError, match=r"a\.zarr: "):
            open_source(tmp_path / "a.zarr")


class TestEveryFormat:
    """What holds whatever the format is."""

    @pytest.fixture(params=["mapped.tif", "tiled.tif", "a.png", "a.npy", "a.zarr", "a.zarr.zip"])
    def any_path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Write the same image in each format."""
        image, name = pixels(60, 70), str(request.param)
        if name == "mapped.tif":
            tifffile.imwrite(tmp_path / name, image)
        elif name == "tiled.tif":
            tifffile.imwrite(tmp_path / name, image, tile=(16, 16), compression="zstd")
        elif name == "a.png":
            Image.fromarray(image).save(tmp_path / name)
        elif name == "a.npy":
            np.save(tmp_path / name, image)
        else:
            zarr.create_array(tmp_path / "a.zarr", data=image, chunks=(16, 16))
        if name == "a.zarr.zip":
            shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
        return tmp_path / name

    @pytest.mark.skipif(sys.platform == "win32", reason="files in use cannot be cut there")
    def test_cut_short_after_opening(self, any_path: Path) -> None:
        source = open_source(any_path)
        for file in [any_path] if any_path.is_file() else any_path.glob("c/*/*"):
            cut(file, 0.2)
        with pytest.raises(SourceError):
            all_of(source)

    def test_several_threads_read_at_once(self, any_path: Path) -> None:
        image, source = pixels(60, 70), open_source(any_path)
        windows = [(slice(y, y + 9), slice(x, x + 9)) for y in range(0, 51, 3) for x in range(0, 61, 5)]
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(lambda window: np.asarray(source.data[window]), windows))
        for window, values in zip(windows, read, strict=True):
            np.testing.assert_array_equal(values, image[window])

    def test_pickles_by_path(self, any_path: Path) -> None:
        pickled = pickle.dumps(open_source(any_path))
        assert len(pickled) < 4000
        assert_reads(pickle.loads(pickled), pixels(60, 70))

    def test_empty_windows_are_empty(self, any_path: Path) -> None:
        assert open_source(any_path).data[slice(5, 5), slice(0, 9)].shape == (0, 9)

    def test_windows_have_values_of_their_own(self, any_path: Path) -> None:
        source = open_source(any_path)
        values = source.data[slice(0, 9), slice(0, 9)]
        values[...] = 0
        assert_reads(source, pixels(60, 70))

    @pytest.mark.parametrize("window", [(slice(0, 9, 2), slice(0, 9)), (0, slice(0, 9)), (slice(0, 1),) * 3])
    def test_only_slices_with_step_one(self, any_path: Path, window: Any) -> None:
        with pytest.raises(IndexError, match="tuple of slices with step 1"):
            open_source(any_path).data[window]

    def test_numpy_takes_all_of_it(self, any_path: Path) -> None:
        np.testing.assert_array_equal(np.asarray(open_source(any_path).data), pixels(60, 70))

    def test_another_series_or_level_is_refused(self, any_path: Path) -> None:
        for choice in ({"series": 1}, {"level": 1}):
            with pytest.raises(SourceError, match="choose 0"):
                open_source(any_path, **choice)

    def test_a_relative_path_is_made_absolute(self, any_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(any_path.parent)
        assert open_source(any_path.name).path == str(any_path)


class TestOpenStores:
    """`as_array` finds the full-resolution array in an open Zarr store."""

    @pytest.mark.parametrize("storage", [{}, {"tile": (32, 32)}, {"tile": (32, 32), "compression": "zstd"}])
    def test_tiff(self, tmp_path: Path, storage: dict[str, Any]) -> None:
        image = pixels(3, 70, 90)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **storage)
        with tifffile.imread(tmp_path / "a.tif", aszarr=True) as store:
            array = as_array(store)
            assert isinstance(array, zarr.Array)
            np.testing.assert_array_equal(array[...], image)

    def test_tiff_pyramid(self, tmp_path: Path) -> None:
        image = pixels(128, 128)
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            writer.write(image, subifds=1, tile=(32, 32), metadata={"axes": "YX"})
            writer.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
        with tifffile.imread(tmp_path / "a.ome.tif", aszarr=True) as store:
            np.testing.assert_array_equal(as_array(store)[...], image)
            np.testing.assert_array_equal(as_array(zarr.open_group(store, mode="r"))[...], image)

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_ome_zarr(self, tmp_path: Path, version: str) -> None:
        image = pixels(2, 20, 30)
        levels = [image, image[:, ::2, ::2]]
        path = write_ome_zarr(tmp_path / "a.zarr", levels, CYX, [unit_scale(3)] * 2, version=version)
        np.testing.assert_array_equal(as_array(zarr.open_group(path, mode="r"))[...], image)

    def test_group_of_levels_without_metadata(self) -> None:
        group = zarr.create_group({})
        for level in (2, 1, 0):
            group.create_array(str(level), data=pixels(64 >> level, 64 >> level))
        np.testing.assert_array_equal(as_array(group)[...], pixels(64, 64))

    def test_group_of_one_array(self) -> None:
        group = zarr.create_group({})
        group.create_array("only", data=pixels(20, 30))
        np.testing.assert_array_equal(as_array(group)[...], pixels(20, 30))

    def test_an_array_is_given_back(self) -> None:
        array = zarr.create_array({}, data=pixels(20, 30))
        assert as_array(array) is array

    def test_a_folder_that_was_opened_as_a_store(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(20, 30))
        array = as_array(zarr.storage.LocalStore(tmp_path / "a.zarr", read_only=True))
        np.testing.assert_array_equal(array[...], pixels(20, 30))

    @pytest.mark.parametrize("shapes", [[(20, 30), (20, 30)], [(10, 15), (20, 30)]])
    def test_numbered_arrays_that_do_not_shrink_are_refused(self, shapes: list[tuple[int, ...]]) -> None:
        group = zarr.create_group({})
        for number, shape in enumerate(shapes):
            group.create_array(str(number), data=pixels(*shape))
        with pytest.raises(SourceError, match=r"this Group: this Zarr group holds several arrays \(0, 1\)"):
            as_array(group)

    @pytest.mark.parametrize(
        ("ome", "message"),
        [
            ({}, "this Zarr group holds no array"),
            ({"plate": {}}, "is a plate of many images"),
            ({"multiscales": []}, "holds no image"),
            ({"multiscales": [{}]}, "metadata are damaged"),
            ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "nothing is at '0'"),
        ],
    )
    def test_groups_without_an_image_are_refused(self, ome: dict[str, Any], message: str) -> None:
        with pytest.raises(SourceError, match=f"this Group: .*{message}"):
            as_array(zarr.create_group({}, attributes={"ome": ome}))

    def test_a_level_that_is_a_group_is_refused(self) -> None:
        group = zarr.create_group({}, attributes={"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}})
        group.create_group("0")
        with pytest.raises(SourceError, match="this Group: its first level is no array"):
            as_array(group)

    def test_an_empty_store_is_refused(self) -> None:
        with pytest.raises(SourceError, match="this MemoryStore: cannot be read as Zarr"):
            as_array(zarr.storage.MemoryStore())

    @pytest.mark.parametrize("given", ["a.zarr", Path("a.zarr"), np.zeros((4, 4)), None, {}])
    def test_anything_else_is_refused(self, given: object) -> None:
        with pytest.raises(SourceError, match=f"this {type(given).__name__}: is no Zarr store, group or array"):
            as_array(given)

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(SourceError, match="this Array: holds complex64 values"):
            as_array(zarr.create_array({}, data=np.ones((4, 4), "c8")))


class TestFilesThatAreNoImage:
    """Each problem is one clear sentence that names the file."""

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"a\.tif: there is no such file"):
            open_source(tmp_path / "a.tif")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").touch()
        with pytest.raises(SourceError, match=r"a\.tif: the file is empty"):
            open_source(tmp_path / "a.tif")

    def test_unknown(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_bytes(bytes(range(256)))
        with pytest.raises(SourceError, match=r"a\.xyz: the content is no image of a known format"):
            open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("cells.ome.tif", "cells"),
        ("cells.ome.tiff", "cells"),
        ("cells.tif", "cells"),
        ("cells.png", "cells"),
        ("cells.zarr.zip", "cells"),
        ("cells.2x.npy", "cells.2x"),
        (".tif", ".tif"),
    ],
)
def test_the_name_has_no_suffixes(file_name: str, name: str) -> None:
    source = ImageSource(np.zeros((1, 1)), "yx", {}, {}, {}, None, None, f"/nowhere/{file_name}", "")
    assert source.name == name


@pytest.mark.parametrize(
    ("written", "long_name"),
    [
        *((name, "micrometer") for name in ("um", "µm", "μm", "\\u00B5m", "micron", "microns", "Micrometre")),
        *((name, "nanometer") for name in ("nm", "nanometers")),
        *(("mm", "millimeter"), ("cm", "centimeter"), ("m", "meter"), ("km", "kilometer"), ("Å", "angstrom")),
        *((name, "inch") for name in ("inch", "inches", "in", '"')),
        *((name, "second") for name in ("s", "sec", "seconds", "second")),
        *(("ms", "millisecond"), ("msec", "millisecond"), ("µs", "microsecond"), ("min", "minute"), ("h", "hour")),
        *((name, None) for name in ("pixel", "", "reference frame", None, 3)),
    ],
)
def test_units_have_long_names(written: object, long_name: str | None) -> None:
    from napari_mgbpv2.sources.image import long_unit

    assert long_unit(written) == long_name


def test_importing_loads_no_format_library() -> None:
    check = "import sys, napari_mgbpv2.sources; print({'zarr', 'tifffile', 'PIL', 'torch', 'dask'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
