"""`mgbpv2-models`: which models there are, what is known of one; bringing published ones, writing other forms."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from napari_mgbpv2.cli.command import make_parser, parse_path, run_command
from napari_mgbpv2.cli.output import write_line, write_path, write_text
from napari_mgbpv2.formatting import format_bytes

_DESCRIPTION = """\
Say which models there are and what is known of them; download the ones that the network's authors have published;
write a model in a form that other programs read."""

_EPILOG = """\
examples:
  mgbpv2-models list
  mgbpv2-models info x4
  mgbpv2-models download boe-perceptual
  mgbpv2-models export x4 x4.onnx
  mgbpv2-models export mine.safetensors mine.zip --author "A. Name" --licence CC-BY-4.0

MGBPV2_CACHE names the folder of downloaded models; by default it is in the user's cache folder."""

_EXPORT = """\
Write a model in a form that other programs read. The ending of DESTINATION says which one, or --to does:

  safetensors   .safetensors   weights, configuration and card, as this package reads and writes them
  authors       .model, .pth   weights alone, as the code of the network's authors reads them
  torch-export  .pt2           a graph for torch.export.load, on the CPU
  torchscript   .pt            a graph for torch.jit.load, on any device
  onnx          .onnx          a graph for ONNX runtimes (needs the extra "export")
  bioimageio    .zip           a package of the BioImage Model Zoo (needs the extra "bioimageio")

A graph takes a source image (batch, channels, height, width) of any size, 32-bit floats with black 0 and white 1, and
gives the upscaled one. Before its file gets its name, it is read back, run, and compared with the network."""

_NETWORK = (
    "features {features} (lowest resolution first), {steps} steps, {cycles} cycles, kernel {kernel}, "
    "{noise} noise features"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(
        _parser(),
        lambda options: options.work(options),
        arguments,
        interrupted="interrupted; a download goes on from there the next time, nothing else was left",
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("mgbpv2-models", _DESCRIPTION, _EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="all packaged and published models")
    command.add_argument("--json", action="store_true", help="as JSON, with all that is known")
    command.set_defaults(work=_list)

    command = commands.add_parser("info", help="all that is known of one model")
    command.add_argument("model", metavar="MODEL", help="a model's name or file")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(work=_info)

    command = commands.add_parser("download", help="bring a published model onto this machine")
    command.add_argument("name", metavar="NAME", help="of a published model, see list")
    command.add_argument(
        "--from", dest="source", metavar="SOURCE", help="another address, or the file if you have it already"
    )
    command.set_defaults(work=_download)

    command = commands.add_parser(
        "export",
        help="write a model in a form that other programs read",
        description=_EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_export_options(command)
    command.set_defaults(work=_export)
    return parser


def _add_export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a model's name or file")
    command.add_argument("destination", metavar="DESTINATION", help="the file to write")
    command.add_argument("--to", dest="form", metavar="FORM", help="as above (default: by the ending)")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    command.add_argument("--scale", type=int, metavar="N", help="upscaling factor, where the model does not say")
    command.add_argument("--grey", action="store_true", help="the network of one channel that a model of colours holds")
    command.add_argument(
        "--noise", type=float, default=0.0, metavar="W", help="of a graph that takes noise as a second input"
    )
    command.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16"),
        metavar="NAME",
        help="of safetensors: float32 (default) or float16",
    )
    command.add_argument("--author", dest="authors", action="append", metavar="NAME", help="of bioimageio; repeatable")
    command.add_argument("--licence", metavar="SPDX", help="of bioimageio: of the weights, such as CC-BY-4.0")


def _list(options: argparse.Namespace) -> None:
    from napari_mgbpv2.cli.model_facts import facts_of_all

    models = facts_of_all()
    if options.json:
        write_text(json.dumps(models, indent=2))
        return
    rows = [("name", "scale", "channels", "weights", "here", "trained on")]
    for facts in models:
        here = "yes" if facts["here"] else f"no ({format_bytes(facts['bytes'])})"
        scale = f"x{facts['scale']}" if facts["scale"] else "any"
        rows.append(
            (facts["name"], scale, str(facts["channels"]), f"{facts['parameters']:,}", here, facts["trained_on"])
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _info(options: argparse.Namespace) -> None:
    from napari_mgbpv2.cli.model_facts import facts_of

    facts = facts_of(options.model)
    if options.json:
        write_text(json.dumps(facts, indent=2))
        return
    networks = facts.pop("networks")
    facts.pop("training")  # a recipe: for machines
    for name, value in facts.items():
        write_line(f"{name.replace('_', ' '):<11} {_for_people(name, value)}")
    for network in networks:
        network_facts = network | {
            "features": "-".join(map(str, network["features"])),
            "noise": network["noise_channels"],
        }
        write_line(
            f"{'network':<11} {_NETWORK.format(**network_facts)}, {'with' if network['bias'] else 'without'} biases"
        )


def _for_people(name: str, value: Any) -> str:
    if value is None or value == "" or value == {}:
        return "not known"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {each}" for key, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "bytes":
        return format_bytes(value)
    return f"{value} px of the result" if name in ("guard", "reach") else str(value)


def _download(options: argparse.Namespace) -> None:
    from napari_mgbpv2.model.zoo import LICENCE, find_published

    model = find_published(options.name)
    if not model.is_here and options.source is None:
        write_line(f"{model.name}: about {format_bytes(model.size)}; {LICENCE}", sys.stderr)
    from napari_mgbpv2.model.checkpoints import download_model

    write_path(download_model(options.name, options.source))


def _export(options: argparse.Namespace) -> None:
    from napari_mgbpv2.export import export

    names = ("form", "scale", "grey", "noise", "precision", "authors", "licence", "overwrite")
    given = {name: getattr(options, name) for name in names}
    write_path(export(options.model, parse_path(options.destination), **given))


if __name__ == "__main__":
    sys.exit(main())
