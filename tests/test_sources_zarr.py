"""What `open_source` and `as_array` promise of Zarr and OME-Zarr."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import tifffile
import xarray
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import as_array, open_source
from source_files import CYX, CZYX, all_of, assert_reads, cut, pixels, unit_scale, write_ome_zarr

YX = CYX[1:]


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

    @pytest.mark.parametrize("separator", [".", "/"])
    def test_storage_of_version_2(self, tmp_path: Path, separator: Any) -> None:
        array = zarr.create_array(
            tmp_path / "a.zarr",
            shape=(40, 50),
            chunks=(16, 16),
            dtype="u2",
            zarr_format=2,
            order="F",
            chunk_key_encoding={"name": "v2", "separator": separator},
            filters=[numcodecs.Delta(dtype="<u2")],
            compressors=numcodecs.Blosc("lz4"),
        )
        array[...] = pixels(40, 50)
        assert_reads(open_source(tmp_path / "a.zarr"), pixels(40, 50))

    def test_storage_of_version_3(self, tmp_path: Path) -> None:
        array = zarr.create_array(
            tmp_path / "a.zarr",
            shape=(40, 50),
            chunks=(16, 16),
            dtype="u2",
            filters=[TransposeCodec(order=(1, 0))],
            serializer=BytesCodec(endian="big"),
            compressors=[GzipCodec(), Crc32cCodec()],
        )
        array[...] = pixels(40, 50)
        assert_reads(open_source(tmp_path / "a.zarr"), pixels(40, 50))

    def test_big_endian_reads_as_native(self, tmp_path: Path) -> None:
        image = pixels(40, 50)
        zarr.create_array(tmp_path / "a.zarr", data=image.astype(">u2"), zarr_format=2)
        assert_reads(open_source(tmp_path / "a.zarr"), image)

    @pytest.mark.parametrize("name", ["_FillValue", "missing_value", "nodata"])
    def test_the_value_of_missing_pixels_is_read_as_nan(self, tmp_path: Path, name: str) -> None:
        image = pixels(40, 50, dtype="f4")
        image[3:9, 20:30] = -9999
        zarr.create_array(tmp_path / "a.zarr", data=image, attributes={name: -9999.0})
        image[3:9, 20:30] = np.nan
        assert_reads(open_source(tmp_path / "a.zarr"), image)
        assert_reads(pickle.loads(pickle.dumps(open_source(tmp_path / "a.zarr"))), image)

    @pytest.mark.parametrize("said", ["none", True, None, [1.0]])
    def test_what_is_no_number_marks_no_missing_pixel(self, tmp_path: Path, said: Any) -> None:
        image = np.ones((40, 50), "f4")
        zarr.create_array(tmp_path / "a.zarr", data=image, attributes={"nodata": said})
        assert_reads(open_source(tmp_path / "a.zarr"), image)

    def test_chunks_are_decoded_at_a_time_not_shards(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(8, 16), shards=(32, 32), dtype="u2")
        assert open_source(tmp_path / "a.zarr").data.chunk_shape == (8, 16)

    def test_axes_that_cannot_be_told_can_be_said(self, tmp_path: Path) -> None:
        zarr.create_array(tmp_path / "a.zarr", data=pixels(1, 2, 3, 1, 5, 6))
        with pytest.raises(SourceError, match=r"a\.zarr: the image has 6 axes"):
            open_source(tmp_path / "a.zarr")
        assert_reads(open_source(tmp_path / "a.zarr", axes="qtczyx"), pixels(1, 2, 3, 1, 5, 6))

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
        with pytest.raises(SourceError, match=r"b\.zip: this \.zip does not hold a Zarr"):
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

    @pytest.mark.parametrize("size", [0.0, -float("inf"), float("nan"), float("inf")])
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

    def test_unknown_axes_are_refused_unless_somebody_says_them(self, tmp_path: Path) -> None:
        axes = [{"name": "angle", "type": "other"}, *CYX[1:]]
        scale = [[{"type": "scale", "scale": [1.0, 0.5, 0.5]}]]
        write_ome_zarr(tmp_path / "a.zarr", [pixels(3, 20, 30)], axes, scale)
        with pytest.raises(SourceError, match=r"a\.zarr: has the axes \['angle', 'y', 'x'\].*; say what they are"):
            open_source(tmp_path / "a.zarr")
        source = open_source(tmp_path / "a.zarr", axes="tyx")
        assert (source.axes, source.pixel_size) == ("tyx", {"t": 1.0, "y": 0.5, "x": 0.5})

    def test_an_image_without_resolutions_is_refused(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr", attributes={"ome": {"multiscales": [{"axes": CYX, "datasets": []}]}})
        with pytest.raises(SourceError, match=r"a\.zarr: this OME-Zarr does not hold an image"):
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
            ({"multiscales": []}, "does not hold an image"),
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


class TestXarray:
    """Zarrs as xarray writes them: names, coordinates, and values that are packed by the CF conventions."""

    VALUES = np.where(np.arange(40)[:, None] < 5, np.nan, np.arange(50) / 4 + 273.25).astype("f4")

    def written(
        self, folder: Path, version: Any = 2, encoding: dict[str, Any] | None = None, **coordinates: Any
    ) -> Path:
        data = xarray.Dataset({"image": (("lat", "lon"), self.VALUES)}, coords=coordinates)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about consolidated metadata
            data.to_zarr(folder / "a.zarr", encoding={"image": encoding or {}}, zarr_format=version)
        return folder / "a.zarr"

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("stored", ["i2", "u1", "i4"])
    def test_packed_values_are_read_as_floats_and_said(self, tmp_path: Path, version: Any, stored: str) -> None:
        fill = int(np.iinfo(stored).max)
        packing = {"dtype": stored, "scale_factor": 0.25, "add_offset": 273.15, "_FillValue": fill}
        source = open_source(self.written(tmp_path, version, packing))
        assert source.data.dtype == ("f8" if stored == "i4" else "f4")
        np.testing.assert_allclose(np.asarray(source.data), self.VALUES, atol=0.13)
        np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(source)).data), np.asarray(source.data))
        assert any("are packed (scale_factor 0.25, add_offset 273.15)" in note for note in source.notes)

    @pytest.mark.parametrize(
        "attributes", [{"scale_factor": 0}, {"add_offset": "much"}, {"scale_factor": float("inf")}]
    )
    def test_a_packing_that_is_no_line_is_refused(self, tmp_path: Path, attributes: dict[str, Any]) -> None:
        array = zarr.create_array(tmp_path / "a.zarr", data=pixels(4, 5), zarr_format=2)
        array.attrs.update(attributes)
        with pytest.raises(SourceError, match=r"a\.zarr: its values are packed by .*correct these attributes"):
            open_source(tmp_path / "a.zarr")

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("stored", ["i2", "f4"])
    def test_the_fill_value_that_xarray_writes_is_missing(self, tmp_path: Path, version: Any, stored: str) -> None:
        data = open_source(self.written(tmp_path, version, {"dtype": stored, "_FillValue": -9999})).data
        if stored == "f4":
            np.testing.assert_array_equal(np.asarray(data), self.VALUES)
        else:
            assert data.nodata == -9999

    def test_a_fill_value_of_zero_is_a_value(self, tmp_path: Path) -> None:
        attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["y", "x"]}
        zarr.create_array(tmp_path / "a.zarr", data=pixels(4, 5), zarr_format=2, fill_value=0, attributes=attributes)
        assert open_source(tmp_path / "a.zarr").data.nodata is None

    @pytest.mark.parametrize("member", ["", "image"], ids=["dataset", "variable"])
    def test_even_coordinates_are_pixel_size_and_position(self, tmp_path: Path, member: str) -> None:
        lon = ("lon", 100 + 0.25 * np.arange(50, dtype="f4"), {"units": "um"})
        lat = ("lat", 60 - 0.5 * np.arange(40), {"units": "degrees_north"})
        source = open_source(self.written(tmp_path, lon=lon, lat=lat) / member)
        assert source.axes == "yx"
        assert source.pixel_size == pytest.approx({"y": 0.5, "x": 0.25})
        assert source.translation == pytest.approx({"y": -60, "x": 100})
        assert source.units == {"y": None, "x": "micrometer"}
        assert any("positions along y are minus them" in note for note in source.notes)
        assert any("lat (degrees_north) is not carried" in note for note in source.notes)

    def test_uneven_coordinates_are_not_carried_and_said(self, tmp_path: Path) -> None:
        source = open_source(self.written(tmp_path, lon=("lon", np.arange(50.0) ** 2)))
        assert source.pixel_size == {"y": 1, "x": 1}
        assert "coordinates lon are not evenly spaced" in source.notes[0]

    def test_of_a_dataset_the_image_is_taken_and_not_what_it_is_placed_by(self, tmp_path: Path) -> None:
        grid = np.zeros((40, 50))
        two = ("lat", "lon")
        path = self.written(tmp_path, latitudes=(two, grid), longitudes=(two, grid), spatial_ref=0)
        assert_reads(open_source(path), self.VALUES)


class TestLabels:
    """Label images: numbers of objects, which no network may mix."""

    def written(self, folder: Path) -> Path:
        write_ome_zarr(folder / "a.ome.zarr", [pixels(40, 50)], YX, [unit_scale(2)])
        labels = zarr.open_group(folder / "a.ome.zarr").create_group("labels")
        labels.attrs["ome"] = {"version": "0.5", "labels": ["nuclei"]}
        write_ome_zarr(folder / "a.ome.zarr" / "labels" / "nuclei", [pixels(40, 50)], YX, [unit_scale(2)])
        nuclei = zarr.open_group(folder / "a.ome.zarr" / "labels" / "nuclei")
        nuclei.attrs["ome"] = {**nuclei.attrs["ome"], "image-label": {}}
        return folder / "a.ome.zarr"

    @pytest.mark.parametrize("member", ["labels", "labels/nuclei", "labels/nuclei/0"])
    def test_labels_are_refused(self, tmp_path: Path, member: str) -> None:
        with pytest.raises(SourceError, match=r"label image.*the numbers of objects, which a network would mix"):
            open_source(self.written(tmp_path) / member)

    def test_an_open_group_of_labels_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="is a label image"):
            as_array(zarr.open_group(self.written(tmp_path) / "labels" / "nuclei", mode="r"))

    def test_the_image_that_they_are_of_is_read(self, tmp_path: Path) -> None:
        assert_reads(open_source(self.written(tmp_path)), pixels(40, 50))


class TestCollections:
    """Groups of several images."""

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_series_are_those_that_a_collection_lists(self, tmp_path: Path, version: str) -> None:
        root = zarr.open_group(tmp_path / "a.zarr", zarr_format=2 if version == "0.4" else 3)
        listed = {"series": ["left", "right"]}
        said: dict[str, Any] = {"bioformats2raw.layout": 3}
        root.attrs.update(said if version == "0.4" else {"ome": {"version": "0.5", **said}})
        root.create_group("OME").attrs.update(listed if version == "0.4" else {"ome": {"version": "0.5", **listed}})
        for number, name in enumerate(listed["series"]):
            image = pixels(40, 50) + number
            write_ome_zarr(tmp_path / "a.zarr" / name, [image], YX, [unit_scale(2)], version=version)
        assert_reads(open_source(tmp_path / "a.zarr", series=1), pixels(40, 50) + 1)
        with pytest.raises(SourceError, match="has no series 2; choose 0 to 1"):
            open_source(tmp_path / "a.zarr", series=2)

    def test_a_well_lists_its_images(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr").attrs["ome"] = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
        with pytest.raises(SourceError, match="is a well of a plate; give one of its images: 0, 1"):
            open_source(tmp_path / "a.zarr")

    def test_a_group_of_groups_lists_them(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "a.zarr").create_group("A")
        with pytest.raises(SourceError, match="holds no array but the groups A: give one of them"):
            open_source(tmp_path / "a.zarr")

    def test_consolidated_metadata_of_before_hide_no_image(self, tmp_path: Path) -> None:
        group = zarr.open_group(tmp_path / "a.zarr", zarr_format=2)
        zarr.consolidate_metadata(tmp_path / "a.zarr", zarr_format=2)
        group.create_array("image", data=pixels(40, 50))
        assert_reads(open_source(tmp_path / "a.zarr"), pixels(40, 50))


class TestFlippedAxes:
    """Negative scales, which mirror an image without changing its pixels."""

    def test_a_negative_scale_reads_the_pixels_in_the_reverse_order_at_the_same_position(self, tmp_path: Path) -> None:
        image = pixels(40, 50)
        transforms = [{"type": "scale", "scale": [-0.5, 0.25]}, {"type": "translation", "translation": [100.0, 20.0]}]
        group = zarr.open_group(tmp_path / "a.zarr")
        group.create_array("0", data=image, chunks=(16, 16))
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
        dataset = {"path": "0", "coordinateTransformations": transforms}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
        source = open_source(tmp_path / "a.zarr")
        assert_reads(source, image[::-1])
        np.testing.assert_array_equal(source.data[3:9, 5:7], image[::-1][3:9, 5:7])
        np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(source.data))), image[::-1])
        assert source.pixel_size == {"y": 0.5, "x": 0.25}
        assert source.translation == {"y": 100 - 0.5 * 39, "x": 20}  # of the last row, which comes first now
        assert source.units == {"y": "micrometer", "x": "micrometer"}
        assert "axis y has a negative scale" in source.notes[0]
