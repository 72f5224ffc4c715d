"""A job in the background: napari's worker around plain work, its progress and its end as signals of the GUI thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.plugin.jobs import EXPECTED, is_out_of_memory, sentence_of

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
    """

    told = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    ended = Signal()  # after one of those three

    def __init__(self, work: Work, parent: QObject | None = None, *, notifies: bool = True) -> None:
        super().__init__(parent)
        self._work, self._notifies = work, notifies
        self._stop = threading.Event()
        self._worker = create_worker(self._run, _start_thread=False)
        self._worker.returned.connect(self._on_returned)
        self._worker.errored.connect(self._on_errored)
        self._running = False

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
            self.told.emit(what)
        except RuntimeError:  # the widget has gone
            self._stop.set()

    def _is_cancelled(self) -> bool:
        return self._stop.is_set() or bool(self._worker.abort_requested)

    def _on_returned(self, outcome: tuple[str, Any]) -> None:
        self._running = False
        how, what = outcome
        if how == "succeeded":
            self.succeeded.emit(what)
        elif how == "failed":
            if self._notifies:
                show_error(what)
            self.failed.emit(what)
        else:
            self.cancelled.emit()
        self.ended.emit()

    def _on_errored(self, error: Exception) -> None:
        self._running = False
        self.failed.emit(sentence_of(error))
        self.ended.emit()
