"""`mgbpv2-upscale`: an image file in, an OME-Zarr out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_mgbpv2.cli.command import parser_of, readable_bytes, run_command
from napari_mgbpv2.conversion import ConversionJob, Prepared, prepare, run

_DESCRIPTION = """\
Upscale an image of any size with the MGBPv2 network and write it as OME-Zarr.

The image is read, upscaled and written piece by piece: it need not fit into memory. Axes, pixel size, units and
channel names come along, and the result lies exactly where the image lies. It appears when it is complete."""

_EPILOG = """\
examples:
  mgbpv2-upscale slide.tif -o slide_x4.ome.zarr
  mgbpv2-upscale cells.ome.zarr -o cells_x4.ome.zarr --value-range 100 4000
  mgbpv2-upscale aerial.png -o aerial_x4.ome.zarr --preview aerial_x4.png"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _upscale, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("mgbpv2-upscale", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "source", metavar="SOURCE", help="TIFF (also OME, ImageJ, BigTIFF), PNG, JPEG, Zarr, OME-Zarr or .npy"
    )
    parser.add_argument("-o", "--output", metavar="DESTINATION", required=True, type=Path, help="the OME-Zarr to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a Zarr at DESTINATION once this is complete")
    parser.add_argument("--preview", metavar="PNG", type=Path, help="also write a picture: bicubic beside the result")

    model = parser.add_argument_group("model")
    model.add_argument("--scale", type=int, metavar="N", help="upscaling factor (default: the model's, else 4)")
    model.add_argument("--model", metavar="MODEL", help="a packaged model's name or a model file (default: by scale)")
    model.add_argument("--noise", type=float, default=0.0, metavar="W", help="0 fidelity ... 1 perceptual (default: 0)")
    model.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    model.add_argument("--device", metavar="NAME", help="cuda, cuda:1, mps or cpu (default: the fastest there is)")
    model.add_argument("--precision", metavar="NAME", help="float32 (exact, the default), bfloat16 or float16")

    image = parser.add_argument_group("image")
    image.add_argument("--axes", metavar="LETTERS", help='such as "zyx" or "yxs" (default: what the file says)')
    image.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="values that the network takes for black and white (default: those of the data type)",
    )
    image.add_argument("--series", type=int, default=0, metavar="N", help="which image of a file with several")
    image.add_argument("--level", type=int, default=0, metavar="N", help="which resolution of a pyramid (default: 0)")
    image.add_argument("--levels", type=int, metavar="N", help="pyramid levels to write (default: down to 256 px)")

    tiles = parser.add_argument_group("tiles, in pixels of the result (the defaults give what one big tile would give)")
    tiles.add_argument("--tile", type=int, metavar="PX", help="largest tile; smaller ones need less memory")
    tiles.add_argument("--overlap", type=int, metavar="PX", help="least overlap of neighbours, guards included")
    tiles.add_argument("--guard", type=int, metavar="PX", help="border of a tile to discard (default: the model's)")
    tiles.add_argument("--window", metavar="NAME", default="hamming", help="hamming (default), triangle or flat")
    return parser


def _upscale(options: argparse.Namespace) -> None:
    names = ("axes", "noise", "seed", "tile", "overlap", "guard", "window", "value_range", "device", "precision")
    job = ConversionJob(
        source=options.source,
        destination=options.output,
        scale=options.scale,
        model=options.model,
        options={name: getattr(options, name) for name in names},
        overwrite=options.overwrite,
        levels=options.levels,
        series=options.series,
        level=options.level,
    )
    if options.preview is not None:
        from napari_mgbpv2.cli.preview import check_free

        check_free(options.preview)
    prepared = prepare(job)
    print(_summary(prepared), file=sys.stderr)
    destination = _run_with_bar(prepared)
    print(destination)
    if options.preview is not None:
        from napari_mgbpv2.cli.preview import write_preview

        print(write_preview(prepared, destination, options.preview))


def _summary(prepared: Prepared) -> str:
    """Say in a line what will be done and what it takes."""
    from napari_mgbpv2.engine import choose_device
    from napari_mgbpv2.ome_zarr import free_space

    plan, source = prepared.plan, prepared.source
    grid = plan.layout.grid
    free = free_space(prepared.job.destination)
    line = (
        f"{source.path} ({source.kind}, {_size(source.data.shape)} {plan.axes} {plan.layout.dtype})"
        f" -> {_size(plan.layout.shape)} with {plan.model} on {choose_device(prepared.plan.compute_tile.device)}; "
        f"{plan.layout.tiles} tiles of {grid.rows.tile} x {grid.columns.tile} px, "
        f"{grid.computed_share:.2f} px computed for each; "
        f"about {readable_bytes(prepared.memory_bytes)} of memory, "
        f"at most {readable_bytes(prepared.disk_bytes)} of disk ({readable_bytes(free)} free)"
    )
    return f"{line}; WARNING: the disk may not suffice" if prepared.disk_bytes > free else line


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _run_with_bar(prepared: Prepared) -> Path:
    """Convert under a bar that shows megapixels of the result, their rate, and the time left."""
    from tqdm import tqdm

    layout = prepared.plan.layout
    megapixels = layout.planes * layout.grid.rows.size * layout.grid.columns.size / 1e6
    form = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}]"
    bar: Any
    with tqdm(total=megapixels, unit=" Mpx", bar_format=form, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(megapixels * done / total - bar.n)

        return run(prepared, progress)


if __name__ == "__main__":
    sys.exit(main())
