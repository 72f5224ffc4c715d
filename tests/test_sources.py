"""What `open_source` promises of every format that it reads."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from PIL import Image

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import ImageSource, open_source
from source_files import all_of, assert_reads, cut, pixels


class TestEveryFormat:
    """What holds whatever the format is."""

    @pytest.fixture(params=["mapped.tif", "tiled.tif", "a.png", "a.npy", "a.zarr", "a.zarr.zip"])
    def any_path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Write the same image in each format."""
        image, name = pixels(60, 70), str(request.param)
        if name == "mapped.tif":
            tifffile.imwrite(tmp_path / name, image)
        elif name == "tiled.tif":
            tifffile.imwrite(tmp_path / name, image, tile=(16, 16), compression="zstd")
        elif name == "a.png":
            Image.fromarray(image).save(tmp_path / name)
        elif name == "a.npy":
            np.save(tmp_path / name, image)
        else:
            zarr.create_array(tmp_path / "a.zarr", data=image, chunks=(16, 16))
        if name == "a.zarr.zip":
            shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
        return tmp_path / name

    @pytest.mark.skipif(sys.platform == "win32", reason="files in use cannot be cut there")
    def test_cut_short_after_opening(self, any_path: Path) -> None:
        source = open_source(any_path)
        for file in [any_path] if any_path.is_file() else any_path.glob("c/*/*"):
            cut(file, 0.2)
        with pytest.raises(SourceError):
            all_of(source)

    @pytest.mark.skipif(sys.platform == "win32", reason="files in use cannot be cut there")
    @pytest.mark.parametrize("any_path", ["mapped.tif", "a.npy"], indirect=True)
    def test_one_byte_that_is_missing_since_opening_is_noticed(self, any_path: Path) -> None:
        source = open_source(any_path)
        os.truncate(any_path, any_path.stat().st_size - 1)
        with pytest.raises(SourceError, match="cut short"):
            all_of(source)

    @pytest.mark.parametrize("any_path", ["a.png"], indirect=True)
    def test_the_peak_of_decoding_must_fit_into_memory(self, any_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        available = open_source(any_path).data.decoding_bytes  # type: ignore[attr-defined]
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available - 1))
        with pytest.raises(SourceError, match="more than fits into memory"):
            all_of(open_source(any_path))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
        all_of(open_source(any_path))

    def test_several_threads_read_at_once(self, any_path: Path) -> None:
        image, source = pixels(60, 70), open_source(any_path)
        windows = [(slice(y, y + 9), slice(x, x + 9)) for y in range(0, 51, 3) for x in range(0, 61, 5)]
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(lambda window: np.asarray(source.data[window]), windows))
        for window, values in zip(windows, read, strict=True):
            np.testing.assert_array_equal(values, image[window])

    def test_pickles_by_path(self, any_path: Path) -> None:
        pickled = pickle.dumps(open_source(any_path))
        assert len(pickled) < 4000
        assert_reads(pickle.loads(pickled), pixels(60, 70))

    def test_empty_windows_are_empty(self, any_path: Path) -> None:
        assert open_source(any_path).data[slice(5, 5), slice(0, 9)].shape == (0, 9)

    def test_windows_have_values_of_their_own(self, any_path: Path) -> None:
        source = open_source(any_path)
        values = source.data[slice(0, 9), slice(0, 9)]
        values[...] = 0
        assert_reads(source, pixels(60, 70))

    @pytest.mark.parametrize("window", [(slice(0, 9, 2), slice(0, 9)), (0, slice(0, 9)), (slice(0, 1),) * 3])
    def test_only_slices_with_step_one(self, any_path: Path, window: Any) -> None:
        with pytest.raises(IndexError, match="tuple of slices with step 1"):
            open_source(any_path).data[window]

    def test_numpy_takes_all_of_it(self, any_path: Path) -> None:
        np.testing.assert_array_equal(np.asarray(open_source(any_path).data), pixels(60, 70))

    def test_another_series_or_level_is_refused(self, any_path: Path) -> None:
        for choice in ({"series": 1}, {"level": 1}):
            with pytest.raises(SourceError, match="choose 0"):
                open_source(any_path, **choice)

    def test_a_relative_path_is_made_absolute(self, any_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(any_path.parent)
        assert open_source(any_path.name).path == str(any_path)


class TestFilesThatAreNoImage:
    """Each problem is one clear sentence that names the file."""

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"a\.tif: there is no such file"):
            open_source(tmp_path / "a.tif")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").touch()
        with pytest.raises(SourceError, match=r"a\.tif: the file is empty"):
            open_source(tmp_path / "a.tif")

    def test_unknown(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_bytes(bytes(range(256)))
        with pytest.raises(SourceError, match=r"a\.xyz: the content is no image of a known format"):
            open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("cells.ome.tif", "cells"),
        ("cells.ome.tiff", "cells"),
        ("cells.tif", "cells"),
        ("cells.png", "cells"),
        ("cells.zarr.zip", "cells"),
        ("cells.2x.npy", "cells.2x"),
        (".tif", ".tif"),
    ],
)
def test_the_name_has_no_suffixes(file_name: str, name: str) -> None:
    source = ImageSource(np.zeros((1, 1)), "yx", {}, {}, {}, None, None, f"/nowhere/{file_name}", "")
    assert source.name == name


@pytest.mark.parametrize(
    ("written", "long_name"),
    [
        *((name, "micrometer") for name in ("um", "µm", "μm", "\\u00B5m", "micron", "microns", "Micrometre")),
        *((name, "nanometer") for name in ("nm", "nanometers")),
        *(("mm", "millimeter"), ("cm", "centimeter"), ("m", "meter"), ("km", "kilometer"), ("Å", "angstrom")),
        *((name, "inch") for name in ("inch", "inches", "in", '"')),
        *((name, "second") for name in ("s", "sec", "seconds", "second")),
        *(("ms", "millisecond"), ("msec", "millisecond"), ("µs", "microsecond"), ("min", "minute"), ("h", "hour")),
        *((name, None) for name in ("pixel", "", "reference frame", None, 3)),
    ],
)
def test_units_have_long_names(written: object, long_name: str | None) -> None:
    from napari_mgbpv2.io.readers import long_unit

    assert long_unit(written) == long_name


def test_importing_loads_no_format_library() -> None:
    check = (
        "import sys, napari_mgbpv2.io.readers; print({'zarr', 'tifffile', 'PIL', 'torch', 'dask'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
