"""Work off the window's thread: `run(owner, work, done)` calls `work()` in a pool and `done(result)` back on the window's.

`Latest` is for questions that are asked again and again while typing: only the newest answer is delivered.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import shiboken6
from PySide6.QtCore import QCoreApplication, QObject, Qt, Signal, Slot

THREADS = max(4, os.cpu_count() or 1)
SWITCH_S = 0.001  # within which a working thread lets the window go on; Python's own value is five times that


@dataclass(frozen=True)
class _Question:
    owner: QObject
    done: Callable[[Any], None]
    failed: Callable[[Exception], None] | None


class _Bridge(QObject):
    """Lives on the window's thread for as long as the process: threads hand their answers to it, and to nothing that
    could be deleted meanwhile."""

    answered = Signal(int, object, object)  # which question, result, exception or None

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, _Question] = {}
        self.numbers = itertools.count()
        self.answered.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    @Slot(int, object, object)
    def _deliver(self, number: int, result: Any, error: Exception | None) -> None:
        question = self.open.pop(number)
        if not shiboken6.isValid(question.owner):
            return
        if error is None:
            question.done(result)
        elif question.failed is not None:
            question.failed(error)
        else:
            raise error


@cache
def _bridge() -> _Bridge:
    return _Bridge()


@cache
def _pool() -> Executor:
    sys.setswitchinterval(SWITCH_S)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="window")
    app = QCoreApplication.instance()
    if app is not None:
        app.aboutToQuit.connect(lambda: pool.shutdown(wait=False, cancel_futures=True))
    return pool


def run(
    owner: QObject,
    work: Callable[[], Any],
    done: Callable[[Any], None],
    failed: Callable[[Exception], None] | None = None,
    pool: Executor | None = None,
) -> None:
    """Call `work` in a pool thread, then `done(result)` or `failed(error)` on the window's thread, which calls this.

    Without `failed` an error is raised on the window's thread, where the error hook shows it. If `owner` is deleted
    first, the answer is dropped. `work` must not touch widgets.
    """
    bridge = _bridge()
    number = next(bridge.numbers)
    bridge.open[number] = _Question(owner, done, failed)

    def job() -> None:
        try:
            result, error = work(), None
        except Exception as caught:  # noqa: BLE001  (handed to the window's thread, where it is raised or handled)
            result, error = None, caught
        bridge.answered.emit(number, result, error)

    (pool or _pool()).submit(job)


def wait_for_all(seconds: float = 10) -> None:
    """Let the window's thread take answers until none is outstanding (for tests and the window's end)."""
    end = time.monotonic() + seconds
    while _bridge().open and time.monotonic() < end:
        QCoreApplication.processEvents()
        time.sleep(0.002)


class Latest(QObject):
    """Runs one question at a time; while it runs only the newest further one is kept. Answers arrive in order."""

    def __init__(
        self, owner: QObject, done: Callable[[Any], None], failed: Callable[[Exception], None] | None = None
    ) -> None:
        """Without `failed` an error is raised on the window's thread."""
        super().__init__(owner)
        self._done, self._on_failed = done, failed
        self._busy = False
        self._next: Callable[[], Any] | None = None

    @property
    def busy(self) -> bool:
        return self._busy

    def ask(self, work: Callable[[], Any]) -> None:
        """Ask; replaces a question that waits."""
        if self._busy:
            self._next = work
            return
        self._busy = True
        run(self, work, self._answer, self._failed)

    def _answer(self, result: Any) -> None:
        self._go_on()
        self._done(result)

    def _failed(self, error: Exception) -> None:
        self._go_on()
        if self._on_failed is None:
            raise error
        self._on_failed(error)

    def _go_on(self) -> None:
        self._busy = False
        if self._next is not None:
            work, self._next = self._next, None
            self.ask(work)
