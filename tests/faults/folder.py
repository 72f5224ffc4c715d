"""Where faults happen: a folder with an image and a model, and the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table import Outcome, content_of

from examples import an_image
from napari_mgbpv2.cli.upscale import main
from napari_mgbpv2.errors import MGBPv2Error

COMMAND = "mgbpv2-upscale"
# Small shards, so that there are many to be interrupted at.
SMALL_SHARDS = ("--tile", "150", "--chunk", "64", "--shard", "128", "--levels", "3")
JOURNAL = ".mgbpv2-journal.jsonl"

on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has other words for it, or forbids it")


class Folder:
    """A user's folder, and what is done there.

    Attributes
    ----------
    path
        The folder.
    model
        A small model in it, for 4 times.
    destination
        Where results go.
    """

    def __init__(self, path: Path, model: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path, self.model, self._capture = path, model, capture
        self.destination = path / "result.ome.zarr"

    def image(self, *shape: int, name: str = "image.npy", dtype: str = "u2") -> Path:
        """Make an image of noise."""
        np.save(self.path / name, an_image(*(shape or (200, 140)), dtype=dtype))
        return self.path / name

    def upscale(
        self,
        source: Path,
        *options: object,
        destination: Path | None = None,
        model: Path | str | None = "",
        prepare: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Run the command, in this process, after something that counts as done by it."""
        model = self.model if model == "" else model
        before, destination = content_of(self.path), destination or self.destination
        given = () if model is None else ("--model", model)
        self._capture.readouterr()
        prepare()
        status = main([str(each) for each in (source, "-o", destination, *given, *options)])
        printed, errors = self._capture.readouterr()
        return self.outcome(status, printed, errors, before, source, destination, model)

    def calls(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Outcome:
        """Call a public function that fails."""
        before = content_of(self.path)
        with pytest.raises(MGBPv2Error) as caught:
            function(*arguments, **options)
        names = {"DESTINATION": str(self.destination)}
        if arguments and isinstance(arguments[0], Path):
            names["SOURCE"] = str(arguments[0])
        return Outcome(type(caught.value).__name__, str(caught.value), "", before, self.destination, names)

    def starts(self, source: Path, *options: object, shards: int = 10) -> Running:
        """Start the command as a process of its own, and wait until it has stored some shards."""
        before = content_of(self.path)
        command = [Path(sys.executable).parent / COMMAND, source, "-o", self.destination, "--model", self.model]
        running = Running([str(each) for each in (*command, *SMALL_SHARDS, *options)])
        running.finished = lambda: self.outcome(*running.ends(), before, source, self.destination, self.model)
        wait_for_shards(self.destination, shards, lambda: running.process.poll() is not None)
        return running

    def outcome(
        self, status: int, printed: str, errors: str, before: Any, source: Path, destination: Path, model: object
    ) -> Outcome:
        """Tell what was said, but for the plan that every run begins with."""
        lines = [line for line in errors.splitlines() if not re.match(r".+ \(.+\) -> .+ with .+ on ", line)]
        said = "\n".join(line.removeprefix(f"{COMMAND}: ") for line in lines)
        names = {"SOURCE": str(source), "DESTINATION": str(destination), "MODEL": str(model)}
        return Outcome(status, said, printed, before, destination, names)


class Running:
    """The command as a process."""

    finished: Callable[[], Outcome]

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def ends(self) -> tuple[int, str, str]:
        """Wait for its end; return its status as a shell has it, and what it has printed and said."""
        printed, errors = self.process.communicate(timeout=240)
        code = self.process.returncode
        return (code if code >= 0 else 128 - code), printed, errors


def wait_for_shards(destination: Path, count: int, ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until unfinished work has that many shards, or is over."""
    journal = destination.with_name(f"{destination.name}.partial") / JOURNAL
    deadline = time.monotonic() + 240
    while not ended() and time.monotonic() < deadline:
        try:
            if journal.read_bytes().count(b"\n") > count:  # behind a line about the job
                return
        except OSError:
            pass
        time.sleep(0.002)
