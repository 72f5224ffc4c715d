"""A job in the background: what it tells, how it ends, and that nothing of it stays."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from qtpy.QtCore import QObject
from user import WAIT

from napari_mgbpv2.errors import Cancelled, ImageError
from napari_mgbpv2.plugin.running import Job


@pytest.fixture
def owner(qtbot: Any) -> QObject:
    return QObject()


def outcome_of(job: Job, qtbot: Any) -> list[tuple[str, Any]]:
    """Run a job and list what it signals, in order."""
    heard: list[tuple[str, Any]] = []
    for name in ("told", "succeeded", "failed", "cancelled"):
        getattr(job, name).connect(lambda what, name=name: heard.append((name, what)))
    with qtbot.waitSignal(job.ended, timeout=WAIT):
        job.start()
    return heard


class TestEnding:
    def test_it_tells_and_succeeds(self, owner: QObject, qtbot: Any) -> None:
        job = Job(lambda tell, cancelled: tell("half") or 42, owner)
        assert outcome_of(job, qtbot) == [("told", "half"), ("succeeded", 42)]

    def test_what_other_threads_tell_is_heard_in_the_gui_s(self, owner: QObject, qtbot: Any) -> None:
        def work(tell: Callable[[Any], None], cancelled: Callable[[], bool]) -> None:
            thread = threading.Thread(target=tell, args=("half",))
            thread.start()
            thread.join()

        heard_in: list[int] = []
        job = Job(work, owner)
        job.told.connect(lambda what: heard_in.append(threading.get_ident()))
        outcome_of(job, qtbot)
        assert heard_in == [threading.get_ident()]

    def test_an_expected_error_is_one_sentence(self, owner: QObject, qtbot: Any) -> None:
        def work(tell: object, cancelled: object) -> None:
            raise ImageError("the image is upside down\nand more")

        assert outcome_of(Job(work, owner), qtbot) == [("failed", "the image is upside down")]

    def test_it_is_cancelled_when_it_next_asks(self, owner: QObject, qtbot: Any) -> None:
        def work(tell: object, cancelled: Callable[[], bool]) -> None:
            while not cancelled():
                pass
            raise Cancelled("stopped")

        job = Job(work, owner)
        job.cancel()
        assert outcome_of(job, qtbot) == [("cancelled", "stopped")]


class TestWhatStays:
    def test_the_image_that_it_worked_on_is_let_go_of(self, owner: QObject, viewer: Any, qtbot: Any) -> None:
        class Image:
            """Something large."""

        image = Image()
        job = Job(lambda tell, cancelled, image=image: repr(image), owner)
        outcome_of(job, qtbot)
        found = weakref.ref(image)
        del image, job
        gc.collect()
        assert found() is None

    def test_napari_calls_it_by_its_title_when_the_window_is_closed_meanwhile(self, viewer: Any, qtbot: Any) -> None:
        begun, go_on = threading.Event(), threading.Event()
        job = Job(lambda tell, cancelled: begun.set() or go_on.wait(), title="saving cells")
        job.start()
        qtbot.waitUntil(begun.is_set, timeout=WAIT)
        window = viewer.window.__wrapped__
        qtbot.waitUntil(lambda: window._task_status_manager.get_status() == ["napari-worker: Executing saving cells"])
        with qtbot.waitSignal(job.ended, timeout=WAIT):
            go_on.set()
