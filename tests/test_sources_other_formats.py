"""Formats that need a package of their own: NIfTI by nibabel, others by the readers of bioio."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mrc
import nibabel
import numpy as np
import pytest

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import open_source
from source_files import Array, all_of, assert_reads, cut, pixels


def write_nifti(
    path: Path, voxels: Array, affine: Any = None, *, zooms: tuple[float, ...] = (), **options: Any
) -> None:
    """Write voxels in the order x, y, z, t."""
    image = options.get("kind", nibabel.Nifti1Image)(
        voxels, np.diag([0.5, 0.25, 2.0, 1.0]) if affine is None else affine
    )
    image.header.set_xyzt_units("mm", "sec")
    if zooms:
        image.header.set_zooms(zooms)
    if "slope" in options:
        image.header.set_slope_inter(options["slope"], options["inter"])
    nibabel.save(image, path)


class TestNifti:
    @pytest.mark.parametrize("name", ["brain.nii", "brain.nii.gz", "brain.hdr"])
    @pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
    def test_voxels_come_as_z_y_x(self, tmp_path: Path, name: str, dtype: str) -> None:
        voxels = pixels(50, 40, 6, dtype=dtype)
        write_nifti(tmp_path / name, voxels, kind=nibabel.Nifti1Pair if name.endswith("hdr") else nibabel.Nifti1Image)
        source = open_source(tmp_path / name)
        assert (source.name, source.kind, source.axes) == ("brain", "NIfTI", "zyx")
        assert source.pixel_size == {"z": 2.0, "y": 0.25, "x": 0.5}
        assert source.units == {"z": "millimeter", "y": "millimeter", "x": "millimeter"}
        assert_reads(source, voxels.T)
        assert_reads(pickle.loads(pickle.dumps(source)), voxels.T)

    def test_nifti_2(self, tmp_path: Path) -> None:
        write_nifti(tmp_path / "a.nii", pixels(50, 40, 6), kind=nibabel.Nifti2Image)
        assert_reads(open_source(tmp_path / "a.nii"), pixels(50, 40, 6).T)

    def test_big_endian(self, tmp_path: Path) -> None:
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(">u2")
        nibabel.save(nibabel.Nifti1Image(pixels(50, 40, 6), np.eye(4), header), tmp_path / "a.nii")
        assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\1\x5c"
        assert_reads(open_source(tmp_path / "a.nii"), pixels(50, 40, 6).T)

    def test_time_and_vectors(self, tmp_path: Path) -> None:
        write_nifti(tmp_path / "t.nii", pixels(20, 30, 4, 3), zooms=(0.5, 0.25, 2.0, 1.5))
        source = open_source(tmp_path / "t.nii")
        assert source.axes == "tzyx"
        assert (source.pixel_size["t"], source.units["t"]) == (1.5, "second")
        write_nifti(tmp_path / "v.nii", pixels(20, 30, 4, 1, 3))
        assert open_source(tmp_path / "v.nii").axes == "ctzyx"

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_scaled_voxels_have_their_scaled_values(self, tmp_path: Path, name: str) -> None:
        voxels = pixels(50, 40, 6, dtype="i2")
        write_nifti(tmp_path / name, voxels, slope=0.5, inter=-1024)
        source = open_source(tmp_path / name)
        assert source.data.dtype == np.float32
        np.testing.assert_array_equal(all_of(source), (voxels * 0.5 - 1024).T)
        np.testing.assert_array_equal(all_of(source), nibabel.load(tmp_path / name).get_fdata().T)
        assert pickle.loads(pickle.dumps(source)).data.dtype == np.float32

    def test_the_position_is_that_of_an_upright_image(self, tmp_path: Path) -> None:
        upright = np.array([[0.5, 0, 0, 7], [0, 0.25, 0, -8], [0, 0, 2, 9], [0, 0, 0, 1]])
        mirrored, turned = upright * [[-1], [1], [1], [1]], upright[[1, 0, 2, 3]]
        for name, affine in (("upright", upright), ("mirrored", mirrored), ("turned", turned)):
            write_nifti(tmp_path / f"{name}.nii", pixels(50, 40, 6), affine)
        assert open_source(tmp_path / "upright.nii").translation == {"z": 9.0, "y": -8.0, "x": 7.0}
        assert open_source(tmp_path / "mirrored.nii").translation == {"z": 0.0, "y": 0.0, "x": 0.0}
        assert open_source(tmp_path / "turned.nii").translation == {"z": 0.0, "y": 0.0, "x": 0.0}

    def test_a_position_that_is_not_carried_is_stated(self, tmp_path: Path) -> None:
        upright = np.array([[0.5, 0, 0, 7], [0, 0.25, 0, -8], [0, 0, 2, 9], [0, 0, 0, 1]])
        write_nifti(tmp_path / "upright.nii", pixels(50, 40, 6), upright)
        write_nifti(tmp_path / "mirrored.nii", pixels(50, 40, 6), upright * [[-1], [1], [1], [1]])
        assert open_source(tmp_path / "upright.nii").notes == ()
        assert "mirrored or turned" in open_source(tmp_path / "mirrored.nii").notes[0]

    def test_windows_of_a_compressed_file_decode_it_once(self, tmp_path: Path) -> None:
        write_nifti(tmp_path / "a.nii.gz", pixels(50, 40, 6))
        source = open_source(tmp_path / "a.nii.gz")
        everything = slice(None)
        source.data[slice(0, 1), everything, everything]
        (tmp_path / "a.nii.gz").unlink()
        assert_reads(source, pixels(50, 40, 6).T)

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_cut_short(self, tmp_path: Path, name: str) -> None:
        write_nifti(tmp_path / name, pixels(50, 40, 6))
        cut(tmp_path / name, 0.7)
        with pytest.raises(SourceError, match=rf"{name}: .*cut short"):
            all_of(open_source(tmp_path / name))

    @pytest.mark.parametrize(
        ("start", "name"), [(b"\x5c\1\0\0", "a.nii"), (b"\x1f\x8b", "a.nii.gz"), (b"\x1f\x8b", "a")]
    )
    def test_what_only_begins_like_one_is_refused(self, tmp_path: Path, start: bytes, name: str) -> None:
        (tmp_path / name).write_bytes(start + bytes(400))
        with pytest.raises(SourceError, match=rf"{name}: cannot be read as NIfTI"):
            open_source(tmp_path / name)

    @pytest.mark.parametrize("dtype", ["c8", [("R", "u1"), ("G", "u1"), ("B", "u1")]])
    def test_what_is_no_number_is_refused(self, tmp_path: Path, dtype: Any) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype), np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(SourceError, match=r"a\.nii: holds .* an image has boolean, integer or floating-point"):
            open_source(tmp_path / "a.nii")

    def test_without_nibabel_it_says_how_to_install_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_nifti(tmp_path / "a.nii", pixels(50, 40, 6))
        monkeypatch.setitem(sys.modules, "nibabel", None)
        with pytest.raises(SourceError, match=r'a\.nii: .*pip install "napari-mgbpv2\[nifti\]"'):
            open_source(tmp_path / "a.nii")


class TestBioIO:
    """A DeltaVision file, by its reader bioio-dv."""

    @pytest.fixture
    def stack(self, tmp_path: Path) -> Path:
        mrc.imsave(tmp_path / "cells.dv", pixels(2, 5, 40, 50), metadata={"dx": 0.125, "dy": 0.125, "dz": 0.5})
        return tmp_path / "cells.dv"

    def test_axes_sizes_and_pixels(self, stack: Path) -> None:
        source = open_source(stack)
        assert (source.name, source.kind, source.axes) == ("cells", "DV", "czyx")
        assert source.pixel_size == {"z": 0.5, "y": 0.125, "x": 0.125}
        assert source.channel_names is None
        assert source.data.chunk_shape == (1, 1, 40, 50)
        assert_reads(source, pixels(2, 5, 40, 50))

    def test_a_first_number_like_that_of_a_bitmap_misleads_nobody(self, tmp_path: Path) -> None:
        """Device-independent bitmaps begin with 40 or 56, as do DeltaVision files of that many columns."""
        mrc.imsave(tmp_path / "cells.dv", pixels(1, 5, 30, 56))
        assert_reads(open_source(tmp_path / "cells.dv"), pixels(5, 30, 56))

    def test_the_unit_may_be_said_where_the_reader_does_not(self, stack: Path) -> None:
        assert open_source(stack).units == {"z": None, "y": None, "x": None}
        assert open_source(stack, unit="um").units == {"z": "micrometer", "y": "micrometer", "x": "micrometer"}

    def test_axes_of_length_one_are_left_out(self, tmp_path: Path) -> None:
        mrc.imsave(tmp_path / "a.dv", pixels(40, 50))
        source = open_source(tmp_path / "a.dv")
        assert source.axes == "yx"
        assert_reads(source, pixels(40, 50))

    def test_it_pickles_by_path(self, stack: Path) -> None:
        pickled = pickle.dumps(open_source(stack))
        assert len(pickled) < 4000
        assert_reads(pickle.loads(pickled), pixels(2, 5, 40, 50))

    def test_several_threads_read_at_once(self, stack: Path) -> None:
        source = open_source(stack)
        windows = [(slice(c, c + 1), slice(z, z + 1), slice(3, 30), slice(5, 45)) for c in (0, 1) for z in range(5)] * 5
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(lambda window: source.data[window], windows))
        for window, values in zip(windows, read, strict=True):
            np.testing.assert_array_equal(values, pixels(2, 5, 40, 50)[window])

    def test_what_the_reader_does_not_say_is_unknown(self, stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from bioio_dv import Reader

        def fail(_: object) -> None:
            raise KeyError("damaged header")

        monkeypatch.setattr(Reader, "physical_pixel_sizes", property(fail))
        source = open_source(stack)
        assert source.pixel_size == {"z": 1.0, "y": 1.0, "x": 1.0}
        assert_reads(source, pixels(2, 5, 40, 50))

    @pytest.mark.parametrize("choice", [{"series": 1}, {"level": 1}])
    def test_another_scene_or_level_is_refused(self, stack: Path, choice: dict[str, int]) -> None:
        with pytest.raises(SourceError, match="choose 0"):
            open_source(stack, **choice)

    def test_a_damaged_file_is_one_clear_error(self, stack: Path) -> None:
        cut(stack, 0.5)
        with pytest.raises(SourceError, match=r"cells\.dv: its reader fails \(.*\); check the file and the reader"):
            all_of(open_source(stack))

    @pytest.mark.parametrize("installed", [True, False])
    def test_without_a_reader_it_says_what_to_install(
        self, tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
        if not installed:
            monkeypatch.setitem(sys.modules, "bioio", None)
        with pytest.raises(SourceError, match=r"a\.czi: .*install napari-mgbpv2\[bioio\] and a reader of its format"):
            open_source(tmp_path / "a.czi")
