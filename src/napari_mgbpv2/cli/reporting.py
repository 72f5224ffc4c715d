"""Reporters of `mgbpv2-upscale`: a progress bar, JSON lines, or only results and errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_mgbpv2.addresses import Destination, absolute_path
from napari_mgbpv2.cli.output import write_error, write_line, write_path, write_text
from napari_mgbpv2.conversion import ConversionPlan, Report
from napari_mgbpv2.formatting import format_bytes, format_duration
from napari_mgbpv2.io.readers.discovery import SkippedFile

JSON_SECONDS = 1.0  # between two lines of progress
MOST_NAMED = 5  # of files that are left out for the same reason


class QuietReporter:
    """Reporter that writes the paths of results to standard output and errors to standard error."""

    def __init__(self, command: str) -> None:
        self.command = command

    def left_out(self, others: Sequence[SkippedFile]) -> None:
        """Report the files in folders that are not images."""

    def preview(self, path: Path) -> None:
        """Report the path of a preview."""
        write_path(path)

    def plan(self, prepared: ConversionPlan) -> None:
        """Report the plan of a conversion."""

    def estimate(self, prepared: ConversionPlan) -> None:
        """Report the plan of a conversion and its estimated time, for a dry run."""
        from napari_mgbpv2.conversion.estimates import estimate

        found = estimate(prepared)
        write_line(f"{summary(prepared)}; about {format_duration(found.seconds)}")

    def progress(self, report: Report) -> None:
        """Report progress."""

    def note(self, sentence: str) -> None:
        """Report a note or a warning."""

    def done(self, source: str, result: Destination, last: Report | None) -> None:
        """Report a complete result. Without a progress report, it was complete before this run."""
        write_path(result)

    def failed(self, source: str, sentence: str) -> None:
        """Report that a source has failed."""
        write_error(self.command, sentence)

    def end(self, done: int, failed: Sequence[str]) -> None:
        """Report how many of several sources succeeded and failed."""
        if failed:
            write_error(self.command, f"{done} done, {len(failed)} failed: {', '.join(failed)}")


class TextReporter(QuietReporter):
    """Reporter that also prints the plan, a progress bar and a summary."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._bar: Any = None

    def left_out(self, others: Sequence[SkippedFile]) -> None:
        """Print one line per reason."""
        reasons: dict[str, list[str]] = {}
        for other in others:
            reasons.setdefault(other.reason, []).append(other.path)
        for reason, paths in reasons.items():
            write_error(self.command, f"left out, {reason}: {_name_first(paths)}")

    def plan(self, prepared: ConversionPlan) -> None:
        """Print the plan in one line."""
        write_line(summary(prepared), sys.stderr)

    def progress(self, report: Report) -> None:
        """Update the progress bar: megapixels of the result, rate, time left, tiles and bytes written."""
        if self._bar is None:
            from tqdm import tqdm

            form = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            first = max(0, report.tiles - 1) / report.all_tiles * report.all_megapixels
            self._bar = tqdm(
                total=report.all_megapixels, initial=first, unit=" Mpx", bar_format=form, disable=None, delay=0.1
            )
        self._bar.set_postfix_str(
            f"{report.tiles}/{report.all_tiles} tiles, {format_bytes(report.bytes_written)} written", refresh=False
        )
        self._bar.update(report.tiles / report.all_tiles * report.all_megapixels - self._bar.n)

    def note(self, sentence: str) -> None:
        """Print it."""
        self._close()
        write_error(self.command, sentence)

    def done(self, source: str, result: Destination, last: Report | None) -> None:
        """Print the path of the result, and how many tiles were computed twice."""
        self._close()
        if last is None:
            write_line(f"{result} was complete already", sys.stderr)
        elif last.repeated_tiles:
            share = last.repeated_tiles / last.all_tiles
            write_line(f"{last.repeated_tiles} tiles ({share:.1%}) ran twice, at borders of areas", sys.stderr)
        super().done(source, result, last)

    def failed(self, source: str, sentence: str) -> None:
        """Print why."""
        self._close()
        super().failed(source, sentence)

    def end(self, done: int, failed: Sequence[str]) -> None:
        """Print how many."""
        if not failed:
            write_error(self.command, f"all {done} done")
        super().end(done, failed)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonReporter(QuietReporter):
    """Reporter that prints one JSON object per line, each with an "event".

    The event is one of left_out, plan, progress, note, done, preview, failed and end.
    """

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._last_progress = 0.0

    def left_out(self, others: Sequence[SkippedFile]) -> None:
        """Print each with the reason."""
        for other in others:
            _print("left_out", path=other.path, reason=other.reason)

    def preview(self, path: Path) -> None:
        """Print where it is."""
        _print("preview", preview=str(path))

    def plan(self, prepared: ConversionPlan) -> None:
        """Print the plan."""
        _print("plan", **plan_of(prepared))

    def estimate(self, prepared: ConversionPlan) -> None:
        """Print the plan with the estimated time."""
        from napari_mgbpv2.conversion.estimates import estimate

        _print("plan", **plan_of(prepared), estimated_seconds=round(estimate(prepared).seconds, 3))

    def progress(self, report: Report) -> None:
        """Print the report, at most once per `JSON_SECONDS`."""
        now = time.monotonic()
        if now - self._last_progress >= JSON_SECONDS or report.shards == report.all_shards:
            self._last_progress = now
            _print("progress", **asdict(report), seconds_left=seconds_left(report))

    def note(self, sentence: str) -> None:
        """Print it."""
        _print("note", note=sentence)

    def done(self, source: str, result: Destination, last: Report | None) -> None:
        """Print where the result is."""
        _print("done", source=source, destination=str(result), **({} if last is None else asdict(last)))

    def failed(self, source: str, sentence: str) -> None:
        """Print why."""
        _print("failed", source=source, error=sentence)

    def end(self, done: int, failed: Sequence[str]) -> None:
        """Print the outcome."""
        _print("end", done=done, failed=list(failed))


