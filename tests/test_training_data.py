"""What `napari_mgbpv2.training.data` promises: samples by (seed, index), the degradation of the whole image."""

from __future__ import annotations

import gc
import itertools
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest
import tifffile
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from examples import CountingSource, an_image
from napari_mgbpv2.errors import DestinationError, ImageError, SourceError
from napari_mgbpv2.imaging.resampling import bicubic_resize, shrink
from napari_mgbpv2.io.readers import ImageSource, open_source
from napari_mgbpv2.io.readers.pictures import PictureArray
from napari_mgbpv2.training.data import (
    ImageSamples,
    Pair,
    PairedSamples,
    SyntheticSamples,
    prepare,
    prepared_folder,
    sample_loader,
    validation_images,
)
from napari_mgbpv2.training.data.degradation import Span, degraded_crop, reach
from napari_mgbpv2.training.data.discovery import find_images
from napari_mgbpv2.training.data.mixed_samples import MixedSamples
from napari_mgbpv2.training.data.prepared_folder import spans
from napari_mgbpv2.training.synthetic import KINDS, numbered_image

Array = npt.NDArray[Any]

SCALE, PATCH = 4, 24


def smooth(*shape: int, dtype: npt.DTypeLike = "u1", seed: int = 0) -> Array:
    """Values over the range of a type that change slowly along the last two axes, or the two before colours."""
    colour = len(shape) > 2 and shape[-1] in (3, 4)
    *leading, height, width = shape[:-1] if colour else shape
    small = np.random.default_rng(seed).random((*leading, *((shape[-1],) * colour), -(-height // 16), -(-width // 16)))
    large = torch.from_numpy(small).reshape(-1, 1, *small.shape[-2:])
    values = bicubic_resize(large, height, width).clamp(0, 1).reshape(*small.shape[:-2], height, width).numpy()
    values = np.moveaxis(values, len(leading), -1) if colour else values
    return (values * (np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1)).astype(dtype)


def in_memory(array: Any, axes: str, path: str = "/memory") -> ImageSource:
    placed = {axis: 1.0 for axis in axes if axis not in "cs"}
    return ImageSource(array, axes, placed, dict.fromkeys(placed), placed, None, None, path, "array")


def whole_pair(image: Array, scale: int, *, white: float, round_to_8_bits: bool = False) -> Pair:
    """The pair of a whole (H, W) or (H, W, 3) image, by the plain definition."""
    height, width = (size // scale * scale for size in image.shape[:2])
    unit = torch.from_numpy(image[:height, :width].astype(np.float32) / np.float32(white))
    target = unit.reshape(height, width, -1).permute(2, 0, 1).expand(3, -1, -1)
    low = shrink(target[None], scale)
    if round_to_8_bits:
        low = (low * 255).round().clamp(0, 255) / 255
    return bicubic_resize(low, height, width)[0], target


def same(one: Pair, other: Pair) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def taken(samples: Any, count: int = 6) -> list[Pair]:
    return [samples[index] for index in range(count)]


def all_same(one: list[Pair], other: list[Pair]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def all_eight(pair: Pair) -> list[Pair]:
    """The flips and rotations of a pair."""
    mirrored = [pair, (pair[0].flip(2), pair[1].flip(2))]
    return [
        (torch.rot90(image, turns, (1, 2)), torch.rot90(target, turns, (1, 2)))
        for image, target in mirrored
        for turns in range(4)
    ]


def save_png(path: Path, image: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save_png(tmp_path / "photo.png", smooth(90, 110, 3))


class TestDegradation:
    """The input of a crop is that of the whole image."""

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_a_crop_is_degraded_as_the_whole_image_is(self, data: st.DataObject) -> None:
        scale = data.draw(st.integers(2, 8), "scale")
        shape = [data.draw(st.integers(1, 12)) * scale for _ in range(2)]
        rows, columns = (
            Span(*sorted(data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size))))) for size in shape
        )
        rows, columns = (Span(start, max(stop, start + 1)) for start, stop in (rows, columns))
        image = an_image(*shape, dtype="f4", seed=sum(shape))
        whole, target = whole_pair(image, scale, white=1)
        sharp = torch.from_numpy(image)[None]
        crop = degraded_crop(
            lambda high, wide: sharp[:, high, wide], (shape[0], shape[1]), scale, rows, columns, stored_as=None
        )
        window = (slice(0, 1), slice(*rows), slice(*columns))
        torch.testing.assert_close(crop[0], whole[window], rtol=0, atol=1e-6)
        assert torch.equal(crop[1], target[window])

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_rounding_to_8_bits_happens_to_the_pixels_of_the_whole_image(self, scale: int) -> None:
        image = an_image(60, 72, 3)
        samples = ImageSamples(in_memory(image, "yxs"), scale, 20, 0, round_to_8_bits=True)
        expected, _ = whole_pair(image, scale, white=255, round_to_8_bits=True)
        crop, _ = samples.pair(0, 0, Span(13, 33), Span(40, 60))
        torch.testing.assert_close(crop, expected[:, 13:33, 40:60], rtol=0, atol=1e-6)

    def test_the_rest_that_the_scale_does_not_divide_is_cut_off(self) -> None:
        image = an_image(33, 34, 3)
        samples = ImageSamples(in_memory(image, "yxs"), 4, 8, 0)
        expected, _ = whole_pair(image, 4, white=255)
        crop, _ = samples.pair(0, 0, Span(24, 32), Span(24, 32))
        torch.testing.assert_close(crop, expected[:, 24:32, 24:32], rtol=0, atol=1e-6)

    def test_a_smooth_sample_is_that_of_a_blurred_image(self) -> None:
        """Away from the border of what is read, which the blur reflects: the same as `scipy.ndimage` for the whole."""
        image = an_image(200, 200, dtype="f4")
        samples = ImageSamples(in_memory(image, "yx"), 2, 120, 0, channels=1, value_range=(0, 1))
        _, target = samples.pair(0, 0, Span(40, 160), Span(40, 160), blur=3.0)
        expected = gaussian_filter(image, 3.0)[40:160, 40:160]
        inner = (slice(12, -12), slice(12, -12))
        np.testing.assert_allclose(target[0].numpy()[inner], expected[inner], rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("share", "smooth_count"), [(0.0, 0), (0.5, 10), (1.0, 20)])
    def test_a_share_of_the_samples_is_smooth(self, share: float, smooth_count: int) -> None:
        image = an_image(120, 120, dtype="f4")
        samples = ImageSamples(in_memory(image, "yx"), 4, 64, 3, channels=1, value_range=(0, 1), smooth_share=share)
        roughness = [float(samples[index][1].diff(dim=-1).abs().mean()) for index in range(20)]
        rough = float(np.abs(np.diff(image)).mean())
        assert sum(each < 0.6 * rough for each in roughness) == pytest.approx(smooth_count, abs=4 * (0 < share < 1))

    def test_a_sample_reads_a_window_and_no_more(self) -> None:
        source = CountingSource(np.broadcast_to(np.uint8(7), (10**6, 10**6, 3)))
        samples = ImageSamples(in_memory(source, "yxs"), 16, PATCH, 0)
        taken(samples, 20)
        assert source.pixels_read <= 20 * 3 * (PATCH + 2 * reach(16)) ** 2


def write_ome_zarr(path: Path, image: Array) -> None:
    group = zarr.open_group(
        path,
        mode="w",
        attributes={
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {
                        "axes": [{"name": axis, "type": "space"} for axis in "zyx"],
                        "datasets": [
                            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
                        ],
                    }
                ],
            }
        },
    )
    group.create_array("0", data=image, chunks=(1, 32, 32))


def write_zarr(path: Path, image: Array) -> None:
    zarr.save_array(path, image)


FORMATS: dict[str, tuple[Callable[[Path, Array], Any], Array]] = {
    "colour.png": (lambda path, image: Image.fromarray(image).save(path), an_image(60, 70, 3)),
    "alpha.png": (
        lambda path, image: Image.fromarray(image).save(path),
        an_image(60, 70, 4) | np.uint8([0, 0, 0, 128]),
    ),
    "grey.png": (lambda path, image: Image.fromarray(image).save(path), an_image(60, 70)),
    "deep.png": (lambda path, image: Image.fromarray(image).save(path), an_image(60, 70, dtype="u2")),
    "photo.jpg": (lambda path, image: Image.fromarray(image).save(path), an_image(60, 70, 3)),
    "plain.tif": (tifffile.imwrite, an_image(60, 70, dtype="u2")),
    "strip.tif": (
        lambda path, image: tifffile.imwrite(path, image, compression="zlib", rowsperstrip=60),
        an_image(60, 70, 3),
    ),
    "tiles.tif": (
        lambda path, image: tifffile.imwrite(path, image, compression="zlib", tile=(16, 16), photometric="rgb"),
        an_image(60, 70, 3, dtype="u2"),
    ),
    "stack.ome.tif": (
        lambda path, image: tifffile.imwrite(path, image, metadata={"axes": "ZYX"}, ome=True),
        an_image(3, 60, 70, dtype="u2"),
    ),
    "float.npy": (np.save, an_image(60, 70, dtype="f4")),
    "plain.zarr": (write_zarr, an_image(60, 70, 3)),
    "stack.ome.zarr": (write_ome_zarr, an_image(3, 60, 70, dtype="u2")),
}


@pytest.fixture(params=FORMATS)
def image_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write, image = FORMATS[request.param]
    path = tmp_path / request.param
    write(path, image)
    return path


def last_plane(path: Path) -> Array:
    """The pixels of a file as (H, W) or (H, W, 3) of its last plane."""
    source = open_source(path)
    pixels = np.asarray(source.data[(slice(None),) * len(source.axes)])
    return pixels[..., :3] if "s" in source.axes else pixels.reshape(-1, *pixels.shape[-2:])[-1]


class TestFormats:
    """Every format that can be upscaled can be trained on."""

    def test_a_pair_from_a_file_is_that_of_its_pixels(self, image_file: Path) -> None:
        samples = ImageSamples(image_file, SCALE, PATCH, 0)
        image = last_plane(image_file)
        white = 255 if image.dtype == np.uint8 else samples.value_range[1]
        expected = whole_pair(image, SCALE, white=white)
        rows, columns = Span(5, 5 + PATCH), Span(41, 41 + PATCH)
        pair = samples.pair(0, samples.images.planes[0].count - 1, rows, columns)
        for crop, whole in zip(pair, expected, strict=True):
            torch.testing.assert_close(crop, whole[:, slice(*rows), slice(*columns)], rtol=0, atol=1e-6)

    def test_samples_from_prepared_patches_are_those_from_the_file(self, image_file: Path, tmp_path: Path) -> None:
        folder = prepare(image_file, tmp_path / "prepared", patch=32, stride=16)
        from_file = ImageSamples(image_file, SCALE, PATCH, 0)
        assert all_same(taken(ImageSamples(folder, SCALE, PATCH, 0)), taken(from_file))

    def test_samples_are_float32_of_the_patch_size(self, image_file: Path) -> None:
        for image in ImageSamples(image_file, SCALE, PATCH, 0)[3]:
            assert (image.dtype, image.shape) == (torch.float32, (3, PATCH, PATCH))
            assert image.is_contiguous()

    @pytest.mark.parametrize("name", ["colour.png", "strip.tif", "tiles.tif", "stack.ome.zarr", "float.npy"])
    def test_loader_workers_read_every_kind_of_file(self, name: str, tmp_path: Path) -> None:
        write, image = FORMATS[name]
        write(tmp_path / name, image)
        samples = ImageSamples(tmp_path / name, SCALE, PATCH, 0)
        expected = samples[0][0], samples[1][0]
        batch, _ = next(iter(sample_loader(samples, 2, workers=1)))
        assert torch.equal(batch, torch.stack(expected))

    def test_pictures_are_decoded_once_and_not_for_each_sample(
        self, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded = []
        decode = PictureArray._decode
        monkeypatch.setattr(PictureArray, "_decode", lambda self: decoded.append(self.path) or decode(self))
        taken(ImageSamples(photo, SCALE, PATCH, 0))
        assert decoded == [str(photo)]

    def test_decoded_copies_go_with_the_samples(
        self, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        samples = ImageSamples(photo, SCALE, PATCH, 0)
        copy = pickle.loads(pickle.dumps(samples))
        del copy
        gc.collect()
        assert list(tmp_path.glob("napari-mgbpv2-*/*"))
        del samples
        gc.collect()
        assert not list(tmp_path.glob("napari-mgbpv2-*"))

    def test_a_full_disk_is_told_of(self, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("napari_mgbpv2.training.data.decoding.open", full_disk, raising=False)
        with pytest.raises(DestinationError, match=r"No space left.*TMPDIR"):
            ImageSamples(photo, SCALE, PATCH, 0)

    def test_a_large_set_keeps_few_files_open(self, tmp_path: Path) -> None:
        for number in range(40):
            np.save(tmp_path / f"{number}.npy", an_image(PATCH, PATCH))
        before = psutil.Process().num_fds()
        samples = ImageSamples(tmp_path, SCALE, PATCH, 0)
        assert psutil.Process().num_fds() <= before + 2
        assert len(samples.images.planes) == 40


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


class TestFinding:
    """Files, folders and patterns."""

    def test_a_folder_is_searched_with_all_below_it_in_order(self, tmp_path: Path) -> None:
        names = ["a/2.png", "a/1.png", "b.png", ".hidden/3.png"]
        for name in names:
            save_png(tmp_path / name, smooth(PATCH, PATCH))
        write_ome_zarr(tmp_path / "a" / "z.ome.zarr", smooth(2, PATCH, PATCH))
        samples = ImageSamples(tmp_path, SCALE, PATCH, 0)
        paths = [Path(planes.path).relative_to(tmp_path).as_posix() for planes in samples.images.planes]
        assert paths == ["a/1.png", "a/2.png", "a/z.ome.zarr", "b.png"]

    def test_a_pattern_names_what_it_matches_and_an_image_counts_once(self, tmp_path: Path) -> None:
        for name in ("x/1.png", "y/2.png", "y/3.jpg"):
            save_png(tmp_path / name, smooth(PATCH, PATCH))
        samples = ImageSamples([f"{tmp_path}/**/*.png", tmp_path / "y" / "2.png"], SCALE, PATCH, 0)
        assert [Path(planes.path).name for planes in samples.images.planes] == ["1.png", "2.png"]

    @pytest.mark.parametrize(
        ("what", "message"),
        [("missing.png", "no such file"), ("*.tif", "matches this pattern"), ("empty", "holds no image")],
    )
    def test_nothing_there_is_one_clear_error(self, what: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(SourceError, match=message):
            ImageSamples(tmp_path / what, SCALE, PATCH, 0)

    def test_no_path_at_all_is_an_error(self) -> None:
        with pytest.raises(SourceError, match="no image is given"):
            ImageSamples([], SCALE, PATCH, 0)

    def test_bad_files_among_good_ones_are_left_out_with_a_warning(self, photo: Path) -> None:
        folder = photo.parent
        (folder / "notes.txt").write_text("no image")
        (folder / "cut.png").write_bytes(photo.read_bytes()[:900])
        save_png(folder / "small.png", smooth(PATCH - 1, 90))
        with pytest.warns(UserWarning, match="3 of 4 images are left out"):
            samples = ImageSamples(folder, SCALE, PATCH, 0)
        assert [Path(path).name for path, _ in samples.skipped] == ["cut.png", "notes.txt", "small.png"]
        assert "smaller than a patch of 24 px" in samples.skipped[2][1]
        assert len(samples.images.planes) == 1

    def test_no_usable_image_is_one_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(ImageError, match=r"none of 1 images can be used.*notes\.txt"):
            ImageSamples(tmp_path, SCALE, PATCH, 0)

    @pytest.mark.parametrize("wrong", [{"scale": 0}, {"patch": 0}, {"seed": -1}])
    def test_numbers_that_make_no_sense_are_refused(self, wrong: dict[str, int], photo: Path) -> None:
        with pytest.raises(ImageError, match=f"{next(iter(wrong))} is"):
            ImageSamples(photo, **{"scale": SCALE, "patch": PATCH, "seed": 0, **wrong})


class Damaged:
    """An array whose right half cannot be read."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, window: tuple[slice, ...]) -> Array:
        if window[1].stop > self.shape[1] // 2:
            raise SourceError("half.tif: a tile is damaged")
        return self.array[window]


class TestDrawing:
    """What a sample is cut from."""

    def test_damage_that_shows_late_is_warned_of_and_drawn_again(self) -> None:
        samples = ImageSamples(in_memory(Damaged(smooth(60, 400)), "yx"), SCALE, PATCH, 0)
        with pytest.warns(UserWarning, match="drawn again: half"):
            pairs = taken(samples, 10)
        with pytest.warns(UserWarning, match="drawn again"):
            assert all_same(taken(samples, 10), pairs)

    def test_every_plane_of_a_stack_is_an_image(self) -> None:
        planes = np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1, 1) * np.ones((PATCH, PATCH), np.uint8)
        samples = ImageSamples(in_memory(planes, "tczyx"), SCALE, PATCH, 0)
        seen = {round(float(target[0, 0, 0]) * 255) for _, target in taken(samples, 100)}
        assert seen == set(range(12))

    def test_colours_may_come_before_rows(self) -> None:
        image = smooth(40, 50, 3)
        first = ImageSamples(in_memory(np.moveaxis(image, -1, 0), "syx"), SCALE, PATCH, 0)
        assert all_same(taken(first), taken(ImageSamples(in_memory(image, "yxs"), SCALE, PATCH, 0)))

    def test_images_are_drawn_in_proportion_to_their_pixels(self) -> None:
        small, large = np.zeros((PATCH, PATCH), np.uint8), np.full((PATCH, 3 * PATCH), 255, np.uint8)
        samples = ImageSamples([in_memory(small, "yx"), in_memory(large, "yx")], SCALE, PATCH, 0)
        share = np.mean([float(target.mean()) for _, target in taken(samples, 400)])
        assert share == pytest.approx(0.75, abs=0.07)

    def test_patches_start_at_every_multiple_of_the_scale(self) -> None:
        image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
        samples = ImageSamples(in_memory(image, "yx"), SCALE, 57, 0, augment=False, value_range=(0, 1))
        starts = {divmod(round(float(target[0, 0, 0])), 64) for _, target in taken(samples, 600)}
        assert starts == set(itertools.product(range(0, 8, SCALE), range(0, 8, SCALE)))

    def test_turned_patches_start_at_multiples_of_the_scale_of_the_turned_image(self) -> None:
        image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
        samples = ImageSamples(in_memory(image, "yx"), SCALE, 57, 0, value_range=(0, 1))
        found = set()
        for _, target in taken(samples, 800):
            for turns, flipped in itertools.product(range(4), (False, True)):
                turned = np.rot90(image[:, ::-1] if flipped else image, turns)
                row, column = (int(i[0]) for i in np.where(turned == round(float(target[0, 0, 0]))))
                if np.array_equal(turned[row : row + 57, column : column + 57], target[0].numpy().round()):
                    found.add((turns, flipped, row % SCALE, column % SCALE))
        assert found == {(turns, flipped, 0, 0) for turns in range(4) for flipped in (False, True)}

    def test_all_eight_orientations_occur_and_input_and_target_stay_aligned(self) -> None:
        image = smooth(48, 48)
        samples = ImageSamples(in_memory(image, "yx"), SCALE, 48, 0)
        plain = whole_pair(image, SCALE, white=255)
        eight = all_eight(plain)
        seen = set()
        for pair in taken(samples, 100):
            (number,) = [i for i, (_, target) in enumerate(eight) if torch.equal(target, pair[1])]
            torch.testing.assert_close(pair[0], eight[number][0], rtol=0, atol=1e-6)
            seen.add(number)
        assert len(seen) == 8

    def test_without_augmentation_nothing_is_turned(self) -> None:
        image = smooth(24, 24)
        samples = ImageSamples(in_memory(image, "yx"), SCALE, 24, 0, augment=False)
        assert all(torch.equal(target, samples[0][1]) for _, target in taken(samples, 20))

    @pytest.mark.parametrize("samples_a_pixel", [1, 2])
    def test_grey_becomes_three_equal_channels(self, samples_a_pixel: int) -> None:
        image = smooth(40, 40)
        pixels = np.stack([image, 255 - image], -1) if samples_a_pixel == 2 else image
        target = ImageSamples(in_memory(pixels, "yxs"[: pixels.ndim]), SCALE, 40, 0, augment=False)[0][1]
        assert torch.equal(target, torch.from_numpy(image).float().expand(3, -1, -1) / 255)

    @pytest.mark.parametrize("samples_a_pixel", [3, 4])
    def test_a_network_of_one_channel_sees_red_green_and_blue_one_by_one(self, samples_a_pixel: int) -> None:
        image = np.zeros((PATCH, PATCH, samples_a_pixel), np.uint8) + np.arange(samples_a_pixel, dtype=np.uint8)
        samples = ImageSamples(in_memory(image, "yxs"), SCALE, PATCH, 0, channels=1)
        assert samples[0][1].shape == (1, PATCH, PATCH)
        assert {round(float(target.mean()) * 255) for _, target in taken(samples, 50)} == {0, 1, 2}

    def test_an_image_that_does_not_fit_the_network_is_left_out(self) -> None:
        with pytest.raises(ImageError, match="has 3 samples, the network takes 5"):
            ImageSamples(in_memory(smooth(40, 40, 3), "yxs"), SCALE, PATCH, 0, channels=5)


class TestValueRange:
    """One map of values for a set."""

    def test_8_bits_have_the_range_of_their_type(self) -> None:
        samples = ImageSamples(in_memory(smooth(40, 40) // 4, "yx"), SCALE, PATCH, 0)
        assert samples.value_range == (0, 255)

    def test_deeper_images_share_a_white_that_few_pixels_exceed(self) -> None:
        dim, bright = (np.linspace(0, top, 300 * 300).reshape(300, 300).astype(np.uint16) for top in (500, 4000))
        bright[7, 7] = 60000
        sources = [in_memory(dim, "yx", "/dim"), in_memory(bright, "yx", "/bright")]
        samples = ImageSamples([*sources, in_memory(smooth(300, 300), "yx", "/8-bit")], SCALE, PATCH, 0)
        low, high = samples.value_range
        assert low == 0
        assert 3700 < high <= 4000
        assert {path: values.high for path, values in samples.value_maps.items()} == {
            "/dim": high,
            "/bright": high,
            "/8-bit": 255,
        }

    def test_it_depends_on_the_images_alone(self) -> None:
        source = in_memory(an_image(300, 300, dtype="u2"), "yx")
        ranges = {ImageSamples(source, SCALE, patch, seed).value_range for patch, seed in ((8, 0), (24, 5))}
        assert len(ranges) == 1

    def test_a_given_range_holds_for_all_images(self) -> None:
        sources = [in_memory(smooth(40, 40), "yx", "/8"), in_memory(smooth(40, 40, dtype="u2"), "yx", "/16")]
        samples = ImageSamples(sources, SCALE, PATCH, 0, value_range=(10, 90))
        assert {(values.low, values.high) for values in samples.value_maps.values()} == {(10, 90)}

    def test_validation_images_take_the_values_of_the_training_images(self) -> None:
        def images(white: int) -> list[ImageSource]:
            deep = np.minimum(smooth(40, 40, dtype="u2"), white)
            return [in_memory(smooth(40, 40), "yx", "/8"), in_memory(deep, "yx", "/16")]

        training = ImageSamples(images(900), SCALE, PATCH, 0)
        assert ImageSamples(images(700), SCALE, PATCH, 0, like=training).value_maps == training.value_maps

    def test_one_bright_pixel_in_a_thousand_dark_ones_is_white(self) -> None:
        image = np.zeros((200, 200), np.float32)
        image[::50, ::50] = 3
        assert ImageSamples(in_memory(image, "yx"), SCALE, PATCH, 0).value_range == (0, 3)

    def test_black_images_are_refused(self) -> None:
        with pytest.raises(ImageError, match="value_range"):
            ImageSamples(in_memory(np.zeros((40, 40), np.float32), "yx"), SCALE, PATCH, 0)

    def test_a_range_that_is_none_is_refused(self) -> None:
        with pytest.raises(ImageError, match="lower one first"):
            ImageSamples(in_memory(smooth(40, 40), "yx"), SCALE, PATCH, 0, value_range=(9, 1))


class TestMixedTypes:
    """Images of different types each have their own white."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
        tifffile.imwrite(folder / "deep.tif", (ramp * 40000).astype("u2"))
        tifffile.imwrite(folder / "float.tif", ramp)
        tifffile.imwrite(folder / "plain.tif", (ramp * 255).astype("u1"))
        return folder

    @pytest.mark.parametrize("prepared", [False, True])
    def test_all_are_as_bright(self, folder: Path, tmp_path: Path, prepared: bool) -> None:
        where = str(tmp_path / "patches") if prepared else None
        samples = ImageSamples(str(folder), SCALE, PATCH, 0, prepared=where)
        for planes, data in zip(samples.images.planes, samples.images.data, strict=True):
            unit = planes.read(data, 0, slice(0, 64), slice(0, 64))
            assert float(unit.max()) == pytest.approx(1, abs=0.01), planes.path

    def test_validation_images_of_a_type_that_training_lacks_have_their_own_white(self, folder: Path) -> None:
        samples = ImageSamples(str(folder / "deep.tif"), SCALE, PATCH, 0)
        others = ImageSamples(str(folder / "float.tif"), SCALE, PATCH, 0, like=samples)
        values = others.images.planes[0].values
        assert (values.low, values.high) == (0, pytest.approx(1, abs=0.01))

    def test_a_pair_of_two_types_has_two_whites(self, folder: Path, tmp_path: Path) -> None:
        high, low = tmp_path / "high", tmp_path / "low"
        for each in (high, low):
            each.mkdir()
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
        tifffile.imwrite(high / "a.tif", (ramp * 40000).astype("u2"))
        tifffile.imwrite(low / "a.tif", ramp[::SCALE, ::SCALE])
        image, target = PairedSamples(str(high), str(low), SCALE, 64, 0)[0]
        assert float(image.mean()) == pytest.approx(float(target.mean()), abs=0.05)


class TestPreparing:
    """The paper's folders of overlapping patches."""

    @given(st.integers(1, 5000))
    def test_patches_begin_on_the_grid_overlap_and_cover_all(self, size: int) -> None:
        parts = spans(size, 1024, 768)
        assert all(start % 16 == 0 for start, _ in parts)
        assert (parts[0].start, parts[-1].stop) == (0, size)
        assert all(before.stop - after.start >= min(256, size) - 15 for before, after in itertools.pairwise(parts))
        assert all(min(size, 1024) <= part.size < 1024 + 16 for part in parts)

    def test_there_is_a_folder_for_each_plane_with_patches_named_by_their_place(self, tmp_path: Path) -> None:
        image = an_image(2, 70, 50, dtype="u2")
        tifffile.imwrite(tmp_path / "stack.tif", image, metadata={"axes": "ZYX"}, ome=True)
        folder = prepare(tmp_path / "stack.tif", tmp_path / "prepared", patch=32, stride=16)
        assert sorted(path.name for path in folder.iterdir()) == ["0000_z0", "0000_z1", "patches.json"]
        patch = np.asarray(Image.open(folder / "0000_z1" / "r16_c0.png"))
        np.testing.assert_array_equal(patch, image[1, 16:48, :32])

    def test_the_index_tells_where_patches_lie_and_what_the_images_were(self, photo: Path, tmp_path: Path) -> None:
        folder = prepare(photo, tmp_path / "prepared", value_range=(0, 99))
        index = json.loads((folder / "patches.json").read_text())
        (image,) = index["images"]
        assert (index["patch"], index["stride"], index["given_range"]) == (1024, 768, [0, 99])
        assert (image["source"], image["shape"], image["axes"]) == (photo.name, [90, 110, 3], "yxs")
        assert (image["rows"], image["columns"], image["folders"]) == ([[0, 90]], [[0, 110]], ["0000"])

    def test_the_index_says_no_path_of_the_images_unless_asked(self, photo: Path, tmp_path: Path) -> None:
        (photo.parent / "cut.png").write_bytes(photo.read_bytes()[:900])
        by_name = prepare(photo.parent, tmp_path / "prepared") / "patches.json"
        by_path = prepare(photo.parent, tmp_path / "with-paths", record_paths=True) / "patches.json"
        assert str(photo.parent) not in by_name.read_text()
        assert str(photo) in by_path.read_text()

    def test_images_of_the_same_name_are_told_apart_by_their_folders(self, tmp_path: Path) -> None:
        for name in ("first", "second"):
            save_png(tmp_path / "images" / name / "1.png", smooth(40, 40, 3))
        index = json.loads((prepare(tmp_path / "images", tmp_path / "prepared") / "patches.json").read_text())
        assert [image["source"] for image in index["images"]] == ["first/1.png", "second/1.png"]

    def test_a_folder_with_whole_paths_as_older_versions_made_it_is_left_as_it_is(
        self, photo: Path, tmp_path: Path
    ) -> None:
        index = prepare(photo, tmp_path / "prepared", record_paths=True) / "patches.json"
        written = index.stat().st_mtime_ns
        prepare(photo, tmp_path / "prepared")
        assert index.stat().st_mtime_ns == written

    def test_images_of_the_same_name_in_two_prepared_folders_are_two(self, tmp_path: Path) -> None:
        folders = []
        for number, name in enumerate(("first", "second")):
            save_png(tmp_path / name / "1.png", smooth(60, 60, 3, seed=number))
            folders.append(prepare(tmp_path / name, tmp_path / f"prepared-{name}"))
        assert len(find_images(folders).images) == 2

    def test_samples_need_the_originals_no_more(self, photo: Path, tmp_path: Path) -> None:
        expected = taken(ImageSamples(photo, SCALE, PATCH, 0))
        folder = prepare(photo, tmp_path / "prepared", patch=32, stride=16)
        photo.unlink()
        assert all_same(taken(ImageSamples(folder, SCALE, PATCH, 0)), expected)

    def test_samples_prepare_a_folder_that_is_not_there_and_use_one_that_is(self, photo: Path, tmp_path: Path) -> None:
        first = ImageSamples(photo, SCALE, PATCH, 0, prepared=tmp_path / "prepared")
        written = (tmp_path / "prepared" / "patches.json").stat().st_mtime_ns
        second = ImageSamples(photo, SCALE, PATCH, 0, prepared=tmp_path / "prepared")
        assert (tmp_path / "prepared" / "patches.json").stat().st_mtime_ns == written
        assert all_same(taken(first), taken(second))

    def test_a_given_range_goes_with_the_folder(self, photo: Path, tmp_path: Path) -> None:
        folder = prepare(photo, tmp_path / "prepared", value_range=(5, 99))
        samples = ImageSamples(folder, SCALE, PATCH, 0)
        assert [(values.low, values.high) for values in samples.value_maps.values()] == [(5, 99)]

    def test_a_prepared_folder_among_the_images_is_none_of_them(self, photo: Path) -> None:
        prepare(photo.parent, photo.parent / "prepared")
        assert prepare(photo.parent, photo.parent / "prepared").exists()
        assert len(ImageSamples(photo.parent, SCALE, PATCH, 0).images.planes) == 1

    def test_files_that_cannot_be_read_are_noted(self, photo: Path, tmp_path: Path) -> None:
        (photo.parent / "cut.png").write_bytes(photo.read_bytes()[:900])
        folder = prepare(photo.parent, tmp_path / "prepared")
        with pytest.warns(UserWarning, match=r"1 of 2 images .*cut\.png"):
            samples = ImageSamples(folder, SCALE, PATCH, 0)
        assert [Path(path).name for path, _ in samples.skipped] == ["cut.png"]

    def test_an_interrupted_preparation_leaves_nothing(
        self, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(prepared_folder, "save_patch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(photo, tmp_path / "prepared")
        assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]

    def test_a_full_disk_is_told_of_and_leaves_nothing(
        self, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prepared_folder, "save_patch", full_disk)
        with pytest.raises(DestinationError, match="No space left"):
            prepare(photo, tmp_path / "prepared")
        assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]

    def test_a_folder_of_something_else_is_refused(self, photo: Path) -> None:
        with pytest.raises(DestinationError, match="is not a folder of prepared patches"):
            prepare(photo, photo.parent)

    def test_a_folder_of_other_patches_is_refused(self, photo: Path, tmp_path: Path) -> None:
        prepare(photo, tmp_path / "prepared")
        save_png(photo, smooth(80, 80, 3))
        with pytest.raises(DestinationError, match="other versions"):
            prepare(photo, tmp_path / "prepared")

    def test_a_damaged_patch_is_named(self, photo: Path, tmp_path: Path) -> None:
        folder = prepare(photo, tmp_path / "prepared")
        (folder / "0000" / "r0_c0.png").write_bytes(b"nothing")
        with pytest.raises(SourceError, match=r"r0_c0\.png"), pytest.warns(UserWarning, match="drawn again"):
            ImageSamples(folder, SCALE, PATCH, 0)[0]

    def test_a_damaged_index_is_one_clear_error(self, photo: Path, tmp_path: Path) -> None:
        folder = prepare(photo, tmp_path / "prepared")
        (folder / "patches.json").write_text("{")
        with pytest.raises(SourceError, match="prepare it again"):
            ImageSamples(folder, SCALE, PATCH, 0)

    def test_patches_that_leave_gaps_are_refused(self, photo: Path, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="gaps"):
            prepare(photo, tmp_path / "prepared", patch=32, stride=48)


@pytest.fixture
def pair_folders(tmp_path: Path) -> tuple[Path, Path]:
    for number in range(2):
        image = smooth(64, 80, 3, seed=number)
        save_png(tmp_path / "high" / f"{number}.png", image)
        save_png(tmp_path / "low" / f"{number}.jpg", image[1::4, 2::4])
    return tmp_path / "high", tmp_path / "low"


class TestPairedSamples:
    """Real pairs of images."""

    def test_the_input_is_the_low_resolution_image_upscaled(self, pair_folders: tuple[Path, Path]) -> None:
        samples = PairedSamples(*pair_folders, SCALE, PATCH, 0)
        low = torch.from_numpy(np.array(Image.open(pair_folders[1] / "1.jpg"))).permute(2, 0, 1).float() / 255
        high = torch.from_numpy(np.array(Image.open(pair_folders[0] / "1.png"))).permute(2, 0, 1).float() / 255
        image, target = samples.pair(1, 0, Span(3, 27), Span(56, 80))
        torch.testing.assert_close(image, bicubic_resize(low[None], 64, 80)[0, :, 3:27, 56:80], rtol=0, atol=1e-6)
        assert torch.equal(target, high[:, 3:27, 56:80])

    def test_samples_stay_aligned_when_they_are_turned(self, pair_folders: tuple[Path, Path]) -> None:
        samples = PairedSamples(pair_folders[0] / "1.png", pair_folders[1] / "1.jpg", SCALE, 64, 0)
        crops = [samples.pair(0, 0, Span(0, 64), Span(left, left + 64)) for left in range(17)]
        known = [turned for crop in crops for turned in all_eight(crop)]
        assert all(any(same(pair, each) for each in known) for pair in taken(samples, 20))

    def test_low_resolution_stacks_go_with_high_resolution_ones(self, tmp_path: Path) -> None:
        for name, step in (("high", 1), ("low", 2)):
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "a.npy", smooth(3, 40, 40, dtype="u2")[:, ::step, ::step])
        samples = PairedSamples(tmp_path / "high", tmp_path / "low", 2, PATCH, 0)
        assert all((image - target).abs().mean() < 0.1 for image, target in taken(samples, 20))

    def test_sizes_that_do_not_fit_are_one_error_that_names_the_pair(self, pair_folders: tuple[Path, Path]) -> None:
        save_png(pair_folders[1] / "1.jpg", smooth(16, 21, 3))
        with pytest.raises(ImageError, match=r"high/1\.png has 64 x 80 px and .*low/1\.jpg has 16 x 21"):
            PairedSamples(*pair_folders, SCALE, PATCH, 0)

    def test_colour_does_not_go_with_grey(self, pair_folders: tuple[Path, Path]) -> None:
        save_png(pair_folders[1] / "1.jpg", smooth(16, 20))
        with pytest.raises(ImageError, match=r"high/1\.png .*low/1\.jpg .*alike"):
            PairedSamples(*pair_folders, SCALE, PATCH, 0)

    def test_images_without_partner_are_left_out_with_a_warning(self, pair_folders: tuple[Path, Path]) -> None:
        (pair_folders[1] / "0.jpg").unlink()
        save_png(pair_folders[1] / "9.jpg", smooth(16, 20, 3))
        with pytest.warns(UserWarning, match="2 of 3"):
            samples = PairedSamples(*pair_folders, SCALE, PATCH, 0)
        assert [Path(path).name for path, _ in samples.skipped] == ["0.png", "9.jpg"]

    def test_two_images_of_one_name_are_refused(self, pair_folders: tuple[Path, Path]) -> None:
        save_png(pair_folders[0] / "1.tif", smooth(64, 80, 3))
        with pytest.raises(ImageError, match="same name"):
            PairedSamples(*pair_folders, SCALE, PATCH, 0)


class TestValidation:
    """What is held out is never seen in training."""

    def test_of_one_image_the_right_part_is_held_out(self) -> None:
        source = CountingSource(smooth(100, 300))
        samples = ImageSamples(in_memory(source, "yx"), SCALE, PATCH, 0, hold_out=0.1)
        taken(samples, 200)
        assert max(window[1].stop for window in source.windows) <= 268
        (pair,) = validation_images(samples)
        expected = whole_pair(source.array, SCALE, white=255)
        torch.testing.assert_close(pair[0], expected[0][:, :, 268:], rtol=0, atol=1e-6)
        assert torch.equal(pair[1], expected[1][:, :, 268:])

    def test_it_looks_at_multiples_of_the_scale(self) -> None:
        image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
        samples = ImageSamples(in_memory(image, "yx"), SCALE, 16, 0, value_range=(0, 1))
        starts = [
            divmod(round(float(target[0, 0, 0])), 64) for _, target in validation_images(samples, count=9, size=21)
        ]
        assert {(row % SCALE, column % SCALE) for row, column in starts} == {(0, 0)}

    def test_training_uses_all_that_is_not_held_out_but_the_reach(self) -> None:
        source = CountingSource(smooth(100, 300))
        samples = ImageSamples(in_memory(source, "yx"), SCALE, PATCH, 0, hold_out=0.1)
        taken(samples, 500)
        assert max(window[1].stop for window in source.windows) >= 270 - 2 * SCALE

    def test_of_many_images_whole_ones_are_held_out(self) -> None:
        sources = [CountingSource(np.full((40, 40), number, np.uint8)) for number in range(20)]
        images = [in_memory(source, "yx", f"/{number}") for number, source in enumerate(sources)]
        samples = ImageSamples(images, SCALE, PATCH, 0, hold_out=0.1)
        taken(samples, 300)
        unread = [number for number, source in enumerate(sources) if not source.windows]
        assert [round(float(target.mean()) * 255) for _, target in validation_images(samples)] == unread
        assert len(unread) == 2

    def test_crops_are_few_of_bounded_size_and_always_the_same(self) -> None:
        samples = ImageSamples(in_memory(smooth(5, 130, 70), "zyx"), SCALE, PATCH, 3)
        pairs = validation_images(samples, count=4, size=32)
        assert [target.shape for _, target in pairs] == [(3, 32, 32)] * 4
        assert all_same(pairs, validation_images(samples, count=4, size=32))
        assert len({target.numpy().tobytes() for _, target in pairs}) == 4

    def test_pairs_of_real_images_are_held_out_too(self, pair_folders: tuple[Path, Path]) -> None:
        pairs = validation_images(PairedSamples(*pair_folders, SCALE, PATCH, 0, hold_out=0.1))
        assert [target.shape for _, target in pairs] == [(3, 64, 8)] * 2

    def test_images_too_small_to_be_divided_are_refused(self) -> None:
        with pytest.raises(ImageError, match="too small to hold out 10%"):
            ImageSamples(in_memory(smooth(30, 30), "yx"), SCALE, PATCH, 0, hold_out=0.1)

    def test_a_share_that_is_none_is_refused(self) -> None:
        with pytest.raises(ImageError, match="hold_out"):
            ImageSamples(in_memory(smooth(30, 30), "yx"), SCALE, PATCH, 0, hold_out=1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_synthetic_images_to_validate_on_are_none_to_train_on(self, kind: str) -> None:
        samples = SyntheticSamples(kind, SCALE, 32, 0, image_size=32, first_images=2, augment=False, uses=10**6)
        held = {target.numpy().tobytes() for _, target in validation_images(samples, count=2)}
        used = {target.numpy().tobytes() for _, target in taken(samples, 20)}
        assert (len(held), len(used), len(held & used)) == (2, 2, 0)


class TestMixing:
    """Samples of images, a share of which is replaced by synthetic ones."""

    @staticmethod
    def mixed(share: float, seed: int = 0) -> MixedSamples:
        images = ImageSamples(in_memory(np.full((64, 64), 77, np.uint8), "yx"), SCALE, PATCH, seed)
        return MixedSamples(images, some_synthetic(seed=seed), share, seed)

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_the_share_of_synthetic_samples_is_the_given_one(self, share: float) -> None:
        samples = self.mixed(share)
        from_image = [bool((target * 255).round().eq(77).all()) for _, target in taken(samples, 200)]
        assert 1 - np.mean(from_image) == pytest.approx(share, abs=0.08)

    def test_a_sample_is_a_function_of_seed_and_index(self) -> None:
        assert all_same(taken(self.mixed(0.5), 20), taken(self.mixed(0.5), 20))
        assert not all_same(taken(self.mixed(0.5), 20), taken(self.mixed(0.5, seed=1), 20))


def some_synthetic(kind: str = "scenes", **options: Any) -> SyntheticSamples:
    small = {"seed": 0, "image_size": 48, "first_images": 3, "uses": 5, "pool": 4}
    return SyntheticSamples(kind, SCALE, PATCH, **{**small, **options})


class TestSyntheticSamples:
    """Synthetic images by number."""

    def test_a_sample_lies_in_one_of_the_last_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        samples, drawn = some_synthetic(uses=20), []
        monkeypatch.setattr(samples, "_image", lambda number: drawn.append(number) or np.zeros((48, 48, 3), np.uint8))
        for index in range(400):
            samples[index]
            frontier = 3 + index // 20
            assert max(0, frontier - 4) <= drawn[-1] < frontier
        assert set(drawn) == set(range(22))

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_kept_saves_time_and_nothing_else(self, kind: str) -> None:
        samples = some_synthetic(kind)
        first = taken(samples, 8)
        shutil.rmtree(samples._store.path)
        assert all_same(taken(samples, 8), first)

    def test_another_seed_gives_other_samples(self) -> None:
        assert not same(some_synthetic(seed=1)[0], some_synthetic(seed=2)[0])

    def test_a_network_of_one_channel_sees_one_colour(self) -> None:
        assert some_synthetic(channels=1)[0][0].shape == (1, PATCH, PATCH)

    def test_a_network_of_colours_sees_grey_as_three_equal_channels(self) -> None:
        for grey, colour in zip(
            some_synthetic("microscopy", channels=1)[0], some_synthetic("microscopy")[0], strict=True
        ):
            assert torch.equal(colour, grey.expand(3, -1, -1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_input_is_the_target_shrunk_and_stored_and_upscaled(self, kind: str) -> None:
        samples = SyntheticSamples(
            kind, SCALE, 48, 0, image_size=48, first_images=1, uses=10**6, augment=False, channels=1
        )
        image, target = samples[0]
        drawn = numbered_image(kind, 0, 0, 48)
        white = 255 if kind == "scenes" else np.percentile(drawn, 99.9)
        low = (shrink(target[None], SCALE) * white).round().clamp(0, np.iinfo(drawn.dtype).max) / white
        torch.testing.assert_close(image, bicubic_resize(low, 48, 48)[0], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("wrong", [{"channels": 2}, {"pool": 0}, {"image_size": 20}])
    def test_options_that_make_no_sense_are_refused(self, wrong: dict[str, int]) -> None:
        with pytest.raises(ImageError):
            some_synthetic(**wrong)


class Numbers(torch.utils.data.Dataset[Pair]):
    """Samples that are their own numbers."""

    def __init__(self, length: int = 2**48) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        return torch.tensor(index), torch.tensor(index)


def numbers(count: int, *arguments: Any, **options: Any) -> list[list[int]]:
    loader = sample_loader(Numbers(), *arguments, **options)
    return [batch.tolist() for batch, _ in itertools.islice(loader, count)]


class TestLoader:
    """Batches in order, from any step, for any number of workers and processes."""

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_batches_come_in_order_from_any_step(self, workers: int) -> None:
        assert numbers(4, 2, start=5, workers=workers) == [[10, 11], [12, 13], [14, 15], [16, 17]]

    def test_processes_share_the_samples_of_one(self) -> None:
        shares = [numbers(3, 2, start=1, rank=rank, world=2) for rank in range(2)]
        assert shares == [[[4, 6], [8, 10], [12, 14]], [[5, 7], [9, 11], [13, 15]]]
        together = [sorted(itertools.chain(*step)) for step in zip(*shares, strict=True)]
        assert together == numbers(3, 4, start=1)

    def test_it_ends_with_the_samples(self) -> None:
        assert len(list(sample_loader(Numbers(11), 2))) == 5

    def test_it_does_not_touch_the_generator_of_the_training(self) -> None:
        before = torch.get_rng_state()
        numbers(2, 2, workers=1)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("wrong", [{"batch": 0}, {"start": -1}, {"rank": 2}])
    def test_numbers_that_make_no_sense_are_refused(self, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="must be at least"):
            sample_loader(Numbers(), **{"batch": 2, "start": 0, "rank": 0, "world": 2, **wrong})

    @pytest.mark.parametrize("kind", ["images", "synthetic"])
    def test_samples_are_the_same_for_any_number_of_workers_and_any_start(self, kind: str, photo: Path) -> None:
        def batches(start: int, workers: int) -> Iterator[list[Tensor]]:
            samples = ImageSamples(photo, SCALE, PATCH, 0) if kind == "images" else some_synthetic()
            return iter(sample_loader(samples, 2, start=start, workers=workers))

        stream = list(itertools.islice(batches(0, 0), 4))
        for start, workers in ((0, 2), (2, 1), (3, 0)):
            for expected, found in zip(stream[start:], batches(start, workers), strict=False):
                assert same(found, expected)

    def test_the_number_of_threads_makes_no_difference(self, photo: Path) -> None:
        samples, threads = ImageSamples(photo, SCALE, PATCH, 0), torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            first = taken(samples)
            torch.set_num_threads(2)
            assert all_same(taken(samples), first)
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.parametrize("kind", ["images", "pairs", "synthetic"])
    def test_a_pickled_set_gives_the_same_samples(
        self, kind: str, photo: Path, pair_folders: tuple[Path, Path]
    ) -> None:
        make: dict[str, Callable[[], Any]] = {
            "images": lambda: ImageSamples(photo, SCALE, PATCH, 0),
            "pairs": lambda: PairedSamples(*pair_folders, SCALE, PATCH, 0),
            "synthetic": some_synthetic,
        }
        samples = make[kind]()
        expected = taken(samples, 4)
        assert all_same(taken(pickle.loads(pickle.dumps(samples)), 4), expected)

    def test_samples_are_numbered_from_0(self, photo: Path) -> None:
        for samples in (ImageSamples(photo, SCALE, PATCH, 0), some_synthetic()):
            with pytest.raises(IndexError):
                samples[-1]
