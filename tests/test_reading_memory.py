"""The memory that is stated for sources that are decoded whole or in large pieces, against what the system counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from imagecodecs import avif_encode, jpeg2k_encode, png_encode
from PIL import Image

from examples import a_network
from napari_mgbpv2.conversion.job import IN_FLIGHT, PROCESS_BYTES, ConversionJob
from napari_mgbpv2.conversion.plan import prepare
from napari_mgbpv2.io.image import reading_memory
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.upscaling.options import UpscaleOptions

SIDE = 1200
MEGABYTE = 10**6
# Opens each image, lets the kernel forget the peak, and reads a corner from as many threads as a conversion has.
MEASURE = """
import ctypes, gc, json, sys
from concurrent.futures import ThreadPoolExecutor
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.io.image import reading_memory

def status(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name + ":"))

trim = ctypes.CDLL(None).malloc_trim
for large, small in zip(sys.argv[1::2], sys.argv[2::2]):
    data = open_source(small).data
    data[tuple(slice(0, 1) for _ in data.shape)]  # loads its libraries
    frame = 1 if large.endswith("frames.webp") else 0
    source = open_source(large, series=frame)
    windows = [
        tuple(slice(at, at + 300) if axis in "yx" else slice(None) for axis in source.axes)
        for at in range(0, 900, 100)
    ]
    gc.collect()
    trim(0)
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda window: source.data[window].size, windows))
    taken = status("VmHWM") - before
    shape = source.data[windows[0]].shape
    print(json.dumps([large, taken, max(reading_memory(source.data, shape, 3))]), flush=True)
    del source, data
