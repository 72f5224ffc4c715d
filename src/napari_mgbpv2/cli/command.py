"""What all commands share: how errors and interruptions end them, and how they write sizes."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from napari_mgbpv2._version import __version__
from napari_mgbpv2.errors import MGBPv2Error

INTERRUPTED = 130  # what a shell gives for Ctrl-C
STANDARD_ERROR = 2  # file descriptor


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
    if not options.debug:  # what libraries log about a file, our own sentence says, if it matters
        logging.getLogger().addHandler(logging.NullHandler())
    try:
        with _ending_at_once_when_interrupted_again(f"{parser.prog}: {interrupted}"):
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


@contextmanager
def _ending_at_once_when_interrupted_again(sentence: str) -> Iterator[None]:
    """Let the first Ctrl-C raise KeyboardInterrupt, as ever; another one does not wait for what is under way.

    Whatever is on the disk then is as after a power cut: unfinished work can be gone on with.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # such as nohup's
        yield
        return

    interrupted = waiting = False

    def again(signal_number: int, frame: FrameType | None) -> None:
        if waiting:
            os.write(STANDARD_ERROR, f"{sentence}\n".encode())  # not by print, which may just be at work itself
        os._exit(INTERRUPTED)

    def first(signal_number: int, frame: FrameType | None) -> None:
        nonlocal interrupted, waiting
        interrupted = waiting = True
        signal.signal(signal.SIGINT, again)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        waiting = False  # the sentence is said by whoever catches the interruption
        if not interrupted:  # else another Ctrl-C may come while Python ends
            signal.signal(signal.SIGINT, signal.default_int_handler)


def sentence_of(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, OSError) and error.filename is not None:  # the system's own
        return f"{error.filename}: {error.strerror}; check the path and its permissions."
    message = str(error) or ("not enough memory; use a smaller --tile" if isinstance(error, MemoryError) else "")
    return message.strip().split("\n")[0] or type(error).__name__
