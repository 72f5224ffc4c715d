"""What a TIFF says besides its pixels: which way is up, where it lies, what its samples are, which files it has."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import napari_mgbpv2 as mgbp
from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.io.readers import find_sources, open_source
from napari_mgbpv2.io.units import convert_length
from napari_mgbpv2.training.data.discovery import find_images
from source_files import Array, all_of, assert_reads, pixels

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
STORAGES: list[dict[str, Any]] = [{}, {"tile": (16, 16), "compression": "zlib"}, {"compression": "zlib"}]


class TestOrientation:
    """A TIFF reads as it is to be seen, whichever way its rows are stored."""

    @pytest.mark.parametrize("storage", STORAGES, ids=["contiguous", "tiled", "one-strip"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_all_values_are_upright(self, tmp_path: Path, orientation: int, storage: dict[str, Any]) -> None:
        path = tmp_path / "a.tif"
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(
            path, pixels(40, 52, 3, dtype="u1"), photometric="rgb", extratags=[tag], metadata=None, **storage
        )
        with Image.open(path) as picture:
            seen = np.asarray(ImageOps.exif_transpose(picture))
        source = open_source(path)
        assert_reads(source, seen)
        assert_reads(pickle.loads(pickle.dumps(source)), seen)

    @pytest.mark.parametrize("orientation", [3, 6, 8])
    def test_a_stack_is_turned_page_by_page(self, tmp_path: Path, orientation: int) -> None:
        image = pixels(3, 40, 52)
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for page in image:
                writer.write(page, contiguous=False, metadata=None, extratags=[(274, "H", 1, orientation, True)])
        turns = {3: 2, 6: 3, 8: 1}  # quarter turns to the left
        assert_reads(open_source(tmp_path / "a.tif"), np.rot90(image, turns[orientation], (1, 2)))

    def test_a_window_of_a_turned_image_decodes_only_its_tiles(self, tmp_path: Path) -> None:
        tag = (274, "H", 1, 6, True)
        tifffile.imwrite(tmp_path / "a.tif", pixels(64, 96), tile=(16, 32), extratags=[tag], metadata=None)
        data = open_source(tmp_path / "a.tif").data
        assert data.shape == (96, 64)
        assert data.chunk_shape == (32, 16)

    def test_pixel_sizes_are_turned_too(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"resolution": (10_000, 5_000), "resolutionunit": "CENTIMETER"}
        tag = (274, "H", 1, 6, True)
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 40), extratags=[tag], metadata=None, **options)
        source = open_source(tmp_path / "a.tif")
        assert source.pixel_size == pytest.approx({"y": 1.0, "x": 2.0})
        assert "it has been turned" in source.notes[0]

    def test_an_impossible_orientation_is_upright(self, tmp_path: Path) -> None:
        image = pixels(32, 40)
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(274, "H", 1, 0, True)], metadata=None)
        assert_reads(open_source(tmp_path / "a.tif"), image)


def stage(**plane: Any) -> dict[str, Any]:
    """Return metadata of pixels of 0.5 micrometres at a position."""
    sizes = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    return {"axes": "YX", **sizes, "Plane": {name: [value] for name, value in plane.items()}}


class TestStagePosition:
    """The position of the first plane is the centre of its first pixel."""

    @pytest.mark.parametrize(("number", "unit"), [(5120.0, "µm"), (5.12, "mm"), (5.12e6, "nm")])
    def test_it_is_the_translation_in_the_unit_of_the_pixels(self, tmp_path: Path, number: float, unit: str) -> None:
        metadata = stage(PositionX=number, PositionXUnit=unit, PositionY=-300.0, PositionYUnit="µm")
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels(32, 40), metadata=metadata)
        source = open_source(tmp_path / "a.ome.tif")
        assert source.translation == pytest.approx({"y": -300.0, "x": 5120.0})
        assert source.notes == ()

    def test_a_position_without_unit_is_said_and_not_guessed(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels(32, 40), metadata=stage(PositionX=7.0, PositionY=0.0))
        source = open_source(tmp_path / "a.ome.tif")
        assert source.translation == {"y": 0.0, "x": 0.0}
        assert "along x (7, reference frame)" in source.notes[0]

    def test_a_lower_level_lies_on_the_full_image(self, tmp_path: Path) -> None:
        metadata = stage(PositionX=100.0, PositionXUnit="µm", PositionY=0.0, PositionYUnit="µm")
        image = pixels(64, 64)
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            writer.write(image, subifds=1, tile=(16, 16), metadata=metadata)
            writer.write(image[::2, ::2], subfiletype=1, tile=(16, 16))
        source = open_source(tmp_path / "a.ome.tif", level=1)
        assert_reads(source, image[::2, ::2])
        assert source.translation == {"y": 0.25, "x": 100.25}

    def test_our_own_file_reads_back_where_it_was(self, tmp_path: Path) -> None:
        metadata = {"axes": "TZYX", "PhysicalSizeZ": 2.0, "TimeIncrement": 3.0, "TimeIncrementUnit": "s"}
        metadata |= {name: value for name, value in stage().items() if name.startswith("Physical")}
        plane: dict[str, Any] = {"DeltaT": [9.0] * 2 + [12.0] * 2, "DeltaTUnit": ["s"] * 4}
        for axis, start in (("X", 10.0), ("Y", -20.0), ("Z", 5.0)):
            step = 2.0 if axis == "Z" else 0.0
            plane |= {f"Position{axis}": [start, start + step] * 2, f"Position{axis}Unit": ["µm"] * 4}
        tifffile.imwrite(
            tmp_path / "a.ome.tif",
            pixels(2, 2, 40, 44),
            photometric="minisblack",
            metadata={**metadata, "Plane": plane},
        )
        first = open_source(tmp_path / "a.ome.tif")
        assert first.translation == {"t": 9.0, "z": 5.0, "y": -20.0, "x": 10.0}
        mgbp.convert(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif", scale=2)
        second = open_source(tmp_path / "b.ome.tif")
        assert second.translation == pytest.approx({"t": 9.0, "z": 5.0, "y": -20.125, "x": 9.875})
        assert second.units == first.units

    def test_imagej_origin(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "unit": "um", "spacing": 3.0, "xorigin": 20, "yorigin": 10, "zorigin": 1}
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 32, 40), imagej=True, resolution=(2, 2), metadata=metadata)
        assert open_source(tmp_path / "a.tif").translation == {"z": -3.0, "y": -5.0, "x": -10.0}


def test_lengths_in_other_units() -> None:
    assert convert_length(1, "mm", "µm") == pytest.approx(1000)
    assert convert_length(2, "inch", "cm") == pytest.approx(5.08)
    assert convert_length(3, "min", "s") == pytest.approx(180)
    assert convert_length(1, "s", "µm") is None
    assert convert_length(1, "reference frame", "µm") is None


def geo_tags(model: int, *, point: bool = False, matrix: tuple[float, ...] | None = None, size: float = 10.0) -> Any:
    """Return tags of a map whose corner lies at easting 500,000 and northing 4,600,000, or at 9 and 47 degrees."""
    corner = (5e5, 4.6e6) if model == 1 else (9.0, 47.0)
    keys = [(1024, model), (1025, 1 + point), *([(3072, 32632), (3076, 9001)] if model == 1 else [(2048, 4326)])]
    directory = (1, 1, 0, len(keys), *(number for code, value in keys for number in (code, 0, 1, value)))
    place = [(33550, "d", 3, (size, size, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, *corner, 0.0), True)]
    if matrix is not None:
        place = [(34264, "d", 16, matrix, True)]
    return [*place, (34735, "H", len(directory), directory, True)]


class TestMaps:
    """A map keeps pixel size and position; rows run southwards, and so does y."""

    def place(self, path: Path, tags: Any, **options: Any) -> Any:
        tifffile.imwrite(path / "a.tif", pixels(40, 64, dtype="u1"), extratags=tags, metadata=None, **options)
        return open_source(path / "a.tif")

    def test_scale_and_tie_point(self, tmp_path: Path) -> None:
        source = self.place(tmp_path, geo_tags(1))
        assert (source.pixel_size, source.units["x"]) == ({"y": 10.0, "x": 10.0}, "meter")
        assert source.translation == {"y": -4_599_995.0, "x": 500_005.0}
        assert "EPSG:32632" in source.notes[0]

    def test_a_point_is_the_centre_of_a_pixel(self, tmp_path: Path) -> None:
        assert self.place(tmp_path, geo_tags(1, point=True)).translation == {"y": -4_600_000.0, "x": 500_000.0}

    def test_a_tie_point_elsewhere_in_the_image(self, tmp_path: Path) -> None:
        tags = geo_tags(1)
        tags[1] = (33922, "d", 6, (4.0, 2.0, 0.0, 5e5, 4.6e6, 0.0), True)
        assert self.place(tmp_path, tags).translation == {"y": -4_600_015.0, "x": 499_965.0}

    def test_transformation(self, tmp_path: Path) -> None:
        matrix = (10.0, 0, 0, 5e5, 0, -10.0, 0, 4.6e6, 0, 0, 0, 0, 0, 0, 0, 1.0)
        source = self.place(tmp_path, geo_tags(1, matrix=matrix))
        assert source.pixel_size == {"y": 10.0, "x": 10.0}
        assert source.translation == {"y": -4_599_995.0, "x": 500_005.0}

    def test_a_rotation_is_said(self, tmp_path: Path) -> None:
        matrix = (8.0, 6.0, 0, 5e5, 6.0, -8.0, 0, 4.6e6, 0, 0, 0, 0, 0, 0, 0, 1.0)
        source = self.place(tmp_path, geo_tags(1, matrix=matrix))
        assert source.pixel_size == pytest.approx({"y": 10.0, "x": 10.0})
        assert "rotated or sheared (by 36.8699 degrees), which is not carried" in source.notes[0]

    def test_degrees(self, tmp_path: Path) -> None:
        source = self.place(tmp_path, geo_tags(2, size=1e-4))
        assert source.pixel_size == pytest.approx({"y": 1e-4, "x": 1e-4})
        assert source.translation == pytest.approx({"y": -46.99995, "x": 9.00005})
        assert "in degrees" in source.notes[0]

    def test_neighbours_stay_neighbours(self, tmp_path: Path) -> None:
        (tmp_path / "n").mkdir()
        north, tags = self.place(tmp_path / "n", geo_tags(1)), geo_tags(1)
        tags[1] = (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6 - 400, 0.0), True)
        south = self.place(tmp_path, tags)
        assert south.translation["y"] == north.translation["y"] + 400
        assert south.translation["x"] == north.translation["x"]

    def test_a_map_stored_upside_down(self, tmp_path: Path) -> None:
        tags = [*geo_tags(1, matrix=(10.0, 0, 0, 5e5, 0, 10.0, 0, 4.6e6, *([0.0] * 8))), (274, "H", 1, 4, True)]
        source = self.place(tmp_path, tags)
        assert source.translation == {"y": -(4.6e6 + 395), "x": 500_005.0}


def ome_xml(images: str, uuid: int | None = None, head: str = "") -> str:
    own = "" if uuid is None else f' UUID="urn:uuid:{uuid}"'
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}"{own}>{head}{images}</OME>'


def ome_image(axis: str, count: int, data: str, name: str = "") -> str:
    sizes = " ".join(f'Size{each}="{count if each == axis else 1}"' for each in "ZCT")
    return (
        f'<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="50" '
        f'SizeY="40" {sizes} PhysicalSizeX="0.25" PhysicalSizeY="0.25"><Channel ID="Channel:0:0" Name="GFP" '
        f'SamplesPerPixel="1"/>{data}</Pixels></Image>'
    )


def parts(axis: str, numbers: range, name: str = "p{}.ome.tif") -> str:
    return "".join(
        f'<TiffData IFD="0" First{axis}="{i}" PlaneCount="1"><UUID FileName="{name.format(n)}">urn:uuid:{n}</UUID>'
        "</TiffData>"
        for i, n in enumerate(numbers)
    )


def write(path: Path, image: Array, xml: str, **options: Any) -> None:
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, image, description=xml, metadata=None, **options)


class TestFilesOfOneImage:
    """One image in several files is one image, by whichever of them it is opened."""

    @pytest.fixture
    def image(self) -> Array:
        return pixels(3, 40, 50)

    @pytest.fixture
    def binary_only(self, tmp_path: Path, image: Array) -> Path:
        """Write the planes into a file each, and the metadata into a companion."""
        (tmp_path / "s.companion.ome").write_text(ome_xml(ome_image("Z", 3, parts("Z", range(3))), 99), "utf-8")
        for n, plane in enumerate(image):
            head = '<BinaryOnly MetadataFile="s.companion.ome" UUID="urn:uuid:99"/>'
            write(tmp_path / f"p{n}.ome.tif", plane, ome_xml("", n, head), compression="zlib" if n else None)
        return tmp_path

    @pytest.mark.parametrize("name", ["p0.ome.tif", "p2.ome.tif", "s.companion.ome"])
    def test_a_part_leads_to_its_companion(self, binary_only: Path, image: Array, name: str) -> None:
        source = open_source(binary_only / name)
        assert (source.kind, source.axes, source.pixel_size["x"]) == ("OME-TIFF", "zyx", 0.25)
        assert source.channel_names == ("GFP",)
        assert_reads(source, image)
        assert_reads(pickle.loads(pickle.dumps(source)), image)

    def test_all_files_tell_whether_it_is_the_same(self, binary_only: Path) -> None:
        source = open_source(binary_only / "p0.ome.tif")
        assert {os.path.basename(file) for file in source.fingerprint()["files"]} == {f"p{n}.ome.tif" for n in range(3)}

    def test_a_part_without_its_companion_is_refused_by_name(self, binary_only: Path) -> None:
        (binary_only / "s.companion.ome").unlink()
        with pytest.raises(SourceError, match=r"whose metadata are in 's\.companion\.ome', which is not in its folder"):
            open_source(binary_only / "p0.ome.tif")

    def test_a_companion_without_parts_is_refused(self, binary_only: Path) -> None:
        for part in binary_only.glob("*.tif"):
            part.unlink()
        with pytest.raises(SourceError, match="none of the files that it names are in its folder"):
            open_source(binary_only / "s.companion.ome")

    def test_a_folder_has_it_once(self, binary_only: Path) -> None:
        tifffile.imwrite(binary_only / "other.tif", pixels(20, 20))
        names = [os.path.basename(path) for path in find_sources(binary_only)]
        assert [name for name in names if name.endswith("tif")] == ["other.tif", "p0.ome.tif"]

    def test_a_pattern_has_it_once(self, binary_only: Path) -> None:
        assert len(find_sources(str(binary_only / "p*.ome.tif"))) == 1

    def test_training_has_it_once(self, binary_only: Path) -> None:
        (binary_only / "s.companion.ome").rename(binary_only / ".hidden")
        for n in range(3):
            write(binary_only / f"p{n}.ome.tif", pixels(40, 50), ome_xml(ome_image("T", 3, parts("T", range(3))), n))
        (binary_only / ".hidden").unlink()
        assert len(find_images(binary_only).images) == 1

    def test_files_that_are_named_are_all_taken(self, binary_only: Path) -> None:
        named = [binary_only / "p0.ome.tif", binary_only / "p1.ome.tif"]
        assert find_sources(named) == list(map(str, named))

    def test_positions_of_one_acquisition_are_images_of_their_own(self, tmp_path: Path) -> None:
        """Each file holds a position and describes all of them, as Micro-Manager writes it."""
        described = "".join(ome_image("T", 1, parts("T", range(n, n + 1)), f"pos{n}") for n in range(3))
        for n in range(3):
            write(tmp_path / f"p{n}.ome.tif", pixels(40, 50, seed=n), ome_xml(described, n))
        found = find_sources(tmp_path)
        assert len(found) == 3
        for n, path in enumerate(found):
            assert_reads(open_source(path), pixels(40, 50, seed=n))

    def test_a_file_that_was_renamed(self, tmp_path: Path, image: Array) -> None:
        data = '<TiffData PlaneCount="3"><UUID FileName="old.ome.tif">urn:uuid:7</UUID></TiffData>'
        write(tmp_path / "new.ome.tif", image, ome_xml(ome_image("Z", 3, data), 7))
        assert_reads(open_source(tmp_path / "new.ome.tif"), image)

    @pytest.mark.parametrize("name", ["../{}.tif", "/{}.tif", "sub/../../{}.tif"])
    def test_a_file_outside_the_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "in").mkdir()
        named = name.format(f"{tmp_path}/secret" if name.startswith("/") else "secret").replace("//", "/")
        tifffile.imwrite(tmp_path / "secret.tif", pixels(40, 50))
        xml = ome_xml(ome_image("Z", 1, parts("Z", range(1), named)), 5)
        write(tmp_path / "in" / "a.ome.tif", pixels(40, 50), xml)
        with pytest.raises(SourceError, match="outside its folder and is not opened"):
            open_source(tmp_path / "in" / "a.ome.tif")

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        tifffile.imwrite(tmp_path / "secret.tif", pixels(40, 50))
        (tmp_path / "in" / "p0.ome.tif").symlink_to(tmp_path / "secret.tif")
        write(tmp_path / "in" / "a.ome.tif", pixels(40, 50), ome_xml(ome_image("Z", 1, parts("Z", range(1))), 5))
        with pytest.raises(SourceError, match="outside its folder and is not opened"):
            open_source(tmp_path / "in" / "a.ome.tif")

    def test_a_part_that_is_no_file_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p0.ome.tif")
        write(tmp_path / "a.ome.tif", pixels(40, 50), ome_xml(ome_image("Z", 1, parts("Z", range(1))), 5))
        with pytest.raises(SourceError, match="is not a regular file"):
            open_source(tmp_path / "a.ome.tif")

    def test_a_page_of_another_size_is_refused(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            xml = ome_xml(ome_image("Z", 2, '<TiffData PlaneCount="2"/>'))
            writer.write(pixels(40, 50), description=xml, metadata=None)
            writer.write(pixels(30, 50), metadata=None)
        with pytest.raises(SourceError, match="page 1 does not belong to the image"):
            all_of(open_source(tmp_path / "a.ome.tif"))


class TestStoppedAcquisitions:
    """Planes that are announced and not there are stated before anything is computed."""

    @pytest.fixture(params=[3, 5], ids=["listed", "all-listed"])
    def stopped(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        data = "".join(f'<TiffData IFD="{i}" FirstT="{i}" PlaneCount="1"/>' for i in range(request.param))
        write(tmp_path / "a.ome.tif", pixels(3, 40, 50), ome_xml(ome_image("T", 5, data)))
        return tmp_path / "a.ome.tif"

    def test_it_is_refused(self, stopped: Path) -> None:
        with pytest.raises(SourceError, match=r"2 of the 5 planes .* are missing.*--missing blank"):
            open_source(stopped)

    def test_blank_planes_on_request(self, stopped: Path) -> None:
        source = open_source(stopped, missing="blank")
        expected = np.concatenate([pixels(3, 40, 50), np.zeros((2, 40, 50), "u2")])
        assert_reads(source, expected)
        assert_reads(pickle.loads(pickle.dumps(source)), expected)
        assert source.notes == ("2 of its 5 planes are missing and left blank",)

    def test_missing_planes_of_floats_are_nan(self, tmp_path: Path) -> None:
        xml = ome_xml(ome_image("T", 2, '<TiffData IFD="0"/>').replace("uint16", "float"))
        write(tmp_path / "a.ome.tif", pixels(40, 50, dtype="f4"), xml)
        data = all_of(open_source(tmp_path / "a.ome.tif", missing="blank"))
        np.testing.assert_array_equal(data[0], pixels(40, 50, dtype="f4"))
        assert np.isnan(data[1]).all()

    def test_another_word_is_refused(self, stopped: Path) -> None:
        with pytest.raises(ImageError, match="missing='zero' is unknown"):
            open_source(stopped, missing="zero")

    def test_convert_takes_them(self, stopped: Path, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="2 of its 5 planes are missing"):
            mgbp.convert(stopped, tmp_path / "b.ome.tif", scale=2, missing="blank")
        assert open_source(tmp_path / "b.ome.tif").data.shape == (5, 80, 100)


class TestBands:
    """Only what a file calls alpha is alpha; other samples are bands, by their names."""

    def opened(self, path: Path, samples: int, **options: Any) -> Any:
        tifffile.imwrite(path / "a.tif", pixels(40, 52, samples, dtype="u1"), metadata=None, planarconfig=1, **options)
        return open_source(path / "a.tif")

    def test_near_infrared_is_no_alpha(self, tmp_path: Path) -> None:
        source = self.opened(tmp_path, 4, photometric="rgb", extrasamples=["unspecified"])
        assert (source.axes, source.channel_names) == ("yxc", ("Red", "Green", "Blue", "Band 4"))
        assert_reads(source, pixels(40, 52, 4, dtype="u1"))

    @pytest.mark.parametrize("samples", [2, 3, 4, 5])
    def test_grey_and_more_are_bands(self, tmp_path: Path, samples: int) -> None:
        source = self.opened(tmp_path, samples, photometric="minisblack", extrasamples=["unspecified"] * (samples - 1))
        assert (source.axes, source.channel_names) == ("yxc", tuple(f"Band {n + 1}" for n in range(samples)))

    def test_planes_of_bands(self, tmp_path: Path) -> None:
        image = pixels(5, 40, 52)
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="separate", metadata=None)
        source = open_source(tmp_path / "a.tif")
        assert source.axes == "cyx"
        assert_reads(source, image)

    def test_names_that_gdal_writes(self, tmp_path: Path) -> None:
        items = "".join(
            f'<Item name="DESCRIPTION" sample="{n}" role="description">{name}</Item>'
            for n, name in enumerate(("B2", "B3", "B4", "NIR"))
        )
        tag = (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)
        source = self.opened(tmp_path, 4, photometric="rgb", extrasamples=["unspecified"], extratags=[tag])
        assert source.channel_names == ("B2", "B3", "B4", "NIR")

    @pytest.mark.parametrize(("scale", "offset", "is_packed"), [("0.0001", "-0.1", True), ("1", "0", False)])
    def test_values_that_gdal_packs_are_stated(self, tmp_path: Path, scale: str, offset: str, is_packed: bool) -> None:
        items = "".join(
            f'<Item name="{role.upper()}" sample="0" role="{role}">{text}</Item>'
            for role, text in (("offset", offset), ("scale", scale))
        )
        tag = (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)
        notes = self.opened(tmp_path, 3, photometric="rgb", extratags=[tag]).notes
        assert any("are packed (offset -0.1, scale 0.0001)" in note for note in notes) == is_packed

    def test_alpha_is_alpha(self, tmp_path: Path) -> None:
        source = self.opened(tmp_path, 4, photometric="rgb", extrasamples=["unassalpha"])
        assert source.axes == "yxs"
        assert_reads(source, pixels(40, 52, 4, dtype="u1"))

    def test_grey_with_alpha(self, tmp_path: Path) -> None:
        source = self.opened(tmp_path, 2, photometric="minisblack", extrasamples=["unassalpha"])
        assert source.axes == "yxs"

    @pytest.mark.parametrize(("dtype", "most"), [("u1", 255), ("u2", 65535), ("f4", 1.0)])
    def test_colours_multiplied_with_alpha_are_divided_again(self, tmp_path: Path, dtype: str, most: float) -> None:
        straight = np.array([[[most, most / 5, 0, most], [most, most / 5, 0, most / 5], [0, 0, 0, 0]]])
        stored = np.concatenate([straight[..., :3] * straight[..., 3:] / most, straight[..., 3:]], -1)
        stored = np.rint(stored).astype(dtype) if most > 1 else stored.astype(dtype)
        options: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
        tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, **options)
        source = open_source(tmp_path / "a.tif")
        np.testing.assert_allclose(all_of(source), straight, rtol=1e-6, atol=3 if most > 1 else 1e-6)
        np.testing.assert_array_equal(source.data[:, :, slice(3, 4)][..., 0], stored[..., 3])


class TestFewBits:
    """Pixels of few bits are as bright as they look."""

    @pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
    @pytest.mark.parametrize("bits", [2, 4, 6])
    def test_white_is_white(self, tmp_path: Path, bits: int, photometric: str) -> None:
        image = pixels(40, 52, dtype="u1") >> (8 - bits)
        options: dict[str, Any] = {"photometric": photometric, "bitspersample": bits}
        tifffile.imwrite(tmp_path / "a.tif", image, metadata=None, **options)
        most = 2**bits - 1
        levels = image if photometric == "minisblack" else most - image
        assert_reads(open_source(tmp_path / "a.tif"), np.rint(levels * (255 / most)).astype("u1"))

    def test_scans_of_one_bit_are_black_and_white(self, tmp_path: Path) -> None:
        scan = Image.fromarray(pixels(40, 52, dtype="u1") > 127)
        scan.save(tmp_path / "a.tif", compression="group4")
        assert_reads(open_source(tmp_path / "a.tif"), np.asarray(scan.convert("L")))

    def test_twelve_bits_keep_their_values(self, tmp_path: Path) -> None:
        image = pixels(40, 52) >> 4
        tifffile.imwrite(tmp_path / "a.tif", image, bitspersample=12, photometric="minisblack", metadata=None)
        assert_reads(open_source(tmp_path / "a.tif"), image)


class TestHostileTiff:
    """What a few bytes claim is checked before memory is taken for it."""

    def test_planes_without_number(self, tmp_path: Path) -> None:
        xml = ome_xml(ome_image("T", 10**8, '<TiffData PlaneCount="100000000"/>'))
        write(tmp_path / "a.ome.tif", pixels(40, 50), xml)
        with pytest.raises(SourceError, match="99,999,999 of the 100,000,000 planes"):
            open_source(tmp_path / "a.ome.tif")

    def test_planes_that_are_listed_again_and_again(self, tmp_path: Path) -> None:
        xml = ome_xml(ome_image("T", 10**6, "<TiffData/>" * 20_000))
        write(tmp_path / "a.ome.tif", pixels(100, 40, 50, dtype="u2"), xml)
        with pytest.raises(SourceError, match="repeatedly"):
            open_source(tmp_path / "a.ome.tif")

    def test_tiles_without_number(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 48), tile=(16, 16), metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            place = tif.pages.first.tags["TileOffsets"].offset
        with open(tmp_path / "a.tif", "r+b") as file:
            file.seek(place + 4)
            file.write((200_000_000).to_bytes(4, "little"))
        with pytest.raises(SourceError, match="lists 200,000,000 tiles or strips, more than the file has bytes for"):
            open_source(tmp_path / "a.tif")

    def test_tiles_in_holes_of_the_disk(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 48), tile=(16, 16), metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            place = tif.pages.first.tags["TileOffsets"].offset
        with open(tmp_path / "a.tif", "r+b") as file:
            file.seek(place + 4)
            file.write((200_000_000).to_bytes(4, "little"))
            file.truncate(2**30)
        with pytest.raises(SourceError, match="at most 8,000,000 are read"):
            open_source(tmp_path / "a.tif")

    @pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "png", "webp", "jpegxr", "jpegxl", "lerc"])
    def test_a_tile_of_another_size_than_the_file_says(self, tmp_path: Path, codec: str) -> None:
        """Its tags say tiles of 16 x 16 pixels, and the codec has 512 x 512 of them."""
        options: dict[str, Any] = {"photometric": "rgb", "compression": codec, "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", pixels(512, 512, 3, dtype="u1"), tile=(512, 512), **options)
        assert all_of(open_source(tmp_path / "a.tif")).shape == (512, 512, 3)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
            for name in ("TileWidth", "TileLength", "ImageWidth", "ImageLength"):
                tif.pages[0].tags[name].overwrite(16)
        with pytest.raises(SourceError, match="is 512 x 512 pixels where the TIFF has 16 x 16"):
            all_of(open_source(tmp_path / "a.tif"))

    def test_a_tile_of_as_many_pixels_in_another_shape(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"compression": "jpeg", "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 128, dtype="u1"), tile=(32, 128), **options)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
            for name, size in (("TileWidth", 64), ("TileLength", 64), ("ImageWidth", 64), ("ImageLength", 64)):
                tif.pages[0].tags[name].overwrite(size)
        with pytest.raises(SourceError, match="is 32 x 128 pixels where the TIFF has 64 x 64"):
            all_of(open_source(tmp_path / "a.tif"))

    @pytest.mark.parametrize("codec", ["zlib", "zstd", "lzma", "lzw"])
    def test_a_tile_that_expands_beyond_its_size(self, tmp_path: Path, codec: str) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4096, 4096), "u1"), tile=(4096, 4096), compression=codec)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
            for name in ("TileWidth", "TileLength", "ImageWidth", "ImageLength"):
                tif.pages[0].tags[name].overwrite(16)
            tif.pages[0].tags["ImageDescription"].overwrite("")
        tracemalloc.start()
        with suppress(SourceError):
            all_of(open_source(tmp_path / "a.tif"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4e6

    def test_fewer_tiles_are_listed_than_the_image_has(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(32, 32), tile=(16, 16), compression="zlib", metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
            for name in ("ImageWidth", "ImageLength"):
                tif.pages[0].tags[name].overwrite(16_000)
        with pytest.raises(SourceError, match="a page of 1,000,000 tiles or strips lists 4 of them"):
            open_source(tmp_path / "a.tif").data[slice(8_000, 8_001), slice(0, 1)]


class TestManyPages:
    """The pages of a file are described when they are read, not when it is opened."""

    @pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["plain", "compressed"])
    @pytest.mark.parametrize("flavour", ["shaped", "pages", "ome"])
    def test_opening_describes_one_page(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, options: dict[str, Any]
    ) -> None:
        image = pixels(200, 16, 16)
        kind = {"shaped": {}, "pages": {"metadata": None}, "ome": {"ome": True}}[flavour]
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **kind, **options)
        described = 0
        init = tifffile.TiffPage.__init__

        def counting(self: Any, *arguments: Any, **named: Any) -> None:
            nonlocal described
            described += 1
            init(self, *arguments, **named)

        monkeypatch.setattr(tifffile.TiffPage, "__init__", counting)
        monkeypatch.setattr(tifffile.TiffFrame, "__init__", counting)
        source = open_source(tmp_path / "a.tif")
        assert described <= 4
        monkeypatch.undo()
        assert_reads(source, image)
