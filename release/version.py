"""Checks that a tag names the version of the package, everywhere: python release/version.py v1.2.3."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAID = {
    "src/napari_mgbpv2/_version.py": r'__version__ = "(.+)"',
    "CITATION.cff": r"(?m)^version: (.+)$",
    "CHANGELOG.md": r"(?m)^## (?:\[)?(\d+\.\d+\.\d+)",
}


def versions() -> dict[str, str]:
    """Version that each file says; of the changelog, the newest."""
    found = {}
    for name, pattern in SAID.items():
        match = re.search(pattern, (ROOT / name).read_text())
        found[name] = match.group(1) if match else "none"
    return found


if __name__ == "__main__":
    wrong = {name: version for name, version in versions().items() if f"v{version}" != sys.argv[1]}
    if wrong:
        sys.exit(f"the tag is {sys.argv[1]}, but " + ", ".join(f"{name} says {each}" for name, each in wrong.items()))
