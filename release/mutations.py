"""How many changes to the rooms that read, write and run do their tests notice? A sample.

    pip install "cosmic-ray>=8.7" -c constraints.txt
    python release/mutations.py [--rooms ome_zarr sources ...] [--each 40] [--seed 0] [--survivors FILE]

In a copy of the last commit, cosmic-ray changes one place in a room: an operator, a comparison, a number, a truth
value, an exception, a loop. The tests of that room then run in processes of their own, so that what they start in
further processes is changed as well. A change is noticed if a test fails or never ends. Which changes are tried is
drawn by the seed. mutmut does the same for all changes to the rooms that compute, see ``[tool.mutmut]``.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/napari_mgbpv2")
PATIENCE = 5  # times what the tests take without any change

TESTS = {
    "caching": ["caching"],
    "checkpoints": ["checkpoints", "published_models"],
    "engine": ["engine", "upscaling"],
    "lazy": ["upscaling", "promises"],
    "model_zoo": ["model_zoo", "published_models", "cli_models"],
    "ome_zarr": ["ome_zarr", "resume", "object_store_destinations"],
    "sources": ["sources*"],
}
# "X | None" is written in annotations alone, which nothing evaluates.
UNSEEN = "core/ReplaceBinaryOperator_BitOr"


@dataclass
class Score:
    """What became of the changes to a room."""

    tried: int = 0
    noticed: int = 0

    def __str__(self) -> str:
        return f"{self.noticed} of {self.tried}, {self.noticed / max(self.tried, 1):.0%}"


def changes(room: str) -> list[MutationSpec]:
    """All changes to a room that its code could show, in the order of its files."""
    folder = PACKAGE / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    with tempfile.TemporaryDirectory() as place, use_db(Path(place) / "all.sqlite") as work:
        init(files, work, {})
        found = [mutation for item in work.work_items for mutation in item.mutations]
    return [mutation for mutation in found if not mutation.operator_name.startswith(UNSEEN)]


def test_command(room: str) -> str:
    files = [str(file) for name in TESTS[room] for file in sorted(Path("tests").glob(f"test_{name}.py"))]
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile", "mutated"]
    return shlex.join([sys.executable, "-m", "pytest", *options, *files])


def try_some(room: str, count: int, seed: int) -> Iterator[tuple[bool, str]]:
    """Try some changes to a room; tells of each whether it was noticed, and what it was."""
    command, began = test_command(room), time.monotonic()
    subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)  # without any change, all is well
    limit = 10 + PATIENCE * (time.monotonic() - began)
    every = changes(room)
    for mutation in random.Random(seed).sample(every, min(count, len(every))):
        result = mutate_and_test([mutation], command, limit)
        yield result.test_outcome is not TestOutcome.SURVIVED, result.diff or ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--each", type=int, default=40, help="changes to each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="where to write down what was not noticed")
    options = parser.parse_args()
    survivors = options.survivors and options.survivors.absolute()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        for room in options.rooms:
            score = Score()
            for noticed, diff in try_some(room, options.each, options.seed):
                score.tried += 1
                score.noticed += noticed
                if not noticed and survivors:
                    with survivors.open("a") as file:
                        file.write(f"{diff}\n\n")
                print(f"{room}: {score}", file=sys.stderr, flush=True)
            print(f"{room}: {score} noticed", flush=True)


if __name__ == "__main__":
    main()
