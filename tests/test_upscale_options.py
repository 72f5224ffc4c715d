"""`UpscaleOptions`: one list of options for functions, commands, widgets and the provenance of results."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import napari_mgbpv2 as mgbp
from examples import a_network, an_image
from napari_mgbpv2.cli.upscale_options import given_options
from napari_mgbpv2.cli.upscale_parser import parser
from napari_mgbpv2.conversion import ConversionJob, prepare
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.upscaling.options import UpscaleOptions, option_fields

DEFAULTS = UpscaleOptions().to_dict()


@pytest.mark.parametrize("function", [mgbp.upscale, mgbp.convert])
def test_functions_take_every_option_with_its_default(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS


def test_the_command_has_an_argument_for_every_option() -> None:
    arguments = parser().parse_args(["a.tif", "-o", "b.ome.zarr"])
    assert set(DEFAULTS) <= set(vars(arguments))


def test_an_argument_that_is_not_given_leaves_the_default() -> None:
    arguments = parser().parse_args(["a.tif", "-o", "b.ome.zarr", "--tile", "300"])
    assert given_options(arguments) == {"tile": 300}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--scale", "2", "--seed", "7", "--guard", "0"], {"scale": 2, "seed": 7, "guard": 0}),
        (["--noise", "0.5", "--value-range", "100", "4000"], {"noise": 0.5, "value_range": [100.0, 4000.0]}),
        (["--axes", "zyx", "--window", "flat", "--device", "cpu"], {"axes": "zyx", "window": "flat", "device": "cpu"}),
    ],
)
def test_arguments_have_the_types_of_the_options(words: list[str], values: dict[str, Any]) -> None:
    assert given_options(parser().parse_args(["a.tif", "-o", "b.ome.zarr", *words])) == values


def test_every_option_is_recorded_in_the_provenance(tmp_path: Path) -> None:
    job = ConversionJob(an_image(30, 40), tmp_path / "a.ome.zarr", UpscaleOptions(model=a_network()))
    recorded = prepare(job).layout.provenance
    names = {"axes": "source_axes"}
    assert {names.get(name, name) for name in DEFAULTS} <= set(recorded)


def test_every_option_has_a_label_and_a_help_text() -> None:
    assert all(each.option.label and each.option.help for each in option_fields().values())


@pytest.mark.parametrize("scale", [0, 65, 2.5, True, "4"])
def test_a_scale_that_is_no_whole_number_in_range_is_refused(scale: Any) -> None:
    with pytest.raises(ImageError, match=r"scale is .*it must be a whole number from 1 to 64"):
        UpscaleOptions(scale=scale)


@pytest.mark.parametrize("noise", [float("nan"), float("inf")])
def test_noise_that_is_not_finite_is_refused(noise: float) -> None:
    with pytest.raises(ModelError, match=r"noise is .*it must be a number"):
        UpscaleOptions(noise=noise)


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        UpscaleOptions().tile = 3  # type: ignore[misc]
