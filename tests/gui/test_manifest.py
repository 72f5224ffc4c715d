"""The manifest: what napari is told about the plugin, and that all of it is there."""

from typing import Any

import numpy as np
import pytest
from napari._app_model.constants._menus import is_menu_contributable
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from npe2.cli import app
from typer.testing import CliRunner

from napari_mgbpv2.plugin.sample_data import astronaut
from napari_mgbpv2.plugin.settings import Defaults, read_defaults

MANIFEST = PluginManifest.from_distribution("napari-mgbpv2")
CONTRIBUTIONS = MANIFEST.contributions


class TestManifest:
    def test_it_is_valid_and_all_its_names_can_be_imported(self) -> None:
        done = CliRunner().invoke(app, ["validate", "napari-mgbpv2", "--imports"])
        assert done.exit_code == 0, done.output

    def test_it_offers_four_widgets(self) -> None:
        names = {widget.display_name for widget in CONTRIBUTIONS.widgets}
        assert names == {
            "Upscale (MGBPv2)",
            "Fine-tune (MGBPv2)",
            "Batch to OME-Zarr (MGBPv2)",
            "Inspect (MGBPv2)",
        }

    @pytest.mark.parametrize("menu", sorted(CONTRIBUTIONS.menus))
    def test_its_menus_are_ones_that_napari_shows(self, menu: str) -> None:
        assert is_menu_contributable(menu)

    def test_the_sample_is_an_rgb_picture(self) -> None:
        [sample] = CONTRIBUTIONS.sample_data
        [(pixels, options, kind)] = astronaut()
        assert sample.command == "napari-mgbpv2.sample_astronaut"
        assert (sample.key, pixels.shape[2], pixels.dtype, kind) == ("astronaut", 3, np.uint8, "image")
        assert options["rgb"]

    def test_images_can_be_written_as_ome_zarr(self) -> None:
        [writer] = CONTRIBUTIONS.writers
        assert writer.filename_extensions == [".ome.zarr"]
        assert writer.layer_types == ["image"]


class TestPreferences:
    @pytest.fixture
    def chosen(self, plugin_settings: object, npe2pm: Any) -> Any:
        """The plugin's preferences, as nobody has changed them yet."""
        if "napari-mgbpv2" not in npe2pm:
            npe2pm.register(MANIFEST)
        return get_plugin_settings("napari-mgbpv2").upscaling

    def test_by_default_the_plugin_chooses(self, chosen: Any) -> None:
        assert read_defaults() == Defaults(device=None, tile=None, overlap=None, cache_bytes=1_024_000_000)

    def test_the_widgets_begin_with_what_the_user_prefers(self, chosen: Any) -> None:
        chosen.device, chosen.tile, chosen.overlap, chosen.cache_megabytes = "cpu", 512, 100, 64
        assert read_defaults() == Defaults(device="cpu", tile=512, overlap=100, cache_bytes=64_000_000)
