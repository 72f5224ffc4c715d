"""What `open_source` promises of TIFF files of every flavour."""

from __future__ import annotations

import itertools
import pickle
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest
import tifffile
from PIL import Image

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source
from source_files import Array, all_of, assert_reads, cut, pixels


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

    @pytest.mark.parametrize("shape", [(1, 1), (3, 1, 1)])
    def test_single_pixels(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        image = np.arange(1, 1 + np.prod(shape), dtype="u2").reshape(shape)
        tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", photometric="minisblack")
        np.testing.assert_array_equal(np.asarray(all_of(open_source(tmp_path / "a.tif"))).reshape(shape), image)

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

    @pytest.mark.parametrize(
        "codec", ["packbits", "lzma", "jpeg2000", "jpegxl", "jpegxr", "webp", "lerc", "png", "deflate", "zstd", "lzw"]
    )
    def test_codecs(self, tmp_path: Path, codec: str) -> None:
        image = pixels(48, 64, 3, dtype="u1")
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(16, 16), compression=codec)
        assert_reads(open_source(tmp_path / "a.tif"), tifffile.imread(tmp_path / "a.tif"))

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
    def test_predictor_of_floats(self, tmp_path: Path, dtype: str) -> None:
        image = pixels(50, 60, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", image, predictor=3, compression="zlib", rowsperstrip=8)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_pages_that_do_not_follow_each_other(self, tmp_path: Path) -> None:
        image = pixels(4, 40, 50)
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for page in image:
                writer.write(page, contiguous=False, metadata=None)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_a_stack_of_colours_by_pillow(self, tmp_path: Path) -> None:
        image = pixels(3, 40, 50, 3, dtype="u1")
        first, *others = map(Image.fromarray, image)
        first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression="tiff_deflate")
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "zyxs"
        assert_reads(source, image)

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
        monkeypatch.setattr("napari_mgbpv2.io.readers.tiff.pixels._CACHE_BYTES", 4 * 16 * 16 * 2)
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 64), tile=(16, 16), compression="zstd")
        source = open_source(tmp_path / "a.tif")
        decoded = count_decoded(monkeypatch)
        all_of(source)
        source.data[slice(48, 64), slice(0, 64)]  # the last four are still there
        assert len(decoded) == 16
        source.data[slice(0, 16), slice(0, 16)]
        assert len(decoded) == 17

    def test_a_strip_that_is_left_out_takes_no_memory(self, tmp_path: Path) -> None:
        """A file of some hundred bytes may leave out one of 512 MB."""
        tifffile.imwrite(tmp_path / "a.tif", pixels(20, 30), metadata=None, compression="zlib")
        side = ("ImageWidth", "ImageLength", "RowsPerStrip")
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
            for name, value in (dict.fromkeys(side, 16_000) | {"StripOffsets": 0, "StripByteCounts": 0}).items():
                tif.pages[0].tags[name].overwrite(value)
        data = open_source(tmp_path / "a.tif").data
        tracemalloc.start()
        corner = data[:2, -3:]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert corner.tolist() == [[0, 0, 0]] * 2
        assert peak < 1e6

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


