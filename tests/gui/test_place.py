"""Where an upscaled layer lies, and what of a layer is upscaled: pure functions over layers without a window."""

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image

from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.place import placement_of, same_looks, upscaled_place
from napari_mgbpv2.plugin.reversing import reversed_along

PLACES = {
    "plain": {},
    "flipped": {"scale": (-0.5, 0.2), "translate": (7, -3)},
    "anisotropic": {"scale": (0.5, 0.2), "translate": (7, -3)},
    "rotated": {"scale": (0.5, 0.2), "translate": (7, -3), "rotate": 30},
    "sheared": {"scale": (2, 3), "rotate": -70, "shear": [0.4]},
    "with an affine": {"scale": (2, 3), "rotate": 15, "affine": [[1, 0.3, 5], [-0.2, 2, 1], [0, 0, 1]]},
}


def corners(layer: Image) -> np.ndarray:
    """World positions of the outer corners of a layer's first and last pixels."""
    height, width = layer.data.shape[:2]
    ends = [(y, x) for y in (-0.5, height - 0.5) for x in (-0.5, width - 0.5)]
    return np.array([layer.data_to_world(end) for end in ends])


class TestPlace:
    @pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
    @pytest.mark.parametrize("factors", [(4, 4), (2, 16), (1, 3)], ids=str)
    def test_the_corners_of_the_result_lie_on_those_of_its_source(self, place: dict, factors: tuple[int, int]) -> None:
        source = Image(np.zeros((6, 9)), **place)
        result = Image(np.zeros((6 * factors[0], 9 * factors[1])), **upscaled_place(source, factors))
        np.testing.assert_allclose(corners(result), corners(source), atol=1e-10, rtol=0)

    @pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
    def test_the_middle_of_a_source_pixel_is_the_middle_of_its_pixels_in_the_result(self, place: dict) -> None:
        source = Image(np.zeros((6, 9)), **place)
        result = Image(np.zeros((24, 36)), **upscaled_place(source, (4, 4)))
        middle = np.array(result.data_to_world((4 * 2 + 1.5, 4 * 5 + 1.5)))
        np.testing.assert_allclose(middle, source.data_to_world((2, 5)), atol=1e-10, rtol=0)

    def test_a_stack_keeps_its_place_along_z(self) -> None:
        source = Image(np.zeros((3, 6, 9)), scale=(5, 1, 1), translate=(2, 0, 0), rotate=(10, 20, 30))
        result = Image(np.zeros((3, 24, 36)), **upscaled_place(source, (1, 4, 4)))
        centre = np.array(result.data_to_world((2, 1.5, 1.5)))
        np.testing.assert_allclose(centre, source.data_to_world((2, 0, 0)), atol=1e-10, rtol=0)

    @pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
    def test_reversed_pixels_lie_where_they_were(self, place: dict) -> None:
        source = Image(np.zeros((6, 9)), **place)
        result = Image(np.zeros((24, 36)), **upscaled_place(source, (4, 4), {0: 6}))
        middle = np.array(result.data_to_world((4 * (5 - 2) + 1.5, 4 * 5 + 1.5)))
        np.testing.assert_allclose(middle, source.data_to_world((2, 5)), atol=1e-10, rtol=0)

    def test_units_and_axis_labels_come_along(self) -> None:
        source = Image(np.zeros((6, 9)), units=("um", "um"), axis_labels=("y", "x"))
        result = Image(np.zeros((24, 36)), **upscaled_place(source, (4, 4)))
        assert (result.units, result.axis_labels) == (source.units, source.axis_labels)

    def test_colours_and_contrast_come_along(self) -> None:
        source = Image(np.zeros((6, 9)), colormap="magma", contrast_limits=(0.2, 0.7), blending="additive", gamma=1.5)
        result = Image(np.zeros((24, 36)), **same_looks(source))
        assert (result.colormap.name, result.contrast_limits) == ("magma", [0.2, 0.7])
        assert (result.blending, result.gamma) == ("additive", 1.5)

    def test_an_rgb_picture_stays_one(self) -> None:
        source = Image(np.zeros((6, 9, 3), "u1"), rgb=True)
        assert Image(np.zeros((24, 36, 3), "u1"), **same_looks(source)).rgb


