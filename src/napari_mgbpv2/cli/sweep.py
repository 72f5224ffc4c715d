"""`mgbpv2-sweep`: a sharp image and a model with a noise input in, a table of scores out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import expand_path
from napari_mgbpv2.cli.command import make_parser, parse_path, run_command
from napari_mgbpv2.cli.output import write_error, write_path
from napari_mgbpv2.cli.upscale_options import add_arguments, given_options
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.paths import write_atomically

if TYPE_CHECKING:
    from napari_mgbpv2.training.feature_networks import FeatureNetwork

_DESCRIPTION = """\
Score a model between fidelity and perceptual quality, by the amplitude of its noise.

TARGET is a sharp image, grey or RGB. It is shrunk, or --source is its small image; that is upscaled with each amplitude
and compared with TARGET: PSNR, RMSE of luma, NIQE, and with a feature network contextual similarity. The model must
have a noise input."""

_EPILOG = """\
examples:
  mgbpv2-sweep photo.png --model perceptual.safetensors -o photo.csv --plot photo.png
  mgbpv2-sweep sharp.tif --source small.tif --model perceptual.model --amplitudes 0 0.25 0.5 1 -o sweep.csv
  mgbpv2-sweep photo.png --model perceptual.model --feature-network vgg19.pth -o sweep.csv"""

DOWNLOAD = "download"
_OPTIONS = ("scale", "seed", "value_range", "tile", "device")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _sweep, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("mgbpv2-sweep", _DESCRIPTION, _EPILOG)
    parser.add_argument("target", metavar="TARGET", help="the sharp image: TIFF, PNG, JPEG, Zarr, OME-Zarr or .npy")
    parser.add_argument("-o", "--output", metavar="CSV", required=True, type=parse_path, help="the table to write")
    parser.add_argument("--plot", metavar="PNG", type=parse_path, help="also draw the scores (needs matplotlib)")
    parser.add_argument("--overwrite", action="store_true", help="replace CSV and PNG if they are there")
    parser.add_argument("--source", metavar="IMAGE", help="the small image (default: TARGET, shrunk and rounded)")
    parser.add_argument(
        "--amplitudes", nargs="+", type=float, metavar="W", help="of the noise (default: 0 to 1 by tenths)"
    )
    parser.add_argument(
        "--feature-network",
        metavar="FILE",
        help="for the contextual similarity: weights of VGG-19 or EfficientNet-Lite0, or "
        f'"{DOWNLOAD}" for VGG-19 (550 MB, once; default: left out)',
    )
    add_arguments(parser, ("model", *_OPTIONS, "axes"))
    return parser


def _sweep(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from napari_mgbpv2.inspection import as_csv, noise_sweep, plot_sweep
    from napari_mgbpv2.inspection.sweep import AMPLITUDES
    from napari_mgbpv2.io.readers import open_source

    inputs = [each for each in (options.target, options.source) if each is not None]
    if options.plot is not None and options.plot.absolute() == options.output.absolute():
        raise DestinationError(f"{options.plot}: is the table already; choose another name for the plot")
    for path, endings in ((options.output, (".csv", ".txt", ".tsv", "")), (options.plot, (".png", ""))):
        if path is not None:
            _check_free(path, options.overwrite, inputs, endings)
    target = open_source(options.target)
    source = None if options.source is None else open_source(options.source).data
    amplitudes = options.amplitudes or AMPLITUDES
    features = _feature_network(options.feature_network)
    bar: Any
    with tqdm(total=len(amplitudes), unit=" amplitudes", disable=None) as bar:
        rows = noise_sweep(
            options.model,
            target.data,
            source,
            amplitudes=amplitudes,
            features=features,
            axes=options.axes or target.axes,
            progress=lambda done, total: bar.update(done - bar.n),
            **{name: value for name, value in given_options(options).items() if name in _OPTIONS},
        )
    write_atomically(options.output, as_csv(rows).encode(), overwrite=options.overwrite)
    write_path(options.output.absolute())
    if options.plot is not None:
        write_atomically(options.plot, plot_sweep(rows), overwrite=options.overwrite)
        write_path(options.plot.absolute())
    if rows[0].niqe is None:
        write_error("mgbpv2-sweep", "NIQE is left out: it needs an image of at least two blocks of 96 x 96 px")
    if features is None:
        advice = f"--feature-network FILE, or --feature-network {DOWNLOAD}"
        write_error("mgbpv2-sweep", f"contextual similarity is left out: it needs {advice}")


def _feature_network(source: str | None) -> FeatureNetwork | None:
    if source is None:
        return None
    from napari_mgbpv2.training.features import load_feature_network

    return load_feature_network(None if source == DOWNLOAD else source)


def _check_free(path: Path, overwrite: bool, inputs: Sequence[str], endings: Sequence[str]) -> None:
    """Refuse a path before the work: one that is taken, whose folder is missing, or whose name promises other content.

    What is read is never replaced.
    """
    if path.suffix.lower() not in endings:
        raise DestinationError(f"{path}: end its name in {endings[0]}, which is what is written")
    if path.exists() and any(path.samefile(expand_path(each)) for each in inputs if os.path.exists(expand_path(each))):
        raise DestinationError(f"{path} is an image that is read: choose another name")
    if os.path.lexists(path) and not overwrite:
        raise DestinationError(f"{path} exists already: choose another name, or --overwrite")
    if path.is_dir():
        raise DestinationError(f"{path} is a folder: name a file")
    if not path.absolute().parent.is_dir():
        raise DestinationError(f"{path}: there is no folder {path.absolute().parent}")


if __name__ == "__main__":
    sys.exit(main())
