"""`mgbpv2-finetune`: sharp images in, a model out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.cli.command import STANDARD_ERROR, make_parser, parse_path, run_command
from napari_mgbpv2.cli.output import write_line, write_path, write_text

if TYPE_CHECKING:
    from napari_mgbpv2.training.trainer import TrainingReport

_DESCRIPTION = """\
Fine-tune a model on your own sharp images, or train one from scratch.

Naming the images and -o is enough: the packaged model is trained on for ten minutes. The images are
shrunk, and the network learns to undo it; a part of them is held out and scored, against bicubic upscaling. Beside
MODEL, a folder keeps scores (scores.csv, TensorBoard), pictures (sheet_*.png) and the state of the run: Ctrl-C
ends it, --resume goes on."""

_EPILOG = """\
examples:
  mgbpv2-finetune slides/*.tif -o mine.safetensors
  mgbpv2-finetune cells.ome.zarr -o cells.safetensors --minutes 60 --value-range 100 4000
  mgbpv2-finetune photos/ -o large.safetensors --steps 20000 --optimizer qhadam --schedule constant --lr 1e-4
  mgbpv2-upscale slide.tif -o slide_x4.ome.zarr --model mine.safetensors

--config FILE names a TOML file with the same options (minutes = 60, patch-size = 247, ...); for --init scratch,
its table [config] describes the network (features, steps, kernel, ...). What the command line says wins."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _finetune, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("mgbpv2-finetune", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help='files, folders, patterns; or synthetic "scenes", "microscopy" or "micrographs"',
    )
    parser.add_argument("-o", "--output", metavar="MODEL", help="the .safetensors file to write")
    parser.add_argument("--config", type=parse_path, metavar="FILE", help="TOML file with options")
    parser.add_argument("--resume", action="store_true", help="go on with the run whose state is beside MODEL")
    parser.add_argument("--overwrite", action="store_true", help="replace a MODEL and a run that are there")
    parser.add_argument("--dry-run", action="store_true", help="print all options as they are understood, and end")

    parser.add_argument(
        "--record-paths",
        action="store_true",
        default=None,
        help="write the whole paths of images into MODEL and a prepared folder (default: their names alone)",
    )

    model = parser.add_argument_group("model")
    model.add_argument("--init", metavar="MODEL", help='packaged name, file, or "scratch" (default: by scale)')
    model.add_argument("--scale", type=int, metavar="N", help="upscaling factor (default: the model's)")
    model.add_argument("--track", metavar="NAME", help="fidelity (default) or perceptual")
    model.add_argument(
        "--feature-network", metavar="FILE", help='weights of a VGG-19 or EfficientNet-Lite0; "none": without'
    )

    model.add_argument(
        "--plain-discriminator",
        dest="discriminator_statistics",
        action="store_false",
        default=None,
        help="the discriminator sees the image alone, not its local statistics",
    )

    images = parser.add_argument_group("images")
    images.add_argument("--validation", nargs="+", metavar="IMAGES", help="images to score (default: a held-out part)")
    images.add_argument("--fit-pristine", action="store_true", default=None, help="NIQE compares with your images")
    images.add_argument("--low-resolution", metavar="DIR", help="the small images of real pairs, by file name")
    images.add_argument("--prepare", dest="prepared", metavar="DIR", help="keep the images' patches in this folder")
    images.add_argument("--value-range", nargs=2, type=float, metavar=("BLACK", "WHITE"), help="values of the images")
    images.add_argument("--round-to-8-bits", action="store_true", default=None, help="round the shrunk images")

    run = parser.add_argument_group("run")
    run.add_argument("--minutes", type=float, metavar="MIN", help="when to end (default: 10)")
    run.add_argument("--steps", type=int, metavar="N", help="when to end; repeatable bit for bit on a CPU")
    run.add_argument("--batch-size", type=int, metavar="N", help="patches of a micro-batch, a device (default: 8)")
    run.add_argument("--accumulate", type=int, metavar="N", help="micro-batches of a step (default: 1)")
    run.add_argument("--patch-size", type=int, metavar="PX", help="target pixels of a patch (default: about 120)")
    run.add_argument("--lr", dest="learning_rate", type=float, metavar="X", help="learning rate (default: 3e-4)")
    run.add_argument("--optimizer", metavar="NAME", help="adamw (default), qhadam or lookahead-radam")
    run.add_argument("--schedule", metavar="NAME", help="cosine (default) or constant")
    run.add_argument("--averaging", type=float, metavar="X", help="decay of the weights' average (default: 0.99)")
    run.add_argument("--validate-every", type=int, metavar="N", help="steps between scores (default: ten times)")
    run.add_argument("--device", metavar="NAME", help="cuda, mps or cpu (default: the fastest there is)")
    run.add_argument("--precision", metavar="NAME", help="float32 (default), bfloat16 or float16")
    run.add_argument("--seed", type=int, metavar="N", help="of all that is drawn (default: 0)")
    run.add_argument("--workers", type=int, metavar="N", help="processes that make patches (default: 1)")
    return parser


def _finetune(given: argparse.Namespace) -> None:
    from napari_mgbpv2.training.options import make_options, options_from_file

    values: dict[str, Any] = options_from_file(given.config) if given.config is not None else {}
    own = {"config", "resume", "overwrite", "dry_run", "debug"}
    given_values = {name: value for name, value in vars(given).items() if name not in own and value not in (None, [])}
    options = make_options(values | given_values)
    if given.dry_run:
        import json

        write_text(json.dumps(options.to_dict(), indent=2))
        return
    from napari_mgbpv2.training.trainer import train

    with _stop_on_interrupt() as asked:
        made = train(options, resume=given.resume, overwrite=given.overwrite, on_report=_print_report, cancelled=asked)
    write_path(made)


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that is answered between steps; the second one interrupts as ever."""
    stop = threading.Event()

    def note(signal_number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        # not by print, which may just be at work itself
        os.write(STANDARD_ERROR, b"stopping after this step; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _print_report(report: TrainingReport) -> None:
    """Write a line on the run: step, loss, speed, time left; after a validation, the scores."""
    minutes, seconds = divmod(round(min(report.seconds_left, 359_999)), 60)
    line = f"step {report.step} ({report.share:.0%})"
    if report.step:  # else nothing has been learnt yet
        line += f", loss {report.loss:.4f}, {report.patches_per_second:.1f} patches/s, {minutes}:{seconds:02d} left"
    if report.validation is not None:
        scores = report.validation
        line += f"; validation {scores['psnr']:.2f} dB, {scores['gain']:+.2f} dB over bicubic"
        if "niqe" in scores:
            line += f", NIQE {scores['niqe']:.2f}"
    write_line(line, sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
