"""`mgbpv2-upscale`: images in, OME-Zarr out."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination, absolute_path, display_path, expand_path, parse_destination
from napari_mgbpv2.cli.command import error_message, run_command
from napari_mgbpv2.cli.reporting import JsonReporter, QuietReporter, TextReporter
from napari_mgbpv2.cli.upscale_options import given_options
from napari_mgbpv2.cli.upscale_parser import parser
from napari_mgbpv2.conversion import ConversionJob, Report, prepare, run
from napari_mgbpv2.conversion.destinations import OTHER_ENDINGS, TIFF_ENDINGS, ZARR_ENDINGS, destinations_of
from napari_mgbpv2.conversion.oom import run_with_oom_fallback
from napari_mgbpv2.errors import DestinationError, ImageError, ModelError
from napari_mgbpv2.upscaling import UpscaleOptions

if TYPE_CHECKING:
    from distributed import Client

    from napari_mgbpv2.io.readers.discovery import SkippedFile

_FOR_JOB = ("overwrite", "resume", "levels", "series", "level", "unit", "missing", "record_paths")
_FOR_OUTPUT = ("format", "chunk", "shard", "codec")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(
        parser(), _upscale, arguments, interrupted="interrupted; what is done is kept, --resume goes on with it"
    )


def _upscale(options: argparse.Namespace) -> int:
    if options.verify:
        from napari_mgbpv2.cli.verify import verify

        return verify(options.source, command="mgbpv2-upscale", quiet=options.quiet, as_json=options.json)
    if options.output is None:
        parser().error("the following arguments are required: -o/--output")
    from napari_mgbpv2.io.readers.discovery import search

    chosen = _chosen(options)
    reporter = (JsonReporter if options.json else QuietReporter if options.quiet else TextReporter)("mgbpv2-upscale")
    output = _output(options.output)
    found = search(options.source)
    missing = [each for each in found.skipped if each.is_failure]
    reporter.left_out([each for each in found.skipped if not each.is_failure])
    folders = [image.folder for image in found.images]
    one = len(found.images) == len(options.source) == 1 and not missing
    single = one and folders == [None] and not _names_a_folder(options.output)
    destinations = destinations_of(
        [image.path for image in found.images],
        output,
        chosen.scale or _scale_of(chosen.model),
        single=single,
        folders=folders,
    )
    jobs = [
        ConversionJob(
            source=image.path,
            destination=destination,
            options=chosen,
            pixel_size=_pixel_size(options.pixel_size),
            **{name: getattr(options, name) for name in (*_FOR_JOB, *_FOR_OUTPUT)},
        )
        for image, destination in zip(found.images, destinations, strict=True)
    ]
    if options.preview is not None:
        from napari_mgbpv2.cli.preview import check_free

        if len(jobs) > 1:
            raise DestinationError(f"{options.preview}: a preview shows one image, and there are {len(jobs)} sources")
        check_free(options.preview, jobs[0].destination, may_replace=options.resume or options.overwrite)
    with _client(options) as client:
        if one:
            _convert(jobs[0], options, reporter, client)
            return 0
        return _convert_all(jobs, missing, options, reporter, client)


def _output(text: str) -> Destination:
    """Return where results go; an empty name, which would be this folder, is refused."""
    if not text:
        raise DestinationError("-o is empty: name the OME-Zarr to write, such as result.ome.zarr")
    return parse_destination(text)


def _names_a_folder(output: str) -> bool:
    """Tell "upscaled/", which is for results, from "a.ome.zarr/", which is one."""
    return output.endswith(("/", os.sep)) and not output.rstrip("/" + os.sep).lower().endswith(
        (*ZARR_ENDINGS, *TIFF_ENDINGS, *OTHER_ENDINGS)
    )


def _convert_all(
    jobs: Sequence[ConversionJob],
    missing: Sequence[SkippedFile],
    options: argparse.Namespace,
    reporter: QuietReporter,
    client: Client | None,
) -> int:
    """Convert one after the other; one that fails does not stop the rest."""
    failed = [each.path for each in missing]
    for each in missing:
        reporter.failed(each.path, f"{each.path}: {each.reason}")
    for job in jobs:
        try:
            _convert(job, options, reporter, client)
        except Exception as error:  # whatever it is, the others are not to blame
            if options.debug:
                raise
            failed.append(display_path(job.source))
            reporter.failed(display_path(job.source), error_message(error))
    reporter.end(len(jobs) + len(missing) - len(failed), failed)
    return 1 if failed else 0


def _convert(job: ConversionJob, options: argparse.Namespace, reporter: QuietReporter, client: Client | None) -> None:
    prepared = prepare(job)
    for note in (*prepared.source.notes, *prepared.plan.notes):
        reporter.note(f"{prepared.source.path}: {note}")
    if options.dry_run:
        reporter.estimate(prepared)
        return
    reporter.plan(prepared)
    last: list[Report] = []

    def tell(report: Report) -> None:
        last[:] = [report]
        reporter.progress(report)

    prepared = run_with_oom_fallback(
        prepared, lambda prepared: run(prepared, client=client, tell=tell, note=reporter.note), reporter.note
    )
    destination = absolute_path(job.destination)
    reporter.done(display_path(job.source), destination, last[0] if last else None)
    if options.preview is not None:
        from napari_mgbpv2.cli.preview import write_preview

        reporter.preview(write_preview(prepared, destination, options.preview))


def _chosen(arguments: argparse.Namespace) -> UpscaleOptions:
    """Return the options of the command line, and those of a preset that it does not give."""
    given = given_options(arguments)
    if arguments.preset is None:
        return UpscaleOptions(**given)
    from napari_mgbpv2.model.zoo import preset

    return UpscaleOptions(**{**preset(arguments.preset), **given})


def _scale_of(model: str | None) -> int | None:
    """Scale that a model is for, as its card says it; None where there is no card."""
    from napari_mgbpv2.model.zoo import DEFAULT_SCALE, find_model, read_card

    if model is None:
        return DEFAULT_SCALE
    try:
        model = expand_path(model)
        return (read_card(model) if os.path.isfile(model) else find_model(model)).scale
    except ModelError:
        return None


@contextlib.contextmanager
def _client(options: argparse.Namespace) -> Iterator[Client | None]:
    """Connect to the workers that are asked for, if any."""
    if options.dry_run or (options.workers is None and options.scheduler is None):
        yield None
        return
    from napari_mgbpv2.conversion.workers import cluster_at, local_workers

    with cluster_at(options.scheduler) if options.scheduler else local_workers(options.workers) as client:
        yield client


def _pixel_size(text: str | None) -> Any:
    """Read "0.25", or "z=1.5,y=0.25,x=0.25"."""
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        parts = [part.split("=") for part in text.split(",")]
        sizes = {axis.strip(): float(size) for axis, size in parts}
        if len(sizes) < len(parts):
            raise ImageError(f"--pixel-size {text}: an axis is named twice; give one number an axis.")
        return sizes
    except ImageError:
        raise
    except ValueError:
        raise ImageError(f'--pixel-size {text}: give a number, or one an axis as in "z=1.5,y=0.25,x=0.25".') from None


if __name__ == "__main__":
    sys.exit(main())
