"""Kill conversions at chosen file operations, and see whether anything is ever wrong, lost or stuck.

``python tests/soak.py --kills 1000``. A preloaded library counts what a process does to files (open to write, write,
fsync, rename, link, unlink, mkdir, rmdir, truncate, flock) and kills it at one of them: before, after, or in the middle
of a write. Storage, journal, lock and publishing are the real ones, only the pixels cost nothing. Processes are forked
from one that has all libraries loaded, so that a kill takes a fraction of a second.

After each kill, what has the name of the result must be the old image or the new one, byte for byte, and where nothing
has it, both must be there beside it. After some kills in a row, one run has to end with the right bytes, and with
nothing beside them. Some kills are of one of two processes that want the same destination at the same time.

It needs Linux and a C compiler. `tests/test_soak.py` runs a part of it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY = "MGBPV2_SOAK_LIBRARY"
SECONDS = 120.0  # after which a process counts as stuck
REFUSED = 7  # exit status of a process that finds another one at work
BEFORE, AFTER, HALF = 0, 1, 2

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
static atomic_long left = -1, done = 0;
static int how = 0;
void soak_arm(long number, int mode) { how = mode; done = 0; left = number; }
long soak_count(void) { return done; }
static int now(void) { if (left < 0) return 0; done++; return atomic_fetch_sub(&left, 1) == 1; }
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }
#define CALL(type, name, args, given) \
  type name args { \
    static type (*real) args; \
    if (!real) real = (type (*) args) dlsym(RTLD_NEXT, #name); \
    int at = now(); \
    if (at && how == 0) die(); \
    type result = real given; \
    if (at) die(); \
    return result; \
  }
CALL(int, fsync, (int fd), (fd))
CALL(int, rename, (const char *a, const char *b), (a, b))
CALL(int, renameat, (int c, const char *a, int d, const char *b), (c, a, d, b))
CALL(int, link, (const char *a, const char *b), (a, b))
CALL(int, linkat, (int c, const char *a, int d, const char *b, int f), (c, a, d, b, f))
CALL(int, unlink, (const char *a), (a))
CALL(int, unlinkat, (int c, const char *a, int f), (c, a, f))
CALL(int, mkdir, (const char *a, mode_t m), (a, m))
CALL(int, mkdirat, (int c, const char *a, mode_t m), (c, a, m))
CALL(int, rmdir, (const char *a), (a))
CALL(int, ftruncate64, (int fd, off64_t n), (fd, n))
CALL(int, flock, (int fd, int op), (fd, op))
ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t)) dlsym(RTLD_NEXT, "write");
  int at = fd > 2 && now();
  if (at && how == 0) die();
  if (at && how == 2) size /= 2;
  ssize_t result = real(fd, data, size);
  if (at) die();
  return result;
}
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    static int (*real)(const char *, int, ...); \
    if (!real) real = (int (*)(const char *, int, ...)) dlsym(RTLD_NEXT, #name); \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    int at = (flags & (O_CREAT | O_TRUNC)) && now(); \
    if (at && how == 0) die(); \
    int result = real(path, flags, mode); \
    if (at) die(); \
    return result; \
  }
OPEN(open)
OPEN(open64)
"""

KINDS = ("0.5", "0.4", "tiff")
SHAPE = (90, 70)


@dataclass
class Outcome:
    """What a soak has found."""

    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    at: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        where = ", ".join(f"{count} {what}" for what, count in sorted(self.at.items()))
        return (
            f"{self.kills} kills ({where}), {self.runs} runs: {len(self.wrong)} with wrong bytes or lost images, "
            f"{len(self.stuck)} stuck"
        )


