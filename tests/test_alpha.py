"""Alpha: the colour of invisible pixels never reaches a visible one, and what is opaque stays so."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import Array, CountingSource, a_network, an_image
from napari_mgbpv2.imaging.alpha import REACH, VisibleColours, has_alpha, opaque_value
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.io.writers.ome_zarr import halve
from napari_mgbpv2.io.writers.ome_zarr.downsampling import halve_visible
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.training.data import ImageSamples

NETWORK = a_network(scale=2)
DTYPES = ["u1", "u2", "i2", "u4", "f2", "f4", "f8"]


def a_disc(side: int = 80, *, soft: bool = False) -> Array:
    """Alpha of a disc, 0 to 1, with an edge of 0 or 6 pixels."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.clip((side / 3 - np.hypot(y, x)) / (6 if soft else 1e-6) + 0.5, 0, 1)


def a_sprite(dtype: Any = "u1", samples: int = 4, *, hidden: float = 0.0, soft: bool = False, side: int = 80) -> Array:
    """A textured disc whose invisible pixels have a colour of their own, as a share of white."""
    alpha = a_disc(side, soft=soft)
    colours = np.random.default_rng(1).random((side, side, samples - 1)) * 0.8
    colours[alpha == 0] = hidden
    image = np.dstack([colours, alpha[..., np.newaxis]]) * opaque_value(dtype)
    return (image if np.dtype(dtype).kind == "f" else np.floor(image)).astype(dtype)


