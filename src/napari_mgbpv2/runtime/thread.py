"""One thread of this process in which engines do all of their arithmetic.

Each thread that calls torch gets a team of OpenMP threads of its own. As soon as there are more of them than
processors, GNU's OpenMP no longer waits actively for a team to finish but sleeps, which costs a network of many short
steps more than a third of its speed. So tiles are computed by one team, whichever thread asks for them; even a copy of
some ten thousand pixels elsewhere would start a second one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_inside = threading.local()


def _enter() -> None:
    _inside.is_true = True


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="mgbpv2-engine", initializer=_enter)


_thread = _new_thread()


def _renew() -> None:
    """Start over in a process that has been forked: the thread has stayed in the other one."""
    global _thread
    _thread = _new_thread()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew)


def run_on_engine_thread(work: Callable[[], Result]) -> Result:
    """Do something in the thread of the engines, and return its result or raise its error.

    The work must be arithmetic alone: if it waited for another thread that waits for this one, neither would end.
    """
    if getattr(_inside, "is_true", False):
        return work()
    return _thread.submit(work).result()
