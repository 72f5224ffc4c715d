"""The table of faults, and whether what happened is what it says.

`faults.toml` has one row a fault, and each row one test, named for it. The page for users, `docs/faults.md`, is made of
the same rows.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("faults.toml")

Content = dict[str, bytes | str | None]  # of files, targets of links, and folders, by their path


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes
    ----------
    test
        Name of its test, without "test_".
    what
        What goes wrong, for people.
    said
        What the user is told. ``SOURCE``, ``DESTINATION`` and ``MODEL`` stand for their paths, ``…`` for anything.
    status
        Exit status of the command, or the error that the function raises.
    left
        What is new on the disk: "nothing", "unfinished" work, "complete" work that could not get its name, or the
        "result".
    then
        What else is to be known.
    """

    test: str
    what: str
    said: str
    status: int | str
    left: str
    then: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a command or a function has done.

    Attributes
    ----------
    status, said
        As `Fault` has them.
    printed
        On standard output.
    before
        What was on the disk.
    destination
        Where the result was to be.
    names
        Paths, by what stands for them in `Fault.said`.
    """

    status: int | str
    said: str
    printed: str
    before: Content
    destination: Path
    names: Mapping[str, str]


def sections() -> dict[str, list[Fault]]:
    """Read the table: rows by the heading that they stand below."""
    read = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {section["title"]: [Fault(**row) for row in section["fault"]] for section in read["section"]}


FAULTS = {fault.test: fault for rows in sections().values() for fault in rows}


def content_of(folder: Path) -> Content:
    """All that is in a folder, but not what links lead to."""
    content: Content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content[str(path)] = os.readlink(path)
        else:
            content[str(path)] = path.read_bytes() if path.is_file() else None
    return content


@dataclass
class Row:
    """A row that a test has to show."""

    fault: Fault
    folder: Path
    shown: bool = False

    def is_shown_by(self, outcome: Outcome) -> None:
        """Check that what happened is what the table says."""
        self.shown = True
        assert "Traceback" not in outcome.said, outcome.said
        pattern = re.escape(self.fault.said).replace("…", ".+")
        for name, path in outcome.names.items():
            pattern = pattern.replace(name, re.escape(path))
        assert re.fullmatch(pattern, outcome.said), outcome.said
        assert outcome.status == self.fault.status
        self._check_disk(outcome)

    def _check_disk(self, outcome: Outcome) -> None:
        after = content_of(self.folder)
        assert {name: after.get(name, "gone") for name in outcome.before} == outcome.before
        new = set(after) - set(outcome.before)
        destination = str(outcome.destination)
        partial = f"{destination}.partial"
        if self.fault.left == "result":
            assert destination in new
            assert all(name == destination or name.startswith(f"{destination}{os.sep}") for name in new)
        elif self.fault.left in ("unfinished", "complete"):
            assert partial in new
            assert all(name in (partial, f"{destination}.lock") or name.startswith(partial + os.sep) for name in new)
            root = json.loads(Path(partial, "zarr.json").read_bytes())
            assert ("ome" in root["attributes"]) == (self.fault.left == "complete")  # what tells others of an image
        else:
            assert self.fault.left == "nothing"
            assert new == set()
