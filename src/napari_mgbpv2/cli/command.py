"""What all commands share: how errors and interruptions end them, and how they write sizes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from napari_mgbpv2._version import __version__
from napari_mgbpv2.errors import MGBPv2Error

INTERRUPTED = 130  # what a shell gives for Ctrl-C


def parser_of(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Make a parser with the options that all commands have."""
    parser = argparse.ArgumentParser(
        prog=command, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback when something goes wrong")
    return parser


def run_command(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None
) -> int:
    """Parse and work; turn what goes wrong into one line on standard error.

    Returns
    -------
    int
        Exit status: 0; 1 after an error; 130 after Ctrl-C. (Wrong options end with 2, by argparse.)
    """
    options = parser.parse_args(arguments)
    try:
        work(options)
    except KeyboardInterrupt:
        if options.debug:
            raise
        print(f"{parser.prog}: interrupted; nothing unfinished was left", file=sys.stderr)
        return INTERRUPTED
    except (MGBPv2Error, MemoryError, OSError) as error:
        if options.debug:
            raise
        message = str(error) or ("not enough memory; use a smaller --tile" if isinstance(error, MemoryError) else "")
        print(f"{parser.prog}: {message or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def readable_bytes(count: float) -> str:
    """Write a number of bytes as people do: "4.2 MB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= 100 else f"{count:.1f} {units[0]}"
