"""Writing layers as OME-Zarr, through napari's own saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image
from napari.utils.notifications import notification_manager

from examples import an_image
from napari_mgbpv2 import upscale
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.readers import ImageSource, open_source
from napari_mgbpv2.plugin.filling import fill
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.writer import write_image
from napari_mgbpv2.upscaling import plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions


def written(layer: Image, path: Path) -> ImageSource:
    data, meta, _ = layer.as_layer_data_tuple()
    assert write_image(str(path), data, meta) == [str(path)]
    return open_source(path)


class TestWriter:
    @pytest.mark.parametrize("kind", ["NumPy", "Dask", "pyramid"])
    def test_pixels_size_units_and_place_are_written(self, kind: str, tmp_path: Path) -> None:
        image = an_image(2, 300, 40, dtype="u2")
        levels = [image, image[:, ::2, ::2]]
        data: Any = {"NumPy": image, "Dask": da.from_array(image, chunks=64), "pyramid": levels}[kind]
        layer = Image(
            data,
            scale=(2, 0.5, 0.25),
            translate=(1, 2, 3),
            units=("um", "um", "um"),
            multiscale=kind == "pyramid",
            contrast_limits=(0, 65535),
        )
        stored = written(layer, tmp_path / "cells.ome.zarr")
        np.testing.assert_array_equal(np.asarray(stored.data[:]), image)
        assert stored.axes == "zyx"
        assert stored.pixel_size == {"z": 2, "y": 0.5, "x": 0.25}
        assert stored.translation == {"z": 1, "y": 2, "x": 3}
        assert set(stored.units.values()) == {"micrometer"}

    @pytest.mark.parametrize("kind", ["NumPy", "Dask", "Zarr"])
    def test_a_flipped_layer_is_written_where_it_lies(self, kind: str, tmp_path: Path) -> None:
        image = an_image(3, 30, 20)
        make: Any = {"NumPy": np.asarray, "Dask": da.from_array, "Zarr": zarr.array}[kind]
        layer = Image(make(image), scale=(-2, -0.5, 0.25), translate=(1, 100, 3), contrast_limits=(0, 255))
        stored = written(layer, tmp_path / "cells.ome.zarr")
        np.testing.assert_array_equal(np.asarray(stored.data[:]), image[::-1, ::-1])
        assert stored.pixel_size == {"z": 2, "y": 0.5, "x": 0.25}
        assert stored.translation == {"z": 1 - 2 * 2, "y": 100 - 29 * 0.5, "x": 3}

    def test_what_the_file_cannot_hold_is_said(self, tmp_path: Path) -> None:
        written(Image(an_image(30, 20), rotate=30), tmp_path / "cells.ome.zarr")
        assert "not its rotation" in notification_manager.records[-1].message

    def test_colours_become_channels(self, tmp_path: Path) -> None:
        image = an_image(40, 30, 3)
        stored = written(Image(image, rgb=True), tmp_path / "cells.ome.zarr")
        np.testing.assert_array_equal(np.asarray(stored.data[:]), np.moveaxis(image, 2, 0))

    def test_axes_are_put_into_the_order_of_the_format(self, tmp_path: Path) -> None:
        image = an_image(3, 2, 30, 20)
        layer = Image(image, axis_labels=("c", "t", "y", "x"))
        stored = written(layer, tmp_path / "cells.ome.zarr")
        assert stored.axes == "tcyx"
        np.testing.assert_array_equal(np.asarray(stored.data[:]), image.swapaxes(0, 1))

    def test_of_an_upscaled_layer_the_network_s_pixels_are_written(self, tmp_path: Path) -> None:
        image = read_layer(Image(an_image(30, 20)))
        pyramid = fill(
            image, plan_upscale(image.data, UpscaleOptions(scale=4)), cache_bytes=2**20, changed=print, failed=print
        )
        layer = Image(list(pyramid.levels), multiscale=True, contrast_limits=(0, 255))
        stored = written(layer, tmp_path / "cells.ome.zarr")
        np.testing.assert_array_equal(np.asarray(stored.data[:]), upscale(image.data, 4).compute())

    def test_nothing_is_replaced(self, tmp_path: Path) -> None:
        written(Image(an_image(30, 20)), tmp_path / "cells.ome.zarr")
        with pytest.raises(DestinationError, match="exists"):
            written(Image(an_image(30, 20)), tmp_path / "cells.ome.zarr")

    def test_napari_saves_with_it(self, make_napari_viewer_proxy: Any, tmp_path: Path) -> None:
        viewer = make_napari_viewer_proxy()
        layer = viewer.add_image(an_image(30, 20))
        layer.save(str(tmp_path / "cells.ome.zarr"), plugin="napari-mgbpv2")
        assert open_source(tmp_path / "cells.ome.zarr").data.shape == (30, 20)
