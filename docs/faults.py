"""Write `faults.md` from the table of the tests: ``python docs/faults.py``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER.parent / "tests" / "faults" / "faults.toml"
PAGE = FOLDER / "faults.md"

INTRODUCTION = """\
<!-- Made by `python docs/faults.py` from tests/faults/faults.toml: change that. -->

# When something goes wrong

What you are told, with which exit status the command ends, and what is on the disk then. Each row is made to happen by
a test of its own (`pytest tests/faults`), which compares all of it, and that no file of yours has been touched. On
standard error, `mgbpv2-upscale: ` stands before what is said, and SOURCE, DESTINATION and MODEL are paths. A traceback
is shown by `--debug` alone.

*Unfinished* work is `DESTINATION.partial`: no program takes it for an image, and `--resume` goes on with it.
"""

LEFT = {
    "nothing": "nothing new",
    "unfinished": "unfinished work",
    "complete": "`DESTINATION.partial`, complete but for its name",
    "result": "the result",
}


def page() -> str:
    """Write the page: a table for each section."""
    parts = [INTRODUCTION]
    for section in tomllib.loads(TABLE.read_text(encoding="utf-8"))["section"]:
        parts.append(f"\n## {section['title']}\n")
        parts.append("| what | what is said | status | on the disk |\n|---|---|---|---|")
        parts += [_row(fault) for fault in section["fault"]]
    return "\n".join(parts) + "\n"


def _row(fault: dict[str, Any]) -> str:
    said = "<br>".join(f"`{line}`" for line in fault["said"].splitlines()) or "nothing"
    status = fault["status"] if isinstance(fault["status"], int) else f"`{fault['status']}`"
    then = f". {fault['then']}" if "then" in fault else ""
    return f"| {fault['what']} | {said} | {status} | {LEFT[fault['left']]}{then} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
