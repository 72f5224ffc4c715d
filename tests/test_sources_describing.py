"""What a user knows better than the file: axes, pixel size and unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.io.readers import ImageSource, open_source, source_without_metadata, with_metadata
from source_files import CZYX, pixels, unit_scale, write_ome_zarr


@pytest.fixture
def volume() -> ImageSource:
    """Two named channels of a stack whose file knows its sizes and its place."""
    return ImageSource(
        data=pixels(2, 5, 40, 50),
        axes="czyx",
        pixel_size={"z": 2.0, "y": 0.5, "x": 0.5},
        units={"z": "micrometer", "y": "micrometer", "x": "micrometer"},
        translation={"z": 0.0, "y": 10.0, "x": 20.0},
        channel_names=("DAPI", "GFP"),
        channel_colors=("0000FF", "00FF00"),
        path="cells.tif",
        kind="TIFF",
    )


def test_without_a_word_everything_stays(volume: ImageSource) -> None:
    assert with_metadata(volume) == volume


class TestAxes:
    def test_sizes_go_with_their_letter(self, volume: ImageSource) -> None:
        told = with_metadata(volume, axes="ctyx")
        assert told.axes == "ctyx"
        assert told.pixel_size == {"t": 1.0, "y": 0.5, "x": 0.5}
        assert told.units == {"t": None, "y": "micrometer", "x": "micrometer"}
        assert told.translation == {"t": 0.0, "y": 10.0, "x": 20.0}

    def test_channels_are_kept_where_their_axis_is(self, volume: ImageSource) -> None:
        assert with_metadata(volume, axes="ctyx").channel_names == ("DAPI", "GFP")
        assert with_metadata(volume, axes="tcyx").channel_names is None
        assert with_metadata(volume, axes="tzyx").channel_colors is None

    def test_the_name_of_a_single_channel_is_kept(self) -> None:
        single = ImageSource(pixels(3, 40, 50), "zyx", {}, {}, {}, ("DAPI",), None, "a.tif", "TIFF")
        assert with_metadata(single, axes="tyx").channel_names == ("DAPI",)
        assert with_metadata(single, axes="cyx").channel_names is None
        assert with_metadata(single, axes="syx").channel_names is None

    def test_axes_that_do_not_fit_are_refused(self, volume: ImageSource) -> None:
        with pytest.raises(ImageError, match="axes 'zyx' has 3 letters for an image of 4 axes"):
            with_metadata(volume, axes="zyx")


class TestPixelSize:
    def test_one_number_is_for_y_and_x(self, volume: ImageSource) -> None:
        told = with_metadata(volume, pixel_size=0.25)
        assert told.pixel_size == {"z": 2.0, "y": 0.25, "x": 0.25}
        assert told.units == volume.units

    def test_each_axis_may_have_its_own(self, volume: ImageSource) -> None:
        assert with_metadata(volume, pixel_size={"z": 1, "x": 0.1}).pixel_size == {"z": 1.0, "y": 0.5, "x": 0.1}

    def test_the_position_is_kept_in_pixels(self, volume: ImageSource) -> None:
        told = with_metadata(volume, pixel_size={"x": 0.25, "z": 1.0})
        assert told.translation == {"z": 0.0, "y": 10.0, "x": 10.0}

    @pytest.mark.parametrize("size", [0, -0.5, float("nan"), float("inf"), "wide", None])
    def test_what_is_no_size_is_refused(self, volume: ImageSource, size: Any) -> None:
        with pytest.raises(ImageError, match=r"the pixel size of x is .*; give a finite number above 0"):
            with_metadata(volume, pixel_size={"x": size})

    @pytest.mark.parametrize("axis", ["t", "c", "q", "yx"])
    def test_an_axis_without_a_pixel_size_is_refused(self, volume: ImageSource, axis: str) -> None:
        with pytest.raises(ImageError, match=rf"cells\.tif: has no axis '{axis}' with a pixel size; it has z, y, x"):
            with_metadata(volume, pixel_size={axis: 1.0})


class TestUnit:
    def test_it_is_that_of_the_sizes_that_are_given(self, volume: ImageSource) -> None:
        told = with_metadata(volume, pixel_size=250, unit="nm")
        assert told.units == {"z": "micrometer", "y": "nanometer", "x": "nanometer"}

    def test_alone_it_is_that_of_all_axes_in_space(self) -> None:
        told = with_metadata(source_without_metadata(pixels(2, 5, 40, 50), "tzyx", "a", "array"), unit="micron")
        assert told.units == {"t": None, "z": "micrometer", "y": "micrometer", "x": "micrometer"}

    def test_a_time_is_that_of_t_and_a_length_is_not(self) -> None:
        source = source_without_metadata(pixels(5, 40, 50), "tyx", "a", "array")
        assert with_metadata(source, unit="ms").units == {"t": "millisecond", "y": None, "x": None}
        told = with_metadata(source, pixel_size={"t": 2, "x": 0.5}, unit="um")
        assert told.units == {"t": None, "y": None, "x": "micrometer"}
        with pytest.raises(ImageError, match="has no axis 't'"):
            with_metadata(source_without_metadata(pixels(40, 50), "yx", "a", "array"), unit="s")

    def test_each_axis_may_have_its_own(self) -> None:
        source = source_without_metadata(pixels(5, 40, 50), "tyx", "a", "array")
        told = with_metadata(source, pixel_size={"t": 40}, unit={"t": "ms", "x": "µm"})
        assert told.units == {"t": "millisecond", "y": None, "x": "micrometer"}

    @pytest.mark.parametrize(
        ("unit", "message"),
        [
            ("furlong", "unit 'furlong' is unknown; give one such as micrometer"),
            ({"y": "s"}, "the unit of y is 's'; it must be a length"),
            ({"t": "mm"}, "the unit of t is 'mm'; it must be a time"),
            ({"z": "mm"}, "has no axis 'z'"),
        ],
    )
    def test_units_that_are_none_are_refused(self, unit: Any, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            with_metadata(source_without_metadata(pixels(5, 40, 50), "tyx", "a", "array"), unit=unit)


def test_a_file_opens_under_the_description_given(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels(5, 40, 50))
    source = open_source(tmp_path / "a.npy", axes="tyx", pixel_size=0.5, unit="um")
    assert (source.axes, source.pixel_size) == ("tyx", {"t": 1.0, "y": 0.5, "x": 0.5})
    assert source.units == {"t": None, "y": "micrometer", "x": "micrometer"}


def test_what_a_zarr_says_is_overridden_axis_by_axis(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", [pixels(1, 5, 40, 50)], CZYX, [unit_scale(4)])
    source = open_source(tmp_path / "a.zarr", pixel_size={"z": 3}, unit="mm")
    assert source.pixel_size == {"z": 3.0, "y": 1.0, "x": 1.0}
    assert source.units == {"z": "millimeter", "y": "micrometer", "x": "micrometer"}
