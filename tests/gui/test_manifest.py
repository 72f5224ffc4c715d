"""The manifest: what napari is told about the plugin, and that all of it is there."""

import numpy as np
import pytest
from napari._app_model.constants import MenuId
from npe2 import PluginManifest
from npe2.cli import app
from typer.testing import CliRunner

MANIFEST = PluginManifest.from_distribution("napari-mgbpv2")
CONTRIBUTIONS = MANIFEST.contributions


class TestManifest:
    def test_it_is_valid_and_all_its_names_can_be_imported(self) -> None:
        done = CliRunner().invoke(app, ["validate", "napari-mgbpv2", "--imports"])
        assert done.exit_code == 0, done.output

    def test_it_offers_three_widgets(self) -> None:
        names = {widget.display_name for widget in CONTRIBUTIONS.widgets}
        assert names == {"Upscale (MGBPv2)", "Fine-tune (MGBPv2)", "Batch to OME-Zarr (MGBPv2)"}

    @pytest.mark.parametrize("menu", sorted(CONTRIBUTIONS.menus))
    def test_its_menus_are_ones_that_napari_shows(self, menu: str) -> None:
        assert MenuId(menu).is_menu_contributable(menu)

    def test_the_sample_is_an_rgb_picture(self) -> None:
        [sample] = CONTRIBUTIONS.sample_data
        [(pixels, options, kind)] = MANIFEST.contributions.sample_data[0].open()
        assert (sample.key, pixels.shape[2], pixels.dtype, kind) == ("astronaut", 3, np.uint8, "image")
        assert options["rgb"]

    def test_images_can_be_written_as_ome_zarr(self) -> None:
        [writer] = CONTRIBUTIONS.writers
        assert writer.filename_extensions == [".ome.zarr"]
        assert [str(kind.layer_type.value) for kind in writer.layer_type_constraints()] == ["image"]
