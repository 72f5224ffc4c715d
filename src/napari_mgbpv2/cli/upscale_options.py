"""Arguments of a command for the options of upscaling, made from `UpscaleOptions`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from napari_mgbpv2.upscaling.options import OptionField, option_fields


def add_options(group: argparse._ArgumentGroup, name: str) -> None:
    """Add the options of a group ("model", "image" or "tiles") as arguments without defaults."""
    add_arguments(group, (each.name for each in option_fields().values() if each.option.group == name))


def add_arguments(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add options of upscaling by name as arguments; an argument that is not given is None."""
    for name in names:
        field = option_fields()[name]
        parser.add_argument(f"--{name.replace('_', '-')}", **_argument(field))


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of upscaling that a command line gives, by name."""
    values = {name: getattr(arguments, name, None) for name in option_fields()}
    return {name: value for name, value in values.items() if value is not None}


def _argument(field: OptionField) -> dict[str, Any]:
    option = field.option
    argument: dict[str, Any] = {"metavar": option.metavar, "help": option.help}
    if field.type is tuple:
        return argument | {"nargs": len(option.metavar), "type": float}
    return argument | ({"type": field.type} if field.type in (int, float) else {})