def compiled(folder: Path) -> Path | None:
    """Compile the library; None where that is not possible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        return None
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    return folder / "shim.so" if subprocess.run(command, check=False).returncode == 0 else None


def convert(destination: Path, kind: str, seed: int, **options: Any) -> None:
    """Write an image that its seed decides, as a conversion does."""
    from concurrent.futures import ThreadPoolExecutor

    from napari_mgbpv2.io.writers.ome_tiff import write_ome_tiff
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout, OMEZarrWriter

    job = {"kind": kind, "seed": seed}
    layout = ImageLayout(
        SHAPE, np.dtype("u2"), "yx", (1.0, 1.0), (None, None), (0.0, 0.0), "soak", None, None, job,
        chunk=16, shard=32, levels=3, format="0.4" if kind == "0.4" else "0.5",
    )  # fmt: skip
    image = np.random.default_rng(seed).integers(0, 60000, SHAPE, "u2")

    def tiff(folder: Path, levels: list[Any]) -> Path:
        path = folder / "image.ome.tif"
        path.unlink(missing_ok=True)
        write_ome_tiff(
            path, levels, axes="yx", colour=False, pixel_size=layout.pixel_size, units=layout.units,
            translation=layout.translation, name="soak", channel_names=None, channel_colors=None, provenance=job,
            tile=16,
        )  # fmt: skip
        return path

    with OMEZarrWriter(destination, layout, job=job, make_file=tiff if kind == "tiff" else None, **options) as writer:
        regions = [region for region in writer.shards() if not writer.is_stored(layout.shard_index(region))]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda region: writer.write(region, image[region]), regions))
        for level in (1, 2):
            writer.build_level(level)
        writer.commit()


class Soak:
    """Runs and kills in one folder."""

    def __init__(self, folder: Path, library: str, seed: int) -> None:
        self.folder, self.random, self.outcome = folder, random.Random(seed), Outcome()
        self._library = ctypes.CDLL(library)
        self._library.soak_arm.argtypes = (ctypes.c_long, ctypes.c_int)
        self._library.soak_count.restype = ctypes.c_long
        self._expected: dict[tuple[str, int], dict[str, bytes]] = {}
        self._operations: dict[tuple[str, bool], int] = {}
        for kind in KINDS:
            for seed_of_image in (0, 1):
                place = folder / f"reference-{kind}-{seed_of_image}" / self._name(kind)
                self._operations[kind, False] = self._counted(lambda k=kind, s=seed_of_image, p=place: convert(p, k, s))
                self._expected[kind, seed_of_image] = content(place)
            place = folder / f"reference-{kind}-0" / self._name(kind)
            self._operations[kind, True] = self._counted(lambda k=kind, p=place: convert(p, k, 1, overwrite=True))

    def history(self, number: int) -> None:
        """Kill one conversion some times, and complete it."""
        kind, replaces = self.random.choice(KINDS), self.random.random() < 0.5
        destination = self.folder / f"history-{number}" / self._name(kind)
        destination.parent.mkdir()
        if replaces:
            self._run(lambda: convert(destination, kind, 0))
        options = {"overwrite": replaces, "resume": not replaces or self.random.random() < 0.5}
        name = f"{kind}{' over an old one' if replaces else ''}"
        for _ in range(self.random.randint(1, 4)):
            late = self.random.random() < 0.5  # in publishing, which is at the end
            most = self._operations[kind, replaces]
            at = self.random.randint(most * 3 // 4 if late else 1, most)
            mode = self.random.choice((BEFORE, AFTER, HALF))
            there = self._seed_of(destination, kind)  # which image this run replaces
            child = self._start(lambda: convert(destination, kind, 1, **options), at, mode)
            rival = (
                self._start(lambda: convert(destination, kind, 1, **options)) if self.random.random() < 0.15 else None
            )
            status = self._wait(child, f"history {number}, {name}, killed at {at}")
            other = None if rival is None else self._wait(rival, f"history {number}, {name}, beside one killed at {at}")
            if other not in (None, 0, 1, REFUSED):
                self.outcome.wrong.append(f"history {number}: the rival ended with {other}")
            self.outcome.kills += status == -signal.SIGKILL
            self.outcome.at[f"of {name}" + (" beside another" if rival else "")] += status == -signal.SIGKILL
            if fault := self._fault(destination, kind, there):
                self.outcome.wrong.append(f"history {number}, {name}, killed at {at}, mode {mode}: {fault}")
            if status == 0 or other == 0:
                break
        if not self._is(destination, kind, 1):
            status = self._run(lambda: convert(destination, kind, 1, overwrite=True))
            if status != 0:
                self.outcome.stuck.append(f"history {number}, {name}: the last run ended with {status}")
        else:
            self._run(lambda: tidied(destination, kind))
            if destination.with_name(f"{destination.name}.partial").exists():
                self._run(lambda: convert(destination, kind, 1, overwrite=True))  # which had been begun anew
        left = sorted(path.name for path in destination.parent.iterdir())
        if left != [destination.name] or content(destination) != self._expected[kind, 1]:
            self.outcome.wrong.append(f"history {number}, {name}: in the end there are {left}")
        else:
            shutil.rmtree(destination.parent)

    def _fault(self, destination: Path, kind: str, there: int | None) -> str:
        """Say what is wrong after a kill, where an image of that seed, or none, was there before."""
        replaced, partial = (destination.with_name(destination.name + end) for end in (".replaced", ".partial"))
        seed = self._seed_of(destination, kind)
        if seed is not None:
            return "" if seed in (1, there) else "the old image has come back"
        if os.path.lexists(destination):
            return "what has the name of the result is neither the old nor the new image"
        if there is None and not os.path.lexists(replaced):
            return ""
        if self._seed_of(replaced, kind) is None:
            return "the old image is lost"
        finished = partial / "image.ome.tif" if kind == "tiff" else partial
        return "" if self._is(finished, kind, 1) else "the old image has been moved away for one that is not complete"

    def _seed_of(self, path: Path, kind: str) -> int | None:
        """Which image a path is; None if it is none."""
        return next((seed for seed in (0, 1) if self._is(path, kind, seed)), None)

    def _is(self, path: Path, kind: str, seed: int) -> bool:
        found = {name: data for name, data in content(path).items() if not name.startswith(".mgbpv2-")}
        return found == self._expected[kind, seed]

    def _name(self, kind: str) -> str:
        return "soak.ome.tif" if kind == "tiff" else "soak.ome.zarr"

    def _counted(self, work: Callable[[], None]) -> int:
        """Run without a kill; return the number of operations."""
        reads, writes = os.pipe()

        def report() -> None:
            work()
            os.write(writes, str(self._library.soak_count()).encode())

        child = self._start(report, 10**9)
        os.close(writes)
        with os.fdopen(reads) as answer:
            count = int(answer.read() or 0)
        if self._wait(child, "reference") or not count:
            raise SystemExit(f"a conversion without a kill has failed, or its operations are not counted ({count})")
        return count

    def _run(self, work: Callable[[], None]) -> int:
        return self._wait(self._start(work), "a run")

    def _start(self, work: Callable[[], None], at: int = -1, mode: int = BEFORE) -> int:
        self.outcome.runs += 1
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            self._library.soak_arm(at, mode)
            work()
            status = 0
        except OSError as error:
            refused = "is already being written" in str(error)
            status = REFUSED if refused else 1
            if not refused and "exists already" not in str(error):
                print(error, file=sys.stderr)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(status)

    def _wait(self, child: int, what: str) -> int:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.outcome.stuck.append(what)
        return 1


def tidied(destination: Path, kind: str) -> None:
    """Do what a next run does about a finished image."""
    from napari_mgbpv2.io.storage.local_transaction import OutputTransaction
    from napari_mgbpv2.io.writers.ome_zarr import open_transaction

    place = open_transaction(destination, overwrite=True, is_file=kind == "tiff")
    assert isinstance(place, OutputTransaction)
    place.keep()


def content(path: Path) -> dict[str, bytes]:
    """All files of a folder, or one file."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def soak(kills: int, seed: int = 0, folder: Path | None = None) -> Outcome | None:
    """Kill that often, in a process that has the library preloaded; None where there can be none."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        library = os.environ.get(LIBRARY)
        if library is None:
            if (made := compiled(Path(place))) is None:
                return None
            environment = {**os.environ, "LD_PRELOAD": str(made), LIBRARY: str(made), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--kills", str(kills), "--seed", str(seed)]
            raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
        import imagecodecs  # noqa: F401
        import tifffile  # noqa: F401
        import yaozarrs.v05  # noqa: F401

        import napari_mgbpv2.io.writers.ome_tiff
        import napari_mgbpv2.io.writers.ome_zarr  # noqa: F401

        run = Soak(Path(place), library, seed)
        number, said = 0, time.monotonic()
        while run.outcome.kills < kills:
            number += 1
            run.history(number)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                print(run.outcome, file=sys.stderr, flush=True)
        return run.outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcome = soak(options.kills, options.seed)
    if outcome is None:
        print("it needs Linux and a C compiler", file=sys.stderr)
        return 2
    for line in (*outcome.wrong, *outcome.stuck):
        print(line)
    print(outcome)
    return 1 if outcome.wrong or outcome.stuck else 0


if __name__ == "__main__":
    sys.exit(main())