class TestTiffValues:
    """What the numbers mean: black and white, palettes, missing pixels."""

    @pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}, {"tile": (16, 16), "byteorder": ">"}])
    @pytest.mark.parametrize("dtype", ["u1", "u2"])
    def test_white_that_is_zero_becomes_the_highest(self, tmp_path: Path, dtype: str, storage: dict[str, Any]) -> None:
        image = pixels(40, 50, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite", **storage)
        assert_reads(open_source(tmp_path / "a.tif"), np.iinfo(dtype).max - image)

    def test_white_of_12_bits(self, tmp_path: Path) -> None:
        image = pixels(40, 50) // 16
        options: dict[str, Any] = {"photometric": "miniswhite", "compression": "jpeg2000", "bitspersample": 12}
        tifffile.imwrite(tmp_path / "a.tif", image, **options)
        assert_reads(open_source(tmp_path / "a.tif"), 4095 - image)

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
    def test_palettes_become_colours(self, tmp_path: Path, compression: str) -> None:
        picture = Image.fromarray(pixels(40, 50, 3, dtype="u1")).quantize(16)
        picture.save(tmp_path / "a.tif", compression=compression)
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "yxs"
        assert_reads(source, np.asarray(picture.convert("RGB")))
        assert_reads(pickle.loads(pickle.dumps(source)), np.asarray(picture.convert("RGB")))

    def test_a_stack_of_palettes(self, tmp_path: Path) -> None:
        image, colours = pixels(3, 40, 50, dtype="u1"), pixels(3, 256)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="palette", colormap=colours)
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "zyxs"
        assert_reads(source, (colours.T // 256).astype("u1")[image])

    def test_a_lookup_table_of_imagej_is_no_colour(self, tmp_path: Path) -> None:
        image = pixels(40, 50, dtype="u1")
        tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, colormap=pixels(3, 256))
        assert_reads(open_source(tmp_path / "a.tif"), image)

    @pytest.mark.parametrize(("mode", "name"), [("CMYK", "CMYK"), ("LAB", "CIELAB"), ("YCbCr", "YCbCr without JPEG")])
    def test_other_colours_are_refused(self, tmp_path: Path, mode: str, name: str) -> None:
        Image.fromarray(pixels(40, 50, 3, dtype="u1")).convert(mode).save(tmp_path / "a.tif")
        with pytest.raises(SourceError, match=rf"a\.tif: its colours are {name}; save it as RGB"):
            open_source(tmp_path / "a.tif")

    @pytest.mark.parametrize("storage", [{}, {"compression": "zlib", "predictor": 3}, {"tile": (16, 16)}])
    @pytest.mark.parametrize(
        ("dtype", "nodata", "said"),
        [("f4", np.finfo("f4").min, "-3.4028234663852886e+38"), ("f4", -3.4e38, "-3.4e+38"), ("f8", -9999.0, "-9999 ")],
    )
    def test_missing_pixels_of_maps_are_nan(
        self, tmp_path: Path, dtype: str, nodata: float, said: str, storage: dict[str, Any]
    ) -> None:
        image = pixels(40, 50, dtype=dtype)
        image[3:9, 20:30] = nodata
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[nodata_tag(said)], metadata=None, **storage)
        image[3:9, 20:30] = np.nan
        assert_reads(open_source(tmp_path / "a.tif"), image)
        assert_reads(pickle.loads(pickle.dumps(open_source(tmp_path / "a.tif"))), image)

    @pytest.mark.parametrize("said", ["none", "nan", "1e300", ""])
    def test_what_is_no_value_of_the_type_is_no_missing_pixel(self, tmp_path: Path, said: str) -> None:
        image = pixels(40, 50, dtype="f4")
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[nodata_tag(said)], metadata=None)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_integers_have_no_nan_and_stay(self, tmp_path: Path) -> None:
        image = pixels(40, 50, dtype="i2")
        image[3] = -9999
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[nodata_tag("-9999")], metadata=None)
        assert_reads(open_source(tmp_path / "a.tif"), image)

    def test_tiles_that_a_map_leaves_out_are_missing(self, tmp_path: Path) -> None:
        blocks = itertools.chain([np.ones((16, 16), "f4").tobytes()], itertools.repeat(b"", 3))
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            tags = [nodata_tag("-9999")]
            writer.write(blocks, shape=(32, 32), dtype="f4", tile=(16, 16), metadata=None, extratags=tags)
        expected = np.full((32, 32), np.nan, "f4")
        expected[:16, :16] = 1
        assert_reads(open_source(tmp_path / "a.tif"), expected)


def nodata_tag(said: str) -> tuple[int, str, int, str, bool]:
    """Return GDAL's tag for the value of missing pixels, as tifffile takes it."""
    return 42113, "s", 0, said, True


