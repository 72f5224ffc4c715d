"""Fuzzes a reader, led by what it covers: python fuzz/fuzz.py TARGET [-max_total_time=300 ...libFuzzer's options].

Needs atheris (`pip install atheris`), on Linux. Inputs that led on are kept in `build/fuzz/TARGET`. What fails is
written into the folder in which it runs; it is to be mended, and kept in `fuzz/found/TARGET` for tests/test_fuzz.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["napari_mgbpv2", "tifffile", "zarr", "safetensors"]):
    from seeds import write_seeds
    from targets import TARGETS, survives

ROOT = Path(__file__).parents[1]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"give one of {', '.join(TARGETS)}, and what libFuzzer takes")
    target = sys.argv.pop(1)
    corpus = ROOT / "build" / "fuzz" / target
    write_seeds(target, corpus)
    options = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=20000", *sys.argv[1:]]
    atheris.Setup([sys.argv[0], *options, str(corpus)], survives(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