class TestVisibleColours:
    """What an image with alpha is read as."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("samples", [2, 4])
    def test_opaque_images_are_read_bit_for_bit(self, dtype: str, samples: int) -> None:
        image = an_image(40, 50, samples, dtype=dtype)
        image[..., -1] = opaque_value(dtype)
        read = VisibleColours(image, "yxs")[whole(image)]
        np.testing.assert_array_equal(read, image)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    def test_visible_pixels_and_alpha_are_read_as_they_are(self, dtype: str, soft: bool) -> None:
        image = a_sprite(dtype, hidden=0.9, soft=soft)
        read = VisibleColours(image, "yxs")[whole(image)]
        visible = image[..., 3] > opaque_value(dtype) // 4
        np.testing.assert_array_equal(read[visible], image[visible])
        np.testing.assert_array_equal(read[..., 3], image[..., 3])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_invisible_pixels_have_the_colour_of_visible_ones_nearby(self, dtype: str) -> None:
        image = a_sprite(dtype)
        colour = [int(opaque_value(dtype) * share) for share in (0.7, 0.2, 0.5)] if dtype[0] != "f" else (0.7, 0.2, 0.5)
        image[image[..., 3] > 0, :3] = colour
        read = VisibleColours(image, "yxs")[whole(image)][5:-5, 30:-30].astype(float)
        np.testing.assert_allclose(
            read[..., :3], np.broadcast_to(np.array(colour, float), read[..., :3].shape), rtol=2e-3
        )

    def test_a_half_transparent_texture_keeps_every_value(self) -> None:
        image = an_image(40, 50, 4)
        image[..., 3] = 100
        np.testing.assert_array_equal(VisibleColours(image, "yxs")[whole(image)], image)

    def test_a_colour_of_a_barely_visible_rim_is_not_trusted(self) -> None:
        image = a_sprite()
        image[image[..., 3] > 0, :3] = 200
        rim = (image[..., 3] == 0) & (np.roll(image[..., 3], 1, 0) > 0)
        image[rim] = (0, 0, 0, 1)
        assert VisibleColours(image, "yxs")[whole(image)][rim, 0].min() > 150

    @pytest.mark.parametrize("axes", ["yxs", "syx", "sxy", "zyxs", "yszx"])
    def test_windows_are_those_of_the_whole_image_bit_for_bit(self, axes: str) -> None:
        image = np.stack([a_sprite("f4", hidden=0.9, soft=soft, side=120) for soft in (False, True)])
        image = (
            image.transpose(["zyxs".index(axis) for axis in axes])
            if "z" in axes
            else image[1].transpose(["yxs".index(axis) for axis in axes])
        )
        source = VisibleColours(image, axes)
        expected = source[whole(image)]
        generator = np.random.default_rng(0)
        for _ in range(30):
            window = []
            for size in image.shape:
                start, stop = sorted(int(each) for each in generator.integers(0, size + 1, 2))
                window.append(slice(start, stop))
            np.testing.assert_array_equal(source[tuple(window)], expected[tuple(window)])

    def test_pixels_far_from_all_visible_ones_are_black(self) -> None:
        image = np.full((10, 100, 4), 77, "u1")
        image[..., 3] = 0
        image[:, :10, 3] = 255
        read = VisibleColours(image, "yxs")[whole(image)]
        assert (read[:, : 10 + REACH, :3] == 77).all()
        assert (read[:, 10 + REACH :, :3] == 0).all()

    def test_missing_pixels_stay_and_colour_no_others(self) -> None:
        image = a_sprite("f4", hidden=0.9)
        image[40, 40, 1] = np.nan
        read = VisibleColours(image, "yxs")[whole(image)]
        assert np.isnan(read).sum() == 1
        assert np.isnan(read[40, 40, 1])

    def test_only_grey_with_alpha_and_rgba_have_alpha(self) -> None:
        assert has_alpha("yxs", (9, 9, 4))
        assert has_alpha("syx", (2, 9, 9))
        assert not has_alpha("yxs", (9, 9, 3))
        assert not has_alpha("cyx", (4, 9, 9))

    def test_it_travels(self) -> None:
        image = a_sprite()
        copy = pickle.loads(pickle.dumps(VisibleColours(image, "yxs")))
        np.testing.assert_array_equal(copy[whole(image)], VisibleColours(image, "yxs")[whole(image)])


class TestUpscaling:
    """Alpha through the network."""

    @pytest.mark.parametrize("samples", [2, 4])
    @pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    def test_the_colour_of_invisible_pixels_does_not_matter(self, dtype: str, samples: int, soft: bool) -> None:
        results = [
            mgbp.upscale(a_sprite(dtype, samples, hidden=hidden, soft=soft), model=NETWORK, axes="yxs").compute()
            for hidden in (0.0, 1.0)
        ]
        np.testing.assert_array_equal(*results)

    def test_the_rim_of_a_coloured_disc_has_its_colour(self) -> None:
        image = a_sprite()
        image[image[..., 3] > 0, :3] = (230, 40, 40)
        result = mgbp.upscale(image, model="x2", axes="yxs").compute().astype(int)
        visible = result[..., 3] > 127
        assert np.abs(result[visible, :3] - (230, 40, 40)).max() <= 3

    def test_opaque_colours_are_upscaled_as_without_alpha(self) -> None:
        image = an_image(40, 50, 4)
        image[..., 3] = 255
        result = mgbp.upscale(image, model=NETWORK, axes="yxs").compute()
        np.testing.assert_array_equal(result[..., :3], mgbp.upscale(image[..., :3], model=NETWORK).compute())

    @pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
    def test_what_is_opaque_stays_opaque_and_what_is_invisible_stays_invisible(self, dtype: str) -> None:
        image = a_sprite(dtype)
        alpha = mgbp.upscale(image, model=NETWORK, axes="yxs").compute()[..., 3]
        assert alpha[70:90, 70:90].min() == opaque_value(dtype)
        assert alpha[:10].max() == 0

    def test_tiles_do_not_change_it(self) -> None:
        image = a_sprite("f4", hidden=0.9, soft=True, side=150)
        whole = mgbp.upscale(image, model=NETWORK, axes="yxs", tile=10**6).compute()
        tiled = mgbp.upscale(image, model=NETWORK, axes="yxs", tile=120).compute()
        assert np.abs(tiled - whole).max() < 1e-5 * np.abs(whole).max()

    def test_the_range_of_the_colours_is_not_that_of_alpha(self) -> None:
        image = a_sprite("u2", soft=True)
        expected = mgbp.upscale(image, model=NETWORK, axes="yxs").compute()[..., 3].astype(int)
        ranged = mgbp.upscale(image, model=NETWORK, axes="yxs", value_range=(100, 4000)).compute()[..., 3]
        assert np.abs(ranged - expected).max() <= 1

    def test_noise_makes_no_holes_in_alpha(self) -> None:
        network = a_network(ModelConfig(features=(4, 3)), scale=2)
        image = a_sprite("f4", soft=True)
        silent, noisy = (mgbp.upscale(image, model=network, axes="yxs", noise=noise).compute() for noise in (0.0, 1.0))
        np.testing.assert_array_equal(noisy[..., 3], silent[..., 3])
        assert (noisy[..., :3] != silent[..., :3]).any()

    def test_reading_stays_lazy(self) -> None:
        source = CountingSource(an_image(1000, 1000, 4))
        result = mgbp.upscale(source, model=a_network(), axes="yxs", tile=200)
        assert source.windows == []
        np.asarray(result[2000:2010, 2000:2010])
        assert all(360 < part.start < part.stop < 640 for window in source.windows for part in window[:2])


class TestResults:
    """Alpha in what is written."""

    def test_no_level_of_a_pyramid_has_the_colour_of_invisible_pixels(self, tmp_path: Path) -> None:
        image = a_sprite(hidden=1.0, side=300)
        image[image[..., 3] > 0, :3] = (10, 10, 10)
        Image.fromarray(image).save(tmp_path / "a.png")
        mgbp.convert(tmp_path / "a.png", tmp_path / "a.ome.zarr", model=NETWORK, levels=4)
        first = zarr.open_array(tmp_path / "a.ome.zarr" / "0")[...]
        brightest = first[:3][:, first[3] > 0].max()
        for level in range(1, 4):
            pixels = zarr.open_array(tmp_path / "a.ome.zarr" / str(level))[...]
            assert pixels[:3][:, pixels[3] > 0].max() <= brightest

    @pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
    def test_grey_with_alpha_is_one_image_with_alpha(self, tmp_path: Path, name: str) -> None:
        Image.fromarray(a_sprite(samples=2)).save(tmp_path / "a.png")
        mgbp.convert(tmp_path / "a.png", tmp_path / name, model=NETWORK)
        source = open_source(tmp_path / name)
        assert sorted(source.axes) == sorted("yxs")
        assert has_alpha(source.axes, source.data.shape)

    def test_a_tiff_says_what_its_alpha_is(self, tmp_path: Path) -> None:
        Image.fromarray(a_sprite(samples=2)).save(tmp_path / "a.png")
        mgbp.convert(tmp_path / "a.png", tmp_path / "a.ome.tif", model=NETWORK)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            page = file.pages[0]
            assert (page.photometric.name, page.samplesperpixel, page.extrasamples) == ("MINISBLACK", 2, (2,))


class TestHalving:
    """Means of pixels with alpha."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("opacity", [0, 0.5, 1])
    def test_of_equally_opaque_pixels_are_those_without_alpha(self, dtype: str, opacity: float) -> None:
        image = an_image(4, 7, 9, dtype=dtype)
        image[3] = opacity if dtype[0] == "f" else int(opacity * opaque_value(dtype))
        np.testing.assert_array_equal(halve_visible(image, 0), halve(image))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_are_of_what_is_seen(self, dtype: str) -> None:
        white = opaque_value(dtype)
        image = np.zeros((1, 2, 5, 4), dtype)
        image[0, 0, 0, 0] = seen = white // 4 if dtype[0] != "f" else 0.25
        image[0, 0, 0, 1] = white
        image[0, 1, 0, 0] = white
        halved = halve_visible(image, 1)
        assert halved[0, 0, 0, 0] == seen
        assert halved[0, 1, 0, 0] == halve(image)[0, 1, 0, 0]


def test_training_does_not_see_the_colour_of_invisible_pixels(tmp_path: Path) -> None:
    samples = []
    for name, hidden in (("black", 0.0), ("white", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(a_sprite(hidden=hidden)).save(folder / "a.png")
        samples.append(ImageSamples(str(folder), 2, 32, 0))
    for index in range(10):
        for black, white in zip(samples[0][index], samples[1][index], strict=True):
            np.testing.assert_array_equal(black.numpy(), white.numpy())


def whole(image: Array) -> tuple[slice, ...]:
    """The window of all of an image."""
    return tuple(slice(0, size) for size in image.shape)