def summary(prepared: ConversionPlan) -> str:
    """Return the plan of a conversion, with its memory and disk requirements, as one line."""
    from napari_mgbpv2.io.writers.ome_zarr import free_space

    plan, source = prepared.plan, prepared.source
    grid = plan.layout.grid
    free = free_space(prepared.job.destination)
    line = (
        f"{source.path} ({source.kind}, {_size(source.data.shape)} {plan.axes} {plan.layout.dtype})"
        f" -> {_size(plan.layout.shape)} with {plan.model} on {plan.device}; "
        f"{plan.layout.tiles} tiles of {grid.rows.tile} x {grid.columns.tile} px, "
        f"{grid.computed_share:.2f} px computed for each"
    )
    if prepared.shard_order.extra_share:
        line += f", {prepared.shard_order.extra_share:.1%} of the tiles twice to keep the memory small"
    line += f"; about {format_bytes(prepared.memory_bytes)} of memory a process, at most "
    if free is None:
        return f"{line}{format_bytes(prepared.disk_bytes)} in the object store"
    line += f"{format_bytes(prepared.disk_bytes)} of disk ({format_bytes(free)} free)"
    return f"{line}; WARNING: the disk may not suffice" if prepared.disk_bytes > free else line


def plan_of(prepared: ConversionPlan) -> dict[str, Any]:
    """Return the plan of a conversion, with its memory and disk requirements, as JSON values."""
    from napari_mgbpv2.io.writers.ome_zarr import free_space

    plan, source = prepared.plan, prepared.source
    grid = plan.layout.grid
    return {
        "source": source.path,
        "kind": source.kind,
        "axes": plan.axes,
        "source_shape": list(source.data.shape),
        "shape": list(plan.layout.shape),
        "dtype": str(plan.layout.dtype),
        "destination": str(absolute_path(prepared.job.destination)),
        "scale": plan.scale,
        "model": plan.model,
        "device": plan.device,
        "tiles": plan.layout.tiles,
        "tile": [grid.rows.tile, grid.columns.tile],
        "computed_share": grid.computed_share,
        "extra_share": prepared.shard_order.extra_share,
        "memory_bytes": prepared.memory_bytes,
        "disk_bytes": prepared.disk_bytes,
        "free_bytes": free_space(prepared.job.destination),
    }


def seconds_left(report: Report) -> float | None:
    """Estimate the time left from the tiles of this run; None before the first one."""
    if not report.tiles or not report.seconds:
        return None
    return round(report.seconds / report.tiles * (report.all_tiles - report.tiles), 1)


def _name_first(paths: Sequence[str]) -> str:
    """Return the first paths, and the number of the others."""
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{', '.join(paths[:MOST_NAMED])}{more}"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _print(event: str, **values: Any) -> None:
    write_text(json.dumps({"event": event, **values}))