class TestPlacement:
    """What scale and translation alone can say."""

    @pytest.mark.parametrize(
        ("transform", "scale", "translate"),
        [
            ({"scale": (-0.5, 0.2), "translate": (7, -3)}, (-0.5, 0.2), (7, -3)),
            ({"scale": (2, 3), "rotate": 180}, (-2, -3), (0, 0)),
            ({"translate": (1, 1), "affine": [[-1, 0, 5], [0, 2, 1], [0, 0, 1]]}, (-1, 2), (4, 3)),
        ],
        ids=["negative scale", "half a turn", "affine"],
    )
    def test_axes_that_run_backwards_have_a_negative_scale(
        self, transform: dict, scale: tuple[float, float], translate: tuple[float, float]
    ) -> None:
        placed = placement_of(Image(np.zeros((6, 9)), **transform))
        assert placed.is_complete
        np.testing.assert_allclose(placed.scale, scale, atol=1e-12)
        np.testing.assert_allclose(placed.translate, translate, atol=1e-12)

    @pytest.mark.parametrize("name", ["rotated", "sheared", "with an affine"])
    def test_what_a_file_cannot_hold_is_known(self, name: str) -> None:
        assert not placement_of(Image(np.zeros((6, 9)), **PLACES[name])).is_complete

    def test_with_its_pixels_reversed_the_image_lies_where_it_was(self) -> None:
        layer = Image(np.zeros((6, 9)), scale=(-0.5, 0.2), translate=(7, -3))
        forwards = placement_of(layer).forwards((6, 9))
        assert forwards.scale == (0.5, 0.2)
        np.testing.assert_allclose(forwards.translate, layer.data_to_world((5, 0)))


class TestReversing:
    @pytest.mark.parametrize("make", [np.asarray, da.from_array, zarr.array], ids=["NumPy", "Dask", "Zarr"])
    def test_any_array_is_reversed_without_being_read(self, make: object) -> None:
        pixels = np.arange(5 * 6 * 7).reshape(5, 6, 7)
        turned = reversed_along(make(pixels), (1, 2))
        np.testing.assert_array_equal(np.asarray(turned[1:4, 0:5, 2:6]), pixels[1:4, ::-1, ::-1][:, 0:5, 2:6])
        np.testing.assert_array_equal(np.asarray(turned), pixels[:, ::-1, ::-1])


class TestReadingALayer:
    @pytest.mark.parametrize(
        ("shape", "options", "axes"),
        [
            ((30, 40), {}, "yx"),
            ((30, 40, 3), {"rgb": True}, "yxs"),
            ((5, 30, 40), {}, "zyx"),
            ((2, 5, 30, 40), {}, "czyx"),
            ((30, 40, 3), {"rgb": False}, "zyx"),
            ((5, 30, 40), {"axis_labels": ("c", "y", "x")}, "cyx"),
            ((30, 40, 5), {"axis_labels": ("y", "x", "z")}, "yxz"),
            ((5, 30, 40, 3), {"rgb": True, "axis_labels": ("time", "row", "column")}, "tyxs"),
        ],
    )
    def test_axes_are_those_that_the_layer_names_or_guessed_by_their_number(
        self, shape: tuple[int, ...], options: dict, axes: str
    ) -> None:
        assert read_layer(Image(np.zeros(shape, "u1"), **options)).axes == axes

    @pytest.mark.parametrize("make", [np.zeros, da.zeros, zarr.zeros], ids=["NumPy", "Dask", "Zarr"])
    def test_the_array_is_taken_as_it_is(self, make: object) -> None:
        array = make((30, 40), dtype="u1")
        assert read_layer(Image(array, contrast_limits=(0, 255))).data is array

    def test_of_a_pyramid_the_full_resolution_is_upscaled(self) -> None:
        levels = [np.zeros((64, 64), "u1"), np.zeros((32, 32), "u1")]
        image = read_layer(Image(levels, multiscale=True))
        assert image.data is levels[0]
        assert image.coarser[0] is levels[1]

    @pytest.mark.parametrize(
        ("dtype", "limits", "expected"),
        [("u2", (100, 4000), (100, 4000)), ("u1", (10, 20), None), ("f4", (0, 1), None), ("f4", (-5, 9), (-5, 9))],
    )
    def test_black_and_white_are_the_ends_of_the_contrast_slider_beyond_8_bits(
        self, dtype: str, limits: tuple[float, float], expected: tuple[float, float] | None
    ) -> None:
        layer = Image(np.zeros((30, 40), dtype), contrast_limits=limits)
        layer.contrast_limits_range = limits
        assert read_layer(layer).value_range == expected