"""


def _colours(side: int, samples: int = 3, dtype: str = "u1") -> np.ndarray:
    ramp = np.add.outer(np.arange(side), np.arange(side))
    image = np.stack([ramp * (number + 1) // 9 % 256 for number in range(samples)], -1)
    return (image * (257 if dtype == "u2" else 1)).astype(dtype)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _picture(mode: str = "RGB", **options: Any) -> Callable[[Path, int], object]:
    samples = {"L": 1, "P": 3}.get(mode, len(mode))

    def write(path: Path, side: int) -> None:
        pixels = _colours(side, samples)
        image = Image.fromarray(pixels[..., 0] if samples == 1 else pixels)
        (image.quantize(16) if mode == "P" else image).save(path, **options)

    return write


def _frames(path: Path, side: int) -> None:
    first, second = (Image.fromarray(_colours(side, 4) // part) for part in (1, 2))
    first.save(path, save_all=True, append_images=[second], lossless=True, method=0, quality=0)


def _encoded(encode: Callable[..., bytes], bits: int = 16, **options: Any) -> Callable[[Path, int], object]:
    return lambda path, side: path.write_bytes(encode(_colours(side, dtype="u2") >> (16 - bits), **options))


def _pnm(header: str, samples: int) -> Callable[[Path, int], object]:
    def write(path: Path, side: int) -> None:
        values = _colours(side, samples, "u2") >> 4
        path.write_bytes(header.format(side).encode() + values.astype(">u2").tobytes())

    return write


def _text_pnm(path: Path, side: int) -> None:
    lines = (" ".join(map(str, row)) for row in (_colours(side, 1, "u2")[..., 0] >> 4).tolist())
    path.write_text(f"P2\n{side} {side}\n4095\n" + "\n".join(lines))


def _tiff(compression: str, dtype: str = "u1", **options: Any) -> Callable[[Path, int], object]:
    given = {"photometric": "rgb", "rowsperstrip": SIDE, "compression": compression, **options}
    return lambda path, side: tifffile.imwrite(path, _colours(side, dtype=dtype), **given)


def _pages(path: Path, side: int) -> None:
    pages = np.moveaxis(_colours(side, 4), -1, 0).copy()
    tifffile.imwrite(path, pages, photometric="minisblack", rowsperstrip=side, compression="zlib")


def _nifti(slope: float) -> Callable[[Path, int], object]:
    def write(path: Path, side: int) -> None:
        image = nibabel.Nifti1Image(_colours(side, dtype="u2"), np.eye(4))
        image.header.set_slope_inter(slope, 3 * (slope != 1))
        image.to_filename(path)

    return write


def _zarr(part: int) -> Callable[[Path, int], object]:
    def write(path: Path, side: int) -> None:
        zarr.create_array(path, data=_colours(side, dtype="u2"), chunks=(-(-side // part),) * 2 + (3,))

    return write


KINDS: dict[str, Callable[[Path, int], object]] = {
    "grey.png": _picture("L"),
    "colours.png": _picture(),
    "alpha.png": _picture("RGBA"),
    "grey-alpha.png": _picture("LA"),
    "palette.png": _picture("P"),
    "transparent-palette.png": _picture("P", transparency=3),
    "transparent.png": _picture(transparency=(1, 2, 3)),
    "deep.png": _encoded(png_encode, level=1),
    "a.jpg": _picture(),
    "turned.jpg": _picture(exif=_turned()),
    "progressive.jpg": _picture(progressive=True, subsampling=0, quality=95),
    "a.webp": _picture(method=0),
    "lossless.webp": _picture("RGBA", lossless=True, method=0, quality=0),
    "frames.webp": _frames,
    "a.gif": _picture("P"),
    "a.bmp": _picture(),
    "a.jp2": _picture(quality_mode="rates", quality_layers=[20]),
    "deep.jp2": _encoded(jpeg2k_encode, level=60),
    "a.avif": _picture(speed=10),
    "deep.avif": _encoded(avif_encode, 10, bitspersample=10, speed=10, level=50),
    "deep.ppm": _pnm("P6\n{0} {0}\n4095\n", 3),
    "text.pgm": _text_pnm,
    "deflate.tif": _tiff("zlib", "u2", predictor=True),
    "lzw.tif": _tiff("lzw"),
    "jpeg.tif": _tiff("jpeg"),
    "jpeg2000.tif": _tiff("jpeg2000", "u2"),
    "webp.tif": _tiff("webp"),
    "turned.tif": _tiff("zlib", extratags=[(274, "H", 1, 6, True)]),
    "tiles.tif": _tiff("zlib", tile=(256, 256), rowsperstrip=None),
    "pages.tif": _pages,
    "a.nii.gz": _nifti(1),
    "scaled.nii.gz": _nifti(2),
    "whole.zarr": _zarr(1),
    "quarters.zarr": _zarr(2),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """Bytes that reading each kind takes and that are stated, from one process that reads them all."""
    folder, arguments = tmp_path_factory.mktemp("kinds"), []
    (folder / "small").mkdir()
    for name, write in KINDS.items():
        write(folder / name, SIDE)
        write(folder / "small" / name, 16)
        arguments += [str(folder / name), str(folder / "small" / name)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        env={
            **os.environ,
            "MALLOC_MMAP_THRESHOLD_": "131072",
        },  # what is freed is given back, and seen when taken again
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return {Path(path).name: (taken, stated) for path, taken, stated in found}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process cannot be reset there")
@pytest.mark.parametrize("name", KINDS)
def test_reading_takes_no_more_memory_than_is_stated(name: str, measured: dict[str, tuple[int, int]]) -> None:
    taken, stated = measured[name]
    assert taken <= stated + 6 * MEGABYTE  # windows and threads, which are part of what a process needs anyway


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process cannot be reset there")
def test_what_is_stated_is_not_far_beyond_what_is_taken(measured: dict[str, tuple[int, int]]) -> None:
    measured = dict(measured)
    del measured["quarters.zarr"]  # of the chunks that a window may touch, few are touched at a time
    assert {name: found for name, found in measured.items() if found[1] > 2.5 * found[0] + 24 * MEGABYTE} == {}


def test_a_conversion_states_what_decoding_takes(tmp_path: Path) -> None:
    """With a network so small that decoding takes most."""
    Image.fromarray(np.zeros((SIDE, SIDE, 3), "u1")).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((SIDE, SIDE, 3), "u1"))
    stated = {
        name: prepare(
            ConversionJob(tmp_path / name, tmp_path / "out.ome.zarr", UpscaleOptions(model=a_network()))
        ).memory_bytes
        for name in ("a.png", "a.npy")
    }
    decoding = open_source(tmp_path / "a.png").data.reading_memory((9, 9, 3), IN_FLIGHT)
    assert stated["a.png"] >= PROCESS_BYTES + decoding.first
    assert stated["a.png"] >= stated["a.npy"] + decoding.steady


def test_chunks_of_dask_that_are_computed_for_a_window_are_counted() -> None:
    image = da.zeros((4000, 4000), chunks=(1000, 2000), dtype="u2")
    assert reading_memory(image, (300, 300), 1).steady == 2 * 2 * 2 * 1000 * 2000 * 2


def test_arrays_in_memory_take_nothing_more() -> None:
    assert reading_memory(np.zeros((40, 40)), (9, 9), 3) == (0, 0)
