"""What all commands share: how errors and interruptions end them, and how they write sizes."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from napari_mgbpv2._version import __version__
from napari_mgbpv2.addresses import redact
from napari_mgbpv2.cli.output import OutputClosed, accept_any_text, discard_output, flush, write_error
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.formatting import escape_control_characters
from napari_mgbpv2.paths import explain_write_error

_PACKAGE = str(Path(__file__).resolve().parents[1])
INTERRUPTED = 130  # what a shell gives for Ctrl-C
STANDARD_ERROR = 2  # file descriptor


def make_parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Make a parser with the options that all commands have."""
    parser = argparse.ArgumentParser(
        prog=command, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback when something goes wrong")
    return parser


def parse_path(text: str) -> Path:
    """Return the path of a file that an option names; ``~`` is the user's home folder."""
    return Path(os.path.expanduser(text))


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
        Exit status: 0; 1 after an error; 130 after Ctrl-C; 141 when nobody reads its output any more. (Wrong options
        end with 2, by argparse.)
    """
    accept_any_text()
    try:
        status = _run(parser.prog, work, parser.parse_args(arguments), interrupted)
        _finish_output(parser.prog, has_failed=status != 0)
        return status
    except OutputClosed as closed:
        return int(str(closed.code))
    except SystemExit:  # of argparse: help, the version, or wrong options
        _finish_output(parser.prog)
        raise


def _finish_output(command: str, *, has_failed: bool = False) -> None:
    """Write what waits; end with status 1 where standard output does not take it.

    A command that has failed has said why, and its reason may be just that its output is full: one line is enough.
    """
    try:
        flush()
    except OSError as error:
        if not has_failed:
            write_error(command, f"standard output: {explain_write_error(error)}")
        discard_output()
        raise SystemExit(1) from None


def _run(command: str, work: Callable[[argparse.Namespace], int | None], options: Any, interrupted: str) -> int:
    if not options.debug:  # what libraries log about a file, our own sentence says, if it matters
        logging.getLogger().addHandler(logging.NullHandler())
    try:
        with (
            _warnings_in_a_line(command, options.debug),
            _ending_at_once_when_interrupted_again(f"{command}: {interrupted}"),
        ):
            return work(options) or 0
    except KeyboardInterrupt:
        if options.debug:
            raise
        write_error(command, interrupted)
        return INTERRUPTED
    except Exception as error:
        if options.debug:
            raise
        write_error(command, error_message(error))
        return 1


@contextmanager
def _warnings_in_a_line(command: str, debug: bool) -> Iterator[None]:
    """Write warnings of this package as it writes anything else, and none of others, unless for debugging."""

    def in_a_line(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> str:
        return (
            f"{command}: {escape_control_characters(redact(str(message)))}\n" if filename.startswith(_PACKAGE) else ""
        )

    before = warnings.formatwarning
    if not debug:
        warnings.formatwarning = in_a_line
    try:
        yield
    finally:
        warnings.formatwarning = before


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


def error_message(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, MGBPv2Error):
        return escape_control_characters(redact(str(error).strip())) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:  # the system's own
        return escape_control_characters(f"{error.filename}: {error.strerror}; check the path and its permissions.")
    first = redact(str(error).strip().partition("\n")[0])
    if isinstance(error, MemoryError):
        return first or "not enough memory; use a smaller --tile"
    if isinstance(error, OSError):
        return first or type(error).__name__
    return (
        f"unexpected {type(error).__name__}: {first or 'without a message'}; this is a fault of the program: "
        "run it again with --debug and report what that shows."
    )
