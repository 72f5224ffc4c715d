"""Results are read by the programs of others: the same pixels, in the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import mrc
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from yaozarrs import validate_zarr_store

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from zarr_server import serving

NETWORK = a_network()
METADATA = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}

KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "grey": ((70, 90), {"axes": "YX"}),
    "colour": ((70, 90, 3), {"axes": "YXS", "photometric": "rgb"}),
    "channels": ((2, 70, 90), {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}),
    "stack": ((3, 70, 90), {"axes": "ZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}),
    "time, channels and stack": ((2, 2, 3, 40, 50), {"axes": "TCZYX", "TimeIncrement": 1.5, "TimeIncrementUnit": "s"}),
}


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An OME-TIFF of each kind."""
    shape, metadata = KINDS[request.param]
    options = {name: metadata[name] for name in ("photometric",) if name in metadata}
    told = METADATA | {name: value for name, value in metadata.items() if name not in options}
    tifffile.imwrite(tmp_path / "source.ome.tif", an_image(*shape, dtype="u1"), metadata=told, **options)
    return tmp_path / "source.ome.tif"


@pytest.fixture(params=["0.4", "0.5"])
def result(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> Path:
    """Its upscaled image in each version of OME-Zarr."""
    options = {"tile": 150, "chunk": 64, "shard": 128}
    return mgbp.convert(source, tmp_path / "result.ome.zarr", model=NETWORK, format=request.param, **options)


def opened(path: Path, format_name: str) -> Any:
    specification = {"driver": format_name, "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(specification).result()


def test_yaozarrs_finds_no_fault(result: Path) -> None:
    validate_zarr_store(result)


def test_tensorstore_reads_the_same_pixels_of_every_level(result: Path) -> None:
    group: Any = zarr.open_group(result, mode="r")
    driver = "zarr3" if group.metadata.zarr_format == 3 else "zarr"
    assert list(group.array_keys())
    for level in group.array_keys():
        np.testing.assert_array_equal(opened(result / level, driver).read().result(), np.asarray(group[level]))


class TestPlace:
    """Pixel size, place and units of a stack; its outer pixels have their centres further out than the source has."""

    SCALE: ClassVar = {"z": 2.0, "y": 0.25 / 4, "x": 0.5 / 4}
    PLACE: ClassVar = {"z": 0.0, "y": 0.25 * (1 / 4 - 1) / 2, "x": 0.5 * (1 / 4 - 1) / 2}

    @pytest.fixture(params=["0.4", "0.5"])
    def stack(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        told = METADATA | {"axes": "ZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}
        tifffile.imwrite(tmp_path / "source.ome.tif", an_image(3, 70, 90, dtype="u1"), metadata=told)
        options = {"tile": 150, "chunk": 64, "shard": 128, "format": request.param}
        return mgbp.convert(tmp_path / "source.ome.tif", tmp_path / "result.ome.zarr", model=NETWORK, **options)

    def expected(self, level: int) -> tuple[dict[str, float], dict[str, float]]:
        """Scale and translation of a level, each of which has half of the rows and columns of the one before."""
        scale = {axis: size * (1 if axis == "z" else 2**level) for axis, size in self.SCALE.items()}
        return scale, {axis: at + (scale[axis] - self.SCALE[axis]) / 2 for axis, at in self.PLACE.items()}

    def test_ome_zarr_py_finds_it(self, stack: Path) -> None:
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        location = parse_url(stack)
        assert location is not None
        (node,) = Reader(location)()
        assert [(axis["name"], axis["unit"]) for axis in node.metadata["axes"]] == [(n, "micrometer") for n in "zyx"]
        for level, transforms in enumerate(node.metadata["coordinateTransformations"]):
            scale, place = self.expected(level)
            found = {each["type"]: each[each["type"]] for each in transforms}
            assert found["scale"] == pytest.approx(list(scale.values()))
            assert found["translation"] == pytest.approx(list(place.values()))
        group: Any = zarr.open_group(stack, mode="r")
        for level, pixels in enumerate(node.data):
            np.testing.assert_array_equal(pixels.compute(), np.asarray(group[str(level)]))

    def test_ngff_zarr_finds_it(self, stack: Path) -> None:
        from ngff_zarr import from_ngff_zarr

        images = from_ngff_zarr(str(stack)).images
        group: Any = zarr.open_group(stack, mode="r")
        assert len(images) == len(list(group.array_keys()))
        for level, image in enumerate(images):
            scale, place = self.expected(level)
            assert tuple(image.dims) == ("z", "y", "x")
            assert image.scale == pytest.approx(scale)
            assert image.translation == pytest.approx(place)
            assert dict(image.axes_units or {}) == dict.fromkeys("zyx", "micrometer")
            np.testing.assert_array_equal(np.asarray(image.data), np.asarray(group[str(level)]))

    def test_plain_zarr_finds_it(self, stack: Path) -> None:
        attributes: Any = zarr.open_group(stack, mode="r").attrs.asdict()
        (multiscales,) = attributes.get("ome", attributes)["multiscales"]
        assert multiscales["axes"] == [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
        for level, dataset in enumerate(multiscales["datasets"]):
            scale, place = self.expected(level)
            found = {each["type"]: each[each["type"]] for each in dataset["coordinateTransformations"]}
            assert found == {
                "scale": pytest.approx(list(scale.values())),
                "translation": pytest.approx(list(place.values())),
            }

    def test_tensorstore_finds_its_axes(self, stack: Path) -> None:
        version = zarr.open_group(stack, mode="r").metadata.zarr_format
        labels = opened(stack / "0", "zarr3" if version == 3 else "zarr").domain.labels
        assert labels == (("z", "y", "x") if version == 3 else ("", "", ""))  # Zarr 2 has no place for names


class TestInput:
    """The same image from what others make of it gives the same result."""

    IMAGE = an_image(48, 56, dtype="u2")

    @pytest.fixture
    def expected(self) -> Any:
        return mgbp.upscale(self.IMAGE, model=NETWORK).compute()

    def test_an_xarray_of_dask_chunks(self, expected: Any, tmp_path: Path) -> None:
        import dask.array as da
        import xarray

        image = xarray.DataArray(da.from_array(self.IMAGE, chunks=20), dims=("y", "x"))
        path = mgbp.convert(image, tmp_path / "a.ome.zarr", model=NETWORK)
        np.testing.assert_array_equal(np.asarray(zarr.open_group(path, mode="r")["0"]), expected)

    def test_a_file_that_bioio_reads(self, expected: Any, tmp_path: Path) -> None:
        path = mgbp.convert(self.a_dv(tmp_path), tmp_path / "a.ome.zarr", model=NETWORK, unit="um")
        group: Any = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(np.asarray(group["0"]), [expected, expected])
        (multiscales,) = group.attrs["ome"]["multiscales"]
        assert [axis["name"] for axis in multiscales["axes"]] == ["z", "y", "x"]
        (scale, _) = multiscales["datasets"][0]["coordinateTransformations"]
        assert scale["scale"] == pytest.approx([0.5, 0.0625, 0.03125])

    def test_an_image_that_bioio_has_opened(self, expected: Any, tmp_path: Path) -> None:
        from bioio import BioImage

        image = BioImage(self.a_dv(tmp_path)).xarray_data  # the Dask arrays of bioio-dv 1.2 read from a closed file
        assert image.dims == ("T", "C", "Z", "Y", "X")
        path = mgbp.convert(image, tmp_path / "a.ome.zarr", model=NETWORK)
        group: Any = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(np.asarray(group["0"]), [[[expected, expected]]])
        assert [axis["name"] for axis in group.attrs["ome"]["multiscales"][0]["axes"]] == list("tczyx")

    def a_dv(self, folder: Path) -> Path:
        """Two sections of one channel, each of them the image, in a DeltaVision file."""
        stack = np.broadcast_to(self.IMAGE, (1, 2, *self.IMAGE.shape))
        mrc.imsave(folder / "cells.dv", stack, metadata={"dx": 0.125, "dy": 0.25, "dz": 0.5})
        return folder / "cells.dv"

    @pytest.mark.parametrize("output", ["0.4", "0.5"])
    def test_an_ome_zarr_on_the_web(
        self, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # no proxy between this machine and itself
        told = METADATA | {"axes": "YX"}
        tifffile.imwrite(tmp_path / "cells.ome.tif", self.IMAGE, metadata=told)
        mgbp.convert(tmp_path / "cells.ome.tif", tmp_path / "cells.ome.zarr", model=NETWORK, format=output)
        with serving(tmp_path) as server:
            path = mgbp.convert(f"{server.address}/cells.ome.zarr", tmp_path / "a.ome.zarr", model=NETWORK)
        group: Any = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(np.asarray(group["0"]), mgbp.upscale(expected, model=NETWORK).compute())
        (multiscales,) = group.attrs["ome"]["multiscales"]
        assert [axis["unit"] for axis in multiscales["axes"]] == ["micrometer", "micrometer"]
        (scale, place) = multiscales["datasets"][0]["coordinateTransformations"]
        assert scale["scale"] == pytest.approx([0.25 / 16, 0.5 / 16])
        # The centres of the outer pixels of an image of 16 times more pixels, whichever way it came to be.
        assert place["translation"] == pytest.approx([0.25 * (1 / 16 - 1) / 2, 0.5 * (1 / 16 - 1) / 2])

    def test_what_ome_zarr_py_has_written(self, expected: Any, tmp_path: Path) -> None:
        from ome_zarr.writer import write_image

        source: Any = zarr.open_group(tmp_path / "source.ome.zarr", mode="w")
        write_image(self.IMAGE, source, axes="yx")
        path = mgbp.convert(tmp_path / "source.ome.zarr", tmp_path / "a.ome.zarr", model=NETWORK)
        np.testing.assert_array_equal(np.asarray(zarr.open_group(path, mode="r")["0"]), expected)

    def test_what_ngff_zarr_has_written(self, expected: Any, tmp_path: Path) -> None:
        from ngff_zarr import to_multiscales, to_ngff_image, to_ngff_zarr

        units: Any = {"y": "micrometer", "x": "micrometer"}
        image = to_ngff_image(self.IMAGE, dims=["y", "x"], scale={"y": 0.5, "x": 0.25}, axes_units=units)
        to_ngff_zarr(str(tmp_path / "source.ome.zarr"), to_multiscales(image, scale_factors=[]))
        path = mgbp.convert(tmp_path / "source.ome.zarr", tmp_path / "a.ome.zarr", model=NETWORK)
        group: Any = zarr.open_group(path, mode="r")
        np.testing.assert_array_equal(np.asarray(group["0"]), expected)
        (dataset, *_) = group.attrs["ome"]["multiscales"][0]["datasets"]
        assert dataset["coordinateTransformations"][0]["scale"] == pytest.approx([0.125, 0.0625])


@pytest.mark.parametrize("codec", ["zstd", "zstd-9", "lz4", "none"])
@pytest.mark.parametrize("output", ["0.4", "0.5"])
def test_tensorstore_reads_every_codec(tmp_path: Path, codec: str, output: str) -> None:
    image = an_image(60, 70, dtype="u2")
    path = mgbp.convert(image, tmp_path / "a.ome.zarr", model=NETWORK, codec=codec, format=output)
    expected = mgbp.upscale(image, model=NETWORK).compute()
    driver = "zarr3" if output == "0.5" else "zarr"
    np.testing.assert_array_equal(opened(path / "0", driver).read().result(), expected)


def test_a_plain_array_is_one(tmp_path: Path) -> None:
    image = an_image(60, 70, dtype="u2")
    path = mgbp.convert(image, tmp_path / "a.zarr", model=NETWORK, format="zarr")
    expected = mgbp.upscale(image, model=NETWORK).compute()
    array: Any = zarr.open_array(path, mode="r")
    np.testing.assert_array_equal(np.asarray(array), expected)
    assert array.metadata.dimension_names == ("y", "x")
    assert array.attrs["napari_mgbpv2"]["scale"] == 4
    np.testing.assert_array_equal(opened(path, "zarr3").read().result(), expected)
