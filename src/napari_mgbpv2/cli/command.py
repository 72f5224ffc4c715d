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
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None,
    *,
    interrupted: str = "interrupted; nothing unfinished was left",
) -> int:
    """Parse and work; turn what goes wrong into one line on standard error.

    Parameters
    ----------
    parser
        Of the command's options.
    work
        Takes the options; may return an exit status.
    arguments
        Of the command line; by default those of this process.
    interrupted
        What to say after Ctrl-C.

    Returns
    -------
    int
        Exit status: 0; 1 after an error; 130 after Ctrl-C. (Wrong options end with 2, by argparse.)
    """
    options = parser.parse_args(arguments)
    try:
        return work(options) or 0
    except KeyboardInterrupt:
        if options.debug:
            raise
        print(f"{parser.prog}: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except (MGBPv2Error, MemoryError, OSError) as error:
        if options.debug:
            raise
        print(f"{parser.prog}: {sentence_of(error)}", file=sys.stderr)
        return 1


def sentence_of(error: BaseException) -> str:
    """Say in one line what went wrong."""
    message = str(error) or ("not enough memory; use a smaller --tile" if isinstance(error, MemoryError) else "")
    return message.strip().split("\n")[0] or type(error).__name__
