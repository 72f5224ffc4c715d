"""What of a picture arrives in results and previews: colour profile, orientation, alpha, 16 bits."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageCms

import napari_mgbpv2 as mgbp
from examples import Array, a_network
from napari_mgbpv2.cli.preview import write_preview
from napari_mgbpv2.conversion import ConversionJob, prepare, run
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.upscaling.options import UpscaleOptions

NETWORK = a_network(scale=2)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def a_picture(dtype: str = "u1", samples: int = 3) -> Array:
    """A ramp with a bright corner at the top left."""
    image = np.zeros((40, 60, samples), dtype)
    white = np.iinfo(dtype).max
    image[..., :3] = (np.arange(60)[:, np.newaxis] * (white // 120)).astype(dtype)
    image[:12, :18] = white
    return image


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_colour_profile_travels_into_a_tiff(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(a_picture()).save(tmp_path / f"a.{suffix}", icc_profile=PROFILE)
    mgbp.convert(tmp_path / f"a.{suffix}", tmp_path / "a.ome.tif", model=NETWORK)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.pages[0].iccprofile == PROFILE
    assert open_source(tmp_path / "a.ome.tif").icc_profile == PROFILE


@pytest.mark.parametrize("form", ["0.5", "0.4"])
def test_the_colour_profile_is_an_attribute_of_an_ome_zarr(tmp_path: Path, form: str) -> None:
    Image.fromarray(a_picture()).save(tmp_path / "a.png", icc_profile=PROFILE)
    mgbp.convert(tmp_path / "a.png", tmp_path / "a.ome.zarr", model=NETWORK, format=form)
    ours: Any = zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["napari_mgbpv2"]
    assert base64.b64decode(ours["icc_profile"]) == PROFILE
    assert open_source(tmp_path / "a.ome.zarr").icc_profile == PROFILE


def preview_of(source: Path, folder: Path, **options: Any) -> Image.Image:
    """Convert and preview an image."""
    prepared = prepare(ConversionJob(source, folder / "result.ome.zarr", UpscaleOptions(model=NETWORK), **options))
    destination = run(prepared)
    return Image.open(write_preview(prepared, destination, folder / "preview.png"))


class TestPreviews:
    """`--preview`."""

    @pytest.mark.parametrize("form", ["0.5", "zarr"])
    def test_of_a_picture_with_alpha_and_a_profile(self, tmp_path: Path, form: str) -> None:
        image = a_picture(samples=4)
        image[..., 3] = 255
        image[20:, :, 3] = 0
        image[20:, :, :3] = (255, 0, 255)
        Image.fromarray(image).save(tmp_path / "a.png", icc_profile=PROFILE)
        preview = preview_of(tmp_path / "a.png", tmp_path, format=form)
        assert (preview.mode, preview.size, preview.info["icc_profile"]) == ("RGBA", (240, 80), PROFILE)
        shown = np.asarray(preview).astype(int)
        for side in (shown[:, :120], shown[:, 120:]):
            assert (side[60:, :, 3] == 0).all()
            assert (side[:30, :, 3] == 255).all()
        assert np.ptp(shown[24:60, :120][shown[24:60, :120, 3] > 0][:, :3], axis=1).max() <= 3

    def test_of_a_turned_picture(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(a_picture()).save(tmp_path / "a.png", exif=exif)
        preview = np.asarray(preview_of(tmp_path / "a.png", tmp_path))
        assert preview.shape == (120, 160, 3)
        assert preview[10, 70].min() > 200  # the bright corner is at the top right of the left half

    def test_of_16_bits(self, tmp_path: Path) -> None:
        from imagecodecs import png_encode

        (tmp_path / "a.png").write_bytes(png_encode(a_picture("u2")))
        preview = np.asarray(preview_of(tmp_path / "a.png", tmp_path))
        assert preview[10, 10].min() > 200
        assert len(np.unique(preview[40:, :120])) > 50
