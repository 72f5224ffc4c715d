"""Numbers, durations and names as text for people."""

from __future__ import annotations

import re

# Characters that move a terminal's cursor, colour, hide or reverse text: control characters, marks of the writing
# direction and line separators. Also surrogates, which Python uses for bytes of file names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def format_bytes(count: float) -> str:
    """Format a number of bytes: "4.2 MB"."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= 100 else f"{count:.1f} {units[0]}"


def format_duration(seconds: float) -> str:
    """Format a duration: "40 s", "3 min", "2.5 h", "4 days"."""
    for size, unit in ((172_800, "days"), (7_200, "h"), (100, "min")):
        if seconds >= size:
            value = seconds / {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"


def escape_control_characters(text: str) -> str:
    r"""Escape characters that a terminal would obey or cannot encode: a line feed becomes ``\n``, a bell ``\x07``."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # the surrogate of a byte that is not UTF-8
        code -= 0xDC00
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
