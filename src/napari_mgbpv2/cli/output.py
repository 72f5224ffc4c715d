"""Writing to standard output and standard error: any name in any encoding, and quiet once nobody reads any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from napari_mgbpv2.formatting import escape_control_characters

CLOSED_PIPE = 141  # what a shell gives for a program that SIGPIPE has ended


class OutputClosed(SystemExit):
    """Nobody reads what a command says any more: it ends, as others do that are piped into ``head``.

    It is no error of what the command was at, and passes all that handle those.
    """

    def __init__(self) -> None:
        super().__init__(CLOSED_PIPE)


def write_error(command: str, sentence: str) -> None:
    """Write one line to standard error, with the name of the command."""
    write_line(f"{command}: {sentence}", sys.stderr)


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write one line for people; what a terminal would obey is escaped.

    Parameters
    ----------
    text
        The line.
    stream
        By default standard output.

    Raises
    ------
    OutputClosed
        Nobody reads any more.
    """
    _write(f"{escape_control_characters(text)}\n", stream)


def write_text(text: str) -> None:
    """Write text that needs no escaping, such as JSON, to standard output. Errors as `write_line` has them."""
    _write(text if text.endswith("\n") else f"{text}\n", None)


def write_path(path: str | os.PathLike[str]) -> None:
    """Write a path to standard output: escaped on a terminal, and to a file or another program as its very bytes.

    Errors as `write_line` has them.
    """
    text = os.fspath(path)
    stream = sys.stdout
    buffer = getattr(stream, "buffer", None)
    if buffer is None or os.name == "nt" or stream.isatty():
        write_line(text)
        return
    with _ending_when_closed():
        stream.flush()
        buffer.write(os.fsencode(text) + b"\n")
        buffer.flush()


def accept_any_text() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what waits. Errors as `write_line` has them; an `OSError` where the disk is full."""
    with _ending_when_closed():
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()


def _write(text: str, stream: TextIO | None) -> None:
    stream = sys.stdout if stream is None else stream
    if stream is None:  # closed before the start
        return
    with _ending_when_closed():
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            if stream is not sys.stderr:  # there is no way left to tell of that one
                raise


@contextlib.contextmanager
def _ending_when_closed() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        discard_output()
        raise OutputClosed from None


def discard_output() -> None:
    """Lead both streams to nowhere, if they fail: Python writes what waits when it ends, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # a stream without a file
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
