"""A job in the background: napari's worker around plain work, its progress and its end as signals of the GUI thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_mgbpv2.conversion.oom import is_out_of_memory
from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.plugin.jobs import EXPECTED, sentence_of

Asked = Callable[[], bool]
Work = Callable[[Callable[[Any], None], Asked], Any]


class Job(QObject):
    """Runs ``work(tell, cancelled)`` once in a thread of napari's.

    Closing the window asks the worker to quit, which is heard like `cancel`. What goes wrong reaches napari's
    notifications as one sentence; a defect, with its traceback.

    Parameters
    ----------
    work
        The work. What it tells is emitted as ``told``; it raises `Cancelled` or returns early when told to stop.
    parent
        Owner, with which the signals end.
    notifies
        Whether an error is to appear in napari's notifications, or whoever listens shows it.
    title
        What napari calls it when somebody closes the window meanwhile: "saving cells".
    """

    told = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    cancelled = Signal(str)
    ended = Signal()  # after one of those three
    _telling = Signal(object)  # from whatever thread it works in

    def __init__(
        self, work: Work, parent: QObject | None = None, *, notifies: bool = True, title: str = "upscaling"
    ) -> None:
        super().__init__(parent)
        self._work: Work | None = work
        self._notifies = notifies
        self._stop = threading.Event()
        self._worker = create_worker(_Titled(self._run, title), _start_thread=False)
        self._worker.returned.connect(self._on_returned)
        self._worker.errored.connect(self._on_errored)
        self._running = False
        self._telling.connect(self._on_telling)  # a method of an object of the GUI's thread is called there

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._running

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; it ends when it next asks."""
        self._stop.set()

    def _run(self) -> tuple[str, Any]:
        """Work, in the worker's thread."""
        assert self._work is not None
        try:
            return "succeeded", self._work(self._tell, self._is_cancelled)
        except Cancelled as error:
            return "cancelled", str(error)
        except EXPECTED as error:
            return "failed", sentence_of(error)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return "failed", sentence_of(error)

    def _tell(self, what: Any) -> None:
        try:
            self._telling.emit(what)
        except RuntimeError:  # the widget has gone
            self._stop.set()

    def _on_telling(self, what: Any) -> None:
        self.told.emit(what)

    def _is_cancelled(self) -> bool:
        return self._stop.is_set() or bool(self._worker.abort_requested)

    def _on_returned(self, outcome: tuple[str, Any]) -> None:
        how, what = outcome
        if how == "succeeded":
            self.succeeded.emit(what)
        elif how == "failed":
            if self._notifies:
                show_error(what)
            self.failed.emit(what)
        else:
            self.cancelled.emit(what)
        self._end()

    def _on_errored(self, error: Exception) -> None:
        self.failed.emit(sentence_of(error))
        self._end()

    def _end(self) -> None:
        """Let go of everything: napari keeps its workers, and they must not keep the images that they worked on."""
        self._running, self._work = False, None
        self.ended.emit()
        self.deleteLater()


class _Titled:
    """A function that napari's messages call by a title."""

    def __init__(self, function: Callable[[], Any], title: str) -> None:
        self._function, self._title = function, title

    def __call__(self) -> Any:
        return self._function()

    def __str__(self) -> str:
        return self._title
