"""Files as they come out of microscopes, scanners, archives and scripts, each taken through the command.

Each file is written by the library that people write it with. What the command makes of it is read as any tool of
OME-Zarr would read it, from its metadata, and its pixels must be those of upscaling the plain array.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrc
import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import yaozarrs
import zarr
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.model.checkpoints import save_model
from source_files import write_ome_zarr
from zarr_server import serving

Array = npt.NDArray[Any]
SCALE = 2
ORDER = "tczyx"  # of OME-Zarr; samples of a colour are channels there


@dataclass(frozen=True)
class Case:
    """A file, and what must be known of it afterwards.

    Attributes
    ----------
    write
        Writes it into a folder and returns what the command is given.
    image, axes
        The pixels that it holds, and their axes.
    size, units
        Of its pixels, along each axis but c and s.
    names
        Of its channels.
    options
        Of the command.
    value_range
        Black and white, where the type does not say them.
    place
        Of the centre of its first pixel, along y and x.
    """

    write: Callable[[Path], Path | str]
    image: Array
    axes: str
    size: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    place: float | dict[str, float] = 0.0


CELLS = an_image(2, 44, 52, dtype="u2")
SLIDE = np.kron(an_image(6, 7, 3), np.ones((8, 8, 1), "u1"))
STACK = an_image(2, 3, 2, 30, 36, dtype="u2")
MICROMETERS = {"y": "micrometer", "x": "micrometer"}


def fluorescence_pyramid(folder: Path) -> Path:
    """Write an OME-TIFF as microscopes do: tiles, Zstandard with a predictor, levels in SubIFDs."""
    metadata = {
        "axes": "CYX",
        **{"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.325, "PhysicalSizeYUnit": "µm"},
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    options: dict[str, Any] = {"tile": (16, 16), "compression": "zstd", "predictor": True, "photometric": "minisblack"}
    with tifffile.TiffWriter(folder / "cells.ome.tif", bigtiff=True) as writer:
        writer.write(CELLS, subifds=1, metadata=metadata, **options)
        writer.write(CELLS[:, ::2, ::2], subfiletype=1, **options)
    return folder / "cells.ome.tif"


def slide_scan(folder: Path) -> Path:
    """Write an Aperio slide: BigTIFF, RGB tiles, micrometres per pixel in its description."""
    about = "Aperio Image Library v12.0.15\n56x48 (16x16) |AppMag = 20|MPP = 0.5022"
    options: dict[str, Any] = {"tile": (16, 16), "photometric": "rgb", "compression": "jpeg2000", "bigtiff": True}
    tifffile.imwrite(folder / "slide.svs", SLIDE, description=about, metadata=None, **options)
    return folder / "slide.svs"


def jpeg_tiles(folder: Path) -> Path:
    tifffile.imwrite(folder / "tiles.tif", SLIDE, tile=(16, 16), photometric="rgb", compression="jpeg")
    return folder / "tiles.tif"


def imagej_hyperstack(folder: Path) -> Path:
    metadata = {"axes": "TZCYX", "spacing": 2.0, "unit": "\\u00B5m", "finterval": 30.0}
    tifffile.imwrite(folder / "stack.tif", STACK, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
    return folder / "stack.tif"


def second_series(folder: Path) -> Path:
    """Write a file of two images: an overview, then the image."""
    with tifffile.TiffWriter(folder / "two.ome.tif") as writer:
        writer.write(an_image(16, 16), metadata={"axes": "YX"})
        writer.write(CELLS[0], metadata={"axes": "YX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 4.0})
    return folder / "two.ome.tif"


def plane_in_each_file(folder: Path) -> Path:
    planes = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="c{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for c in (0, 1)
    )
    for c in (0, 1):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{c}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="52" SizeY="44" '
            'SizeZ="1" SizeC="2" SizeT="1" PhysicalSizeX="100" PhysicalSizeXUnit="nm" PhysicalSizeY="100" '
            'PhysicalSizeYUnit="nm"><Channel ID="Channel:0:0" Name="red" SamplesPerPixel="1"/>'
            f'<Channel ID="Channel:0:1" Name="far red" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"c{c}.ome.tif", CELLS[c], description=xml, metadata=None, compression="lzw")
    return folder / "c0.ome.tif"


def planar_scan(folder: Path) -> Path:
    """Write a flatbed scan: big-endian, samples apart, LZW strips, 4000 dots a centimetre."""
    options: dict[str, Any] = {"byteorder": ">", "photometric": "rgb", "planarconfig": "separate", "compression": "lzw"}
    options |= {"rowsperstrip": 5, "predictor": True, "resolution": (4000, 4000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "scan.tif", SLIDE.transpose(2, 0, 1), **options)
    return folder / "scan.tif"


HEIGHTS = an_image(40, 50, dtype="f4") * 100
HEIGHTS[:9, 30:] = np.nan


def elevation_map(folder: Path) -> Path:
    """Write a GeoTIFF of 5 metres a pixel in one strip, with GDAL's value where nothing was measured."""
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9001)
    tags = [
        (33550, "d", 3, (5.0, 5.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
        (34735, "H", 12, keys, True),
        (42113, "s", 0, "-3.4028234663852886e+38", True),
    ]
    image = np.nan_to_num(HEIGHTS, nan=np.finfo("f4").min)
    options: dict[str, Any] = {"compression": "deflate", "predictor": 3, "rowsperstrip": 40}
    tifffile.imwrite(folder / "dem.tif", image, extratags=tags, metadata=None, **options)
    return folder / "dem.tif"


def radiograph(folder: Path) -> Path:
    """Write an X-ray film: 0 is white."""
    tifffile.imwrite(folder / "film.tif", 65535 - CELLS[0], photometric="miniswhite", rowsperstrip=7)
    return folder / "film.tif"


PALETTE = Image.fromarray(SLIDE).quantize(32)


def palette_scan(folder: Path) -> Path:
    PALETTE.save(folder / "palette.tif", compression="packbits")
    return folder / "palette.tif"


LEVELS: dict[str, Any] = {
    "levels": [CELLS, CELLS[:, ::2, ::2]],
    "axes": [{"name": "c", "type": "channel"}]
    + [{"name": axis, "type": "space", "unit": "nanometer"} for axis in ("y", "x")],
    "datasets": [[{"type": "scale", "scale": [1.0, 65.0 * step, 65.0 * step]}] for step in (1, 2)],
    "channels": [{"label": "actin", "color": "FF0000"}, {"label": "tubulin", "color": "00FF00"}],
}


def ome_zarr_of_2022(folder: Path) -> Path:
    return write_ome_zarr(folder / "old.zarr", version="0.4", **LEVELS)


def ome_zarr(folder: Path) -> Path:
    return write_ome_zarr(folder / "new.ome.zarr", version="0.5", **LEVELS)


def xarray_zarr(folder: Path) -> Path:
    attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["time", "y", "x"]}
    zarr.create_array(folder / "a.zarr", data=CELLS, chunks=(1, 20, 20), zarr_format=2, attributes=attributes)
    return folder / "a.zarr"


def zipped_shards(folder: Path) -> Path:
    zarr.create_array(folder / "a.zarr", data=CELLS, chunks=(1, 8, 8), shards=(1, 32, 32))
    return Path(shutil.make_archive(str(folder / "a.zarr"), "zip", folder / "a.zarr"))


def png_of_16_bits(folder: Path) -> Path:
    Image.fromarray(CELLS[0]).save(folder / "a.png")
    return folder / "a.png"


def phone_picture(folder: Path) -> Path:
    """Write a JPEG that lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SLIDE).save(folder / "photo.jpg", exif=exif, quality=95)
    return folder / "photo.jpg"


def phone_pixels() -> Array:
    """Decode the picture of `phone_picture` and turn it upright."""
    stream = io.BytesIO()
    Image.fromarray(SLIDE).save(stream, "JPEG", quality=95)
    return np.rot90(np.asarray(Image.open(stream)), -1)


RGBA = np.dstack([SLIDE, SLIDE[..., :1]])


def web_picture(folder: Path) -> Path:
    Image.fromarray(RGBA).save(folder / "a.webp", lossless=True, exact=True)
    return folder / "a.webp"


def script_output(folder: Path) -> Path:
    np.save(folder / "a.npy", np.asfortranarray(CELLS.astype(">f8") / 65535))
    return folder / "a.npy"


def brain(folder: Path) -> Path:
    """Write a NIfTI of 1 x 1 x 3 millimetres."""
    image = nibabel.Nifti1Image(CELLS.T, np.diag([1.0, 1.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / "brain.nii.gz")
    return folder / "brain.nii.gz"


def deltavision(folder: Path) -> Path:
    mrc.imsave(folder / "a.dv", STACK[0].swapaxes(0, 1), metadata={"dx": 0.125, "dy": 0.125, "dz": 0.5})
    return folder / "a.dv"


CASES = {
    "OME-TIFF pyramid": Case(
        fluorescence_pyramid, CELLS, "cyx", {"y": 0.325, "x": 0.325}, MICROMETERS, ("DAPI", "GFP")
    ),
    "OME-TIFF pyramid, level 1": Case(
        fluorescence_pyramid,
        CELLS[:, ::2, ::2],
        "cyx",
        {"y": 0.65, "x": 0.65},
        MICROMETERS,
        ("DAPI", "GFP"),
        ("--level", "1"),
        place=0.325 / 2,  # levels begin at one corner
    ),
    "slide scan": Case(slide_scan, SLIDE, "yxs", {"y": 0.5022, "x": 0.5022}, MICROMETERS),
    "ImageJ hyperstack": Case(
        imagej_hyperstack,
        STACK,
        "tzcyx",
        {"t": 30.0, "z": 2.0, "y": 0.5, "x": 0.5},
        {"t": "second", "z": "micrometer", **MICROMETERS},
    ),
    "second series": Case(second_series, CELLS[0], "yx", {"y": 4.0, "x": 2.0}, MICROMETERS, options=("--series", "1")),
    "a plane in each file": Case(
        plane_in_each_file,
        CELLS,
        "cyx",
        {"y": 100.0, "x": 100.0},
        {"y": "nanometer", "x": "nanometer"},
        ("red", "far red"),
    ),
    "planar scan": Case(planar_scan, SLIDE, "yxs", {"y": 2.5, "x": 2.5}, MICROMETERS),
    "elevation map": Case(
        elevation_map,
        HEIGHTS,
        "yx",
        {"y": 5.0, "x": 5.0},
        {"y": "meter", "x": "meter"},
        options=("--value-range", "0", "100"),
        value_range=(0, 100),
        place={"y": -4_599_997.5, "x": 500_002.5},  # y runs southwards
    ),
    "white is zero": Case(radiograph, CELLS[0], "yx"),
    "palette": Case(palette_scan, np.asarray(PALETTE.convert("RGB")), "yxs"),
    "OME-Zarr 0.4, level 1": Case(
        ome_zarr_of_2022,
        CELLS[:, ::2, ::2],
        "cyx",
        {"y": 130.0, "x": 130.0},
        {"y": "nanometer", "x": "nanometer"},
        ("actin", "tubulin"),
        ("--level", "1"),
    ),
    "OME-Zarr 0.5": Case(
        ome_zarr, CELLS, "cyx", {"y": 65.0, "x": 65.0}, {"y": "nanometer", "x": "nanometer"}, ("actin", "tubulin")
    ),
    "xarray's Zarr v2": Case(xarray_zarr, CELLS, "tyx"),
    "zipped shards, described by hand": Case(
        zipped_shards,
        CELLS,
        "tyx",
        {"t": 0.5, "y": 0.25, "x": 0.25},
        MICROMETERS,
        options=("--axes", "tyx", "--pixel-size", "t=0.5,y=0.25,x=0.25", "--unit", "micrometer"),
    ),
    "PNG of 16 bits, a pixel size by hand": Case(
        png_of_16_bits,
        CELLS[0],
        "yx",
        {"y": 0.25, "x": 0.25},
        MICROMETERS,
        options=("--pixel-size", "0.25", "--unit", "micrometer"),
    ),
    "JPEG on its side": Case(phone_picture, phone_pixels(), "yxs"),
    "WebP with alpha": Case(web_picture, RGBA, "yxs"),
    "NumPy array": Case(script_output, CELLS.astype("f8") / 65535, "zyx"),
    "NIfTI": Case(
        brain, CELLS, "zyx", {"z": 3.0, "y": 1.0, "x": 1.0}, {"z": "millimeter", "y": "millimeter", "x": "millimeter"}
    ),
    "DeltaVision": Case(
        deltavision,
        STACK[0].swapaxes(0, 1),
        "czyx",
        {"z": 0.5, "y": 0.125, "x": 0.125},
        {"z": "micrometer", **MICROMETERS},
        options=("--unit", "µm"),
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small network of three channels."""
    folder = tmp_path_factory.mktemp("model")
    return save_model(a_network(scale=SCALE), folder / "tiny.safetensors")


def upscaled_by_the_command(source: Path | str, folder: Path, model: Path, *options: str) -> Path:
    """Run the command and return the result, which must be an OME-Zarr."""
    destination = folder / "result.ome.zarr"
    assert main([str(source), "-o", str(destination), "--model", str(model), "--quiet", *options]) == 0
    yaozarrs.validate_zarr_store(str(destination))
    return destination


def assert_holds(destination: Path, case: Case, model: Path) -> None:
    """Check what the result says of itself, and its pixels, against what the file held."""
    group = zarr.open_group(destination, mode="r")
    ome: Any = group.attrs["ome"]
    multiscale = ome["multiscales"][0]
    axes = case.axes.replace("s", "c")
    order = sorted(axes, key=ORDER.index)
    assert [axis["name"] for axis in multiscale["axes"]] == order
    assert {axis["name"]: axis["unit"] for axis in multiscale["axes"] if "unit" in axis} == case.units

    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    sizes = [case.size.get(axis, 1.0) / (SCALE if axis in "yx" else 1) for axis in order]
    assert scale["scale"] == pytest.approx(sizes)
    # The corner stays where it is, so the centre of the first pixel moves.
    moved = {axis: case.size.get(axis, 1.0) * (1 / SCALE - 1) / 2 for axis in "yx"}
    place = case.place if isinstance(case.place, dict) else dict.fromkeys("yx", case.place)
    assert translation["translation"] == pytest.approx(
        [place[axis] + moved[axis] if axis in moved else 0.0 for axis in order]
    )

    if case.names:
        assert tuple(channel["label"] for channel in ome["omero"]["channels"]) == case.names

    expected = mgbp.upscale(case.image, SCALE, model=model, axes=case.axes, value_range=case.value_range).compute()
    expected = expected.transpose([axes.index(axis) for axis in order])
    pixels: Any = group["0"]
    assert pixels.dtype == case.image.dtype.newbyteorder("=")
    np.testing.assert_array_equal(pixels[...], expected)


@pytest.mark.parametrize("name", CASES)
def test_it_comes_out_with_all_that_is_known_of_it(tmp_path: Path, model: Path, name: str) -> None:
    case = CASES[name]
    destination = upscaled_by_the_command(case.write(tmp_path), tmp_path, model, *case.options)
    assert_holds(destination, case, model)


def test_tiles_that_are_lossy_come_out_as_their_decoder_gives_them(tmp_path: Path, model: Path) -> None:
    path = jpeg_tiles(tmp_path)
    case = Case(jpeg_tiles, tifffile.imread(path), "yxs")
    assert np.abs(case.image.astype(int) - SLIDE).mean() < 20  # it is the slide, in red, green and blue
    assert_holds(upscaled_by_the_command(path, tmp_path, model), case, model)


@pytest.mark.parametrize("name", ["OME-Zarr 0.4, level 1", "OME-Zarr 0.5"])
def test_it_may_come_from_the_network(tmp_path: Path, model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # no proxy between this machine and itself
    case = CASES[name]
    path = case.write(tmp_path)
    with serving(tmp_path) as server:
        source = f"{server.address}/{Path(path).name}"
        destination = upscaled_by_the_command(source, tmp_path, model, *case.options)
    assert_holds(destination, case, model)
