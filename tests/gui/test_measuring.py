"""The range of values that a layer is upscaled with: what occurs in all of it, not in one view."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

from examples import an_image
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.measuring import with_measured_range

FRAME = an_image(64, 64, dtype="f4")


def a_layer(frame: np.ndarray, *, lazy: bool = True, **options: object) -> Image:
    """A stack whose first frame is black."""
    stack = np.stack([np.zeros_like(frame), frame, frame])
    return Image(da.from_array(stack, chunks=(1, 64, 64)) if lazy else stack, **options)


@pytest.mark.parametrize("lazy", [False, True], ids=["NumPy", "Dask"])
@pytest.mark.parametrize("dtype", ["f4", "i2", "i1"])
def test_signed_values_lie_within_the_range(dtype: str, lazy: bool) -> None:
    frame = (FRAME * 200 - 100).astype(dtype)
    measured = with_measured_range(read_layer(a_layer(frame, lazy=lazy)), None)
    low, high = measured.image.value_range
    assert low <= frame.min()
    assert high >= frame.max()
    assert high - low < 1.1 * (float(frame.max()) - float(frame.min()))  # and not that of the type
    if lazy:  # napari has looked at the first frame alone
        assert "as measured on all pixels" in measured.note


def test_bright_frames_behind_a_dark_one_are_seen() -> None:
    measured = with_measured_range(read_layer(a_layer(FRAME * 4000)), None)
    assert measured.image.value_range == pytest.approx((0, 4000 * FRAME.max()))


def test_a_range_that_holds_all_is_left_as_it_is() -> None:
    measured = with_measured_range(read_layer(a_layer(FRAME)), None)
    assert (measured.image.value_range, measured.note) == (None, "")


def test_black_that_is_named_is_kept_with_a_warning() -> None:
    image = read_layer(a_layer(FRAME * 200 - 100))
    measured = with_measured_range(image, (0.0, 100.0))
    assert measured.image is image
    assert "lie below black, which is 0" in measured.warning


def test_of_a_large_image_windows_of_all_planes_are_read() -> None:
    stack = np.zeros((5, 3000, 3000), "f4")
    stack[3, 2900:, 2900:] = -7
    image = read_layer(Image(da.from_array(stack, chunks=(1, 1000, 1000)), contrast_limits=(0, 1)))
    measured = with_measured_range(image, None)
    assert measured.image.value_range[0] < -7
    assert "as measured on a sample of the pixels" in measured.note


def test_of_a_pyramid_a_coarse_level_is_read() -> None:
    fine = da.from_array(np.zeros((64, 64), "f4")).map_blocks(
        lambda block: 1 / 0, dtype="f4", meta=np.empty((0, 0), "f4")
    )
    coarse = np.full((32, 32), -3, "f4")
    coarse[5, 5] = 1
    layer = Image([fine, coarse], multiscale=True, contrast_limits=(0, 1))
    measured = with_measured_range(read_layer(layer), None)
    assert measured.image.value_range[0] < -3
    assert "as measured on a sample of the pixels" in measured.note
