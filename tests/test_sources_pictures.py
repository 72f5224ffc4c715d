"""What `open_source` promises of pictures and of NumPy's own files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources import open_source
from source_files import Array, all_of, assert_reads, cut, pixels


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

    def test_axes_that_cannot_be_told_can_be_said(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", pixels(1, 1, 1, 2, 20, 30))
        source = open_source(tmp_path / "a.npy", axes="qtczyx")
        assert source.axes == "qtczyx"

    def test_one_dimension_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", pixels(20))
        with pytest.raises(SourceError, match=r"a\.npy: the image has 1 axes, shape \(20,\)"):
            open_source(tmp_path / "a.npy")
