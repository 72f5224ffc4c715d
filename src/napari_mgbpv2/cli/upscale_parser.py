"""The arguments of `mgbpv2-upscale`: those of `UpscaleOptions`, and where images come from and go."""

from __future__ import annotations

import argparse

from napari_mgbpv2.cli.command import make_parser, parse_path
from napari_mgbpv2.cli.upscale_options import add_options

_DESCRIPTION = """\
Upscale images of any size with the MGBPv2 network and write them as OME-Zarr.

An image is read, upscaled and written piece by piece: it need not fit into memory. Axes, pixel size, units and
channel names come along, and the result lies exactly where the image lies. It appears when it is complete; what an
interrupted run has done is kept, and --resume goes on with it."""

_EPILOG = """\
examples:
  mgbpv2-upscale slide.tif -o slide_x4.ome.zarr
  mgbpv2-upscale slide.tif -o slide_x4.ome.tif
  mgbpv2-upscale cells.ome.zarr -o cells_x4.ome.zarr --value-range 100 4000
  mgbpv2-upscale aerial.png -o aerial_x4.ome.zarr --preview aerial_x4.png
  mgbpv2-upscale scans/*.tif -o upscaled/ --resume
  mgbpv2-upscale slide.tif -o slide_x4.ome.zarr --workers 4
  mgbpv2-upscale --verify slide_x4.ome.zarr"""


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    parser = make_parser("mgbpv2-upscale", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="TIFF (also OME, ImageJ, BigTIFF), PNG, JPEG, WebP, Zarr, OME-Zarr (also http, https, s3) or .npy; "
        "a folder, or a pattern in quotes",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DESTINATION",
        help="the OME-Zarr to write (also s3://...), or an OME-TIFF if it ends in .tif; of several sources, or with a "
        "/ at its end, a folder",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with what an interrupted run has left; with --overwrite too"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is at DESTINATION once this is complete")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the results SOURCE..., and say what is missing or damaged; no -o",
    )
    parser.add_argument(
        "--preview", metavar="PNG", type=parse_path, help="also write a picture: bicubic beside the result"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and what it takes, and end")
    parser.add_argument("--quiet", action="store_true", help="say nothing but where the results are, and what fails")
    parser.add_argument("--json", action="store_true", help="say everything as lines of JSON, for machines")
    _add_model(parser.add_argument_group("model"))
    _add_image(parser.add_argument_group("image"))
    _add_result(parser.add_argument_group("result"))
    tiles = "tiles, in pixels of the result (the defaults give what one big tile would give)"
    add_options(parser.add_argument_group(tiles), "tiles")
    _add_workers(parser.add_argument_group("more than one process"))
    return parser


def _add_model(group: argparse._ArgumentGroup) -> None:
    add_options(group, "model")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="the paper's settings of a published model: boe-perceptual or boe-fidelity; other options override them",
    )


def _add_image(group: argparse._ArgumentGroup) -> None:
    add_options(group, "image")
    group.add_argument("--series", type=int, default=0, metavar="N", help="which image of a file with several")
    group.add_argument("--level", type=int, default=0, metavar="N", help="which resolution of a pyramid (default: 0)")
    group.add_argument(
        "--pixel-size", metavar="SIZE", help='of the image: "0.25" for y and x, or "z=1.5,y=0.25,x=0.25"'
    )
    group.add_argument(
        "--missing",
        choices=("refuse", "blank"),
        default="refuse",
        help="what to do about planes that an OME-TIFF announces and that are not there (default: refuse)",
    )
    group.add_argument("--unit", metavar="NAME", help='of the pixel size, such as "micrometer"')


def _add_result(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", metavar="NAME", default="0.5", help="0.5 (default) or 0.4 of OME-Zarr, or zarr")
    group.add_argument("--levels", type=int, metavar="N", help="pyramid levels to write (default: down to 256 px)")
    group.add_argument(
        "--chunk", type=int, metavar="PX", default=512, help="read and compressed at once (default: 512)"
    )
    group.add_argument("--shard", type=int, metavar="PX", help="one file, computed at once (default: 1024 or 2048)")
    group.add_argument(
        "--record-paths",
        action="store_true",
        help="write the whole paths of the source into the result (default: the names of its files alone)",
    )
    group.add_argument(
        "--codec", metavar="NAME", default="zstd", help="zstd (default), zstd-9 (small), lz4 (fastest) or none"
    )


def _add_workers(group: argparse._ArgumentGroup) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument("--workers", type=int, metavar="N", help="processes of this machine; with GPUs, one for each")
    either.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster, such as tcp://10.0.0.1:8786")
