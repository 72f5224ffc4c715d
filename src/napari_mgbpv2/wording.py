"""Numbers as people write them."""

from __future__ import annotations


def readable_bytes(count: float) -> str:
    """Write a number of bytes: "4.2 MB"."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= 100 else f"{count:.1f} {units[0]}"


def readable_seconds(seconds: float) -> str:
    """Write a time: "40 s", "3 min", "2.5 h", "4 days"."""
    for size, unit in ((172_800, "days"), (7_200, "h"), (100, "min")):
        if seconds >= size:
            value = seconds / {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"