class TestPieces:
    """What is decoded at a time, which tells whether windows are cheap."""

    @pytest.mark.parametrize(
        ("shape", "storage", "piece"),
        [
            ((3, 40, 50), {}, (1, 1, 1)),
            ((3, 40, 50), {"tile": (16, 32), "compression": "zlib"}, (1, 16, 32)),
            ((3, 40, 50), {"rowsperstrip": 8, "compression": "zlib"}, (1, 8, 50)),
            ((40, 50), {"compression": "zlib"}, (40, 50)),
            ((20, 40, 50), {"tile": (16, 16, 32), "compression": "zlib"}, (16, 16, 32)),
            ((40, 50, 3), {"tile": (16, 16), "photometric": "rgb"}, (16, 16, 3)),
            ((3, 40, 50), {"tile": (16, 16), "photometric": "rgb", "planarconfig": "separate"}, (1, 16, 16)),
            ((40, 50), {"tile": (16, 16), "photometric": "miniswhite"}, (16, 16)),
        ],
    )
    def test_tiff(
        self, tmp_path: Path, shape: tuple[int, ...], storage: dict[str, Any], piece: tuple[int, ...]
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(*shape, dtype="u1"), **{"photometric": "minisblack", **storage})
        assert open_source(tmp_path / "a.tif").data.chunk_shape == piece


MULTIFILE_OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="THIS"><Image ID="Image:0"><Pixels ID="Pixels:0"
DimensionOrder="XYZCT" Type="uint16" SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="one.ome.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="two.ome.tif">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the index of each segment is appended when it is decoded."""
    from napari_mgbpv2.io.readers.tiff.pixels import TiffArray

    decoded: list[int] = []
    decode = TiffArray._decode

    def counting(self: TiffArray, number: int, page: Any, index: int, *how: Any) -> Array:
        decoded.append(index)
        return decode(self, number, page, index, *how)

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

    def test_imagej_colours(self, tmp_path: Path) -> None:
        image = pixels(2, 3, 32, 40, 3, dtype="u1")
        tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "TZYXS"})
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "tzyxs"
        assert_reads(source, image)

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

    @pytest.mark.parametrize(
        ("model", "unit", "size", "name"),
        [
            (1, 9001, 0.5, "meter"),
            (1, 9002, 0.5, "foot"),
            (1, 9003, 0.5 * 1200 / 3937, "meter"),
            (1, 0, 0.5, None),
            (2, 0, 0.5, None),
        ],
    )
    def test_maps_say_what_a_pixel_is_on_the_ground(
        self, tmp_path: Path, model: int, unit: int, size: float, name: str | None
    ) -> None:
        keys = (1, 1, 0, 2, 1024, 0, 1, model, 3076, 0, 1, unit)
        corner = (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0)
        tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, corner, True), (34735, "H", 12, keys, True)]
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 40), extratags=tags, metadata=None)
        source = open_source(tmp_path / "a.tif")
        assert source.pixel_size == {"y": size, "x": size}
        assert source.units == {"y": name, "x": name}

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

    def test_more_unknown_axes_are_refused_unless_somebody_says_them(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 2, 2, 32, 40), photometric="minisblack")
        with pytest.raises(SourceError, match=r"a\.tif: has the axes QQQYX.*; say what they are with axes="):
            open_source(tmp_path / "a.tif")
        source = open_source(tmp_path / "a.tif", axes="tczyx")
        assert source.axes == "tczyx"
        assert_reads(source, pixels(2, 2, 2, 32, 40))

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

    def test_pages_of_different_sizes_are_images_of_their_own(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
            for size in (40, 48, 56):
                writer.write(pixels(size, 50), metadata=None)
        for series, size in enumerate((40, 48, 56)):
            assert_reads(open_source(tmp_path / "b.tif", series=series), pixels(size, 50))

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
        with pytest.raises(SourceError, match=r"a\.tif: (has been changed since it was opened|the file is cut short)"):
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
        with pytest.raises(SourceError, match="1 of the 2 planes that its metadata announce are missing"):
            open_source(tmp_path / "one.ome.tif")

    def test_complex_pixels_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), "c8"))
        with pytest.raises(SourceError, match="holds complex64 values"):
            open_source(tmp_path / "a.tif")
