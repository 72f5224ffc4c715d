"""What `open_source` promises of pictures and of NumPy's own files."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source
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
        alpha = np.where((image == image[0, 0]).all(axis=2), 0, 65535).astype("u2")
        assert_reads(open_source(tmp_path / "a.png"), np.dstack([image, alpha]))

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
        with pytest.raises(SourceError, match=r"a\.h5: the content is no image of a known format"):
            open_source(tmp_path / "a.h5")

    def test_text_named_png_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("this is no picture")
        with pytest.raises(SourceError, match=r"a\.png: the content is no image of a known format"):
            open_source(tmp_path / "a.png")


class TestDeepPictures:
    """16 bits stay 16 bits, and what would be flattened is refused."""

    DEEP = pixels(20, 30, 3)

    @pytest.mark.parametrize("image", [DEEP, DEEP[..., 0]], ids=["P6", "P5"])
    def test_pnm(self, tmp_path: Path, image: Array) -> None:
        kind = b"P6" if image.ndim == 3 else b"P5"
        (tmp_path / "a.ppm").write_bytes(kind + b"\n# 30 20\n30 20\n65535\n" + image.astype(">u2").tobytes())
        assert_reads(open_source(tmp_path / "a.ppm"), image)

    def test_pnm_of_fewer_bits_is_as_bright(self, tmp_path: Path) -> None:
        values = b" ".join(b"%d" % value for value in range(1024))
        (tmp_path / "a.pgm").write_bytes(b"P2 32 32 1023\n" + values)
        read = all_of(open_source(tmp_path / "a.pgm"))
        assert (read.dtype, read.min(), read.max(), len(np.unique(read))) == (np.uint16, 0, 65535, 1024)

    def test_pnm_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / "a.ppm").write_bytes(b"P6 30 20 65535\n" + bytes(100))
        with pytest.raises(SourceError, match=r"a\.ppm: this PPM is damaged or cut short"):
            all_of(open_source(tmp_path / "a.ppm"))

    @pytest.mark.parametrize("image", [DEEP, DEEP[..., 0], DEEP[..., 0].astype("i2")], ids=["RGB", "grey", "signed"])
    def test_jpeg_2000(self, tmp_path: Path, image: Array) -> None:
        from imagecodecs import jpeg2k_encode

        (tmp_path / "a.jp2").write_bytes(jpeg2k_encode(image, codecformat="jp2", reversible=True, level=0))
        assert_reads(open_source(tmp_path / "a.jp2"), image)

    def test_four_components_of_a_jpeg_2000_that_calls_none_alpha_are_bands(self, tmp_path: Path) -> None:
        from imagecodecs import jpeg2k_encode

        image = pixels(20, 30, 4, dtype="u1")
        (tmp_path / "a.jp2").write_bytes(jpeg2k_encode(image, codecformat="jp2", reversible=True, level=0))
        source = open_source(tmp_path / "a.jp2")
        assert source.axes == "yxc"
        assert_reads(source, image)

    def test_avif(self, tmp_path: Path) -> None:
        from imagecodecs import avif_encode

        image = (np.arange(32 * 32).reshape(32, 32, 1) * [1, 1, 1]).astype("u2")
        (tmp_path / "a.avif").write_bytes(avif_encode(image, bitspersample=10, level=100))
        read = all_of(open_source(tmp_path / "a.avif"))
        assert (read.dtype, read.min(), read.max()) == (np.uint16, 0, 65535)
        assert len(np.unique(read)) > 900

    def test_sgi_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / "a.sgi", bpc=2)
        with pytest.raises(SourceError, match=r"a\.sgi: this SGI has more than 8 bits a sample"):
            open_source(tmp_path / "a.sgi")


class TestTransparentColours:
    """A colour that is transparent becomes alpha."""

    @pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16", "1"])
    def test_png(self, tmp_path: Path, mode: str) -> None:
        colours = Image.fromarray(pixels(20, 30, 3, dtype="u1") // 64 * 64)
        image = colours.quantize(8) if mode == "P" else colours.convert("L" if mode == "I;16" else mode)
        values = np.asarray(image)
        if mode == "I;16":
            values = values.astype("u2") * 257
            image = Image.fromarray(values)
        seen = tuple(int(value) for value in values[0, 0]) if mode == "RGB" else int(values[0, 0])
        image.save(tmp_path / "a.png", transparency=seen)
        expected = (values == values[0, 0]) if values.ndim == 2 else (values == values[0, 0]).all(axis=2)
        source = open_source(tmp_path / "a.png")
        assert source.axes == "yxs"
        read = all_of(source)
        assert read.shape[2] in (2, 4)
        np.testing.assert_array_equal(read[..., -1] == 0, expected)
        assert set(np.unique(read[..., -1])) == {0, np.iinfo(read.dtype).max}

    def test_gif(self, tmp_path: Path) -> None:
        image = Image.fromarray(pixels(20, 30, 3, dtype="u1")).quantize(8)
        image.save(tmp_path / "a.gif", transparency=2)
        with Image.open(tmp_path / "a.gif") as written:
            expected = np.asarray(written.convert("RGBA"))
        assert_reads(open_source(tmp_path / "a.gif"), expected)


class TestWhatPicturesSay:
    """Dots per inch, colour profiles, orientation, frames."""

    PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
    def test_dots_per_inch_are_a_pixel_size(self, tmp_path: Path, suffix: str) -> None:
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / f"a.{suffix}", dpi=(2400, 1200))
        source = open_source(tmp_path / f"a.{suffix}")
        assert source.pixel_size == pytest.approx({"y": 25400 / 1200, "x": 25400 / 2400}, rel=1e-4)
        assert source.units == {"y": "micrometer", "x": "micrometer"}

    @pytest.mark.parametrize("dots", [72, 96])
    def test_those_of_a_screen_are_none(self, tmp_path: Path, dots: int) -> None:
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / "a.png", dpi=(dots, dots))
        assert open_source(tmp_path / "a.png").units == {"y": None, "x": None}

    def test_dots_per_inch_turn_with_the_picture(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / "a.jpg", dpi=(2400, 1200), exif=exif)
        assert open_source(tmp_path / "a.jpg").pixel_size == pytest.approx({"y": 25400 / 2400, "x": 25400 / 1200})

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
    def test_a_colour_profile_is_kept(self, tmp_path: Path, suffix: str) -> None:
        Image.fromarray(pixels(20, 30, 3, dtype="u1")).save(tmp_path / f"a.{suffix}", icc_profile=self.PROFILE)
        assert open_source(tmp_path / f"a.{suffix}").icc_profile == self.PROFILE

    def test_a_profile_of_other_colours_is_not(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(20, 30, dtype="u1")).save(tmp_path / "a.png", icc_profile=self.PROFILE)
        assert open_source(tmp_path / "a.png").icc_profile is None

    def test_exif_behind_the_pixels_of_a_png_is_honoured(self, tmp_path: Path) -> None:
        image = pixels(20, 30, dtype="u1")
        Image.fromarray(image).save(tmp_path / "a.png")
        exif = Image.Exif()
        exif[0x0112] = 3
        chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        encoded = (tmp_path / "a.png").read_bytes()
        extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(encoded[:-12] + extra + encoded[-12:])
        assert_reads(open_source(tmp_path / "a.png"), image[::-1, ::-1])

    @pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
    def test_the_frames_of_an_animation_are_its_series(self, tmp_path: Path, suffix: str) -> None:
        frames = [Image.new("RGB", (30, 20), (value, value, value)) for value in (0, 255, 100)]
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50, lossless=True)
        first = open_source(tmp_path / f"a.{suffix}")
        assert first.kind == f"{suffix.upper()}, frame 0 of an animation: series picks another"
        assert all_of(first)[0, 0, 0] == 0
        assert all_of(open_source(tmp_path / f"a.{suffix}", series=1))[0, 0, 0] == 255
        with pytest.raises(SourceError, match="has no series 3; choose 0 to 2"):
            open_source(tmp_path / f"a.{suffix}", series=3)

    def test_further_pictures_of_a_photograph_are_told_of(self, tmp_path: Path) -> None:
        image = Image.fromarray(pixels(20, 30, 3, dtype="u1"))
        image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image.resize((15, 10))])
        assert open_source(tmp_path / "a.jpg").kind == "JPEG, the first of 2 pictures in it"

    def test_cmyk_is_refused(self, tmp_path: Path) -> None:
        Image.new("CMYK", (30, 20), (10, 20, 30, 40)).save(tmp_path / "a.jpg")
        with pytest.raises(SourceError, match=r"a\.jpg: its colours are CMYK; convert it to RGB"):
            open_source(tmp_path / "a.jpg")


class TestHostilePictures:
    """Bounded by what the header promises, before anything is made room for."""

    def test_postscript_is_no_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("RGB", (30, 20)).save(tmp_path / "a.eps")
        monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
        (tmp_path / "a.eps").rename(tmp_path / "a.png")
        with pytest.raises(SourceError, match=r"a\.png: the content is no image of a known format"):
            open_source(tmp_path / "a.png")

    def test_a_huge_picture_in_a_tiny_file_is_refused(self, tmp_path: Path) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
        encoded = b"".join(_chunk(*each) for each in chunks)
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + encoded)
        with pytest.raises(SourceError, match=r"a\.png: announces .* of pixels in a file of"):
            open_source(tmp_path / "a.png")

    def test_a_picture_beyond_a_limit_of_pillow_ends_in_a_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Image.new("RGB", (64, 64)).save(tmp_path / "a.ico", sizes=[(64, 64)])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(SourceError, match=r"a\.ico: "):
            all_of(open_source(tmp_path / "a.ico"))

    @pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
    def test_a_bomb_among_the_texts_ends_in_a_line(self, tmp_path: Path, kind: bytes) -> None:
        Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
        encoded = (tmp_path / "a.png").read_bytes()
        bomb = _chunk(kind, b"name\0\0" + zlib.compress(bytes(2**26)))
        (tmp_path / "a.png").write_bytes(encoded[:33] + bomb + encoded[33:])
        tracemalloc.start()
        with pytest.raises(SourceError, match=r"a\.png: the picture's header is damaged"):
            open_source(tmp_path / "a.png")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**25

    def test_a_jpeg_of_countless_scans_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(64, 64, dtype="u1")).save(tmp_path / "a.jpg", progressive=True)
        encoded = (tmp_path / "a.jpg").read_bytes()
        last = encoded.rindex(b"\xff\xda")
        (tmp_path / "a.jpg").write_bytes(encoded[:last] + encoded[last:-2] * 1000 + encoded[-2:])
        with pytest.raises(SourceError, match=r"a\.jpg: this JPEG has more than 64 scans"):
            all_of(open_source(tmp_path / "a.jpg"))

    def test_a_progressive_jpeg_is_read(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(64, 64, 3, dtype="u1")).save(tmp_path / "a.jpg", progressive=True)
        with Image.open(tmp_path / "a.jpg") as image:
            assert_reads(open_source(tmp_path / "a.jpg"), np.asarray(image))

    def test_no_global_limit_is_changed_while_pictures_are_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Image.fromarray(pixels(64, 64, dtype="u1")).save(tmp_path / "a.png")
        seen = []
        accept = Image.OPEN["PNG"][1]
        monkeypatch.setitem(
            Image.OPEN, "PNG", (lambda *given: seen.append(Image.MAX_IMAGE_PIXELS) or _png(*given), accept)
        )
        open_source(tmp_path / "a.png")
        assert seen == [Image.MAX_IMAGE_PIXELS]


def _png(*given: object) -> object:
    return PngImagePlugin.PngImageFile(*given)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


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
