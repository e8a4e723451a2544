"""Work off the window's thread: `run(owner, work, done)` calls `work()` in a pool and `done(result)` back on the window's.

`Latest` is for questions that are asked again and again while typing: only the newest answer is delivered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QRunnable, QThreadPool, Signal, Slot


class _Signals(QObject):
    finished = Signal(object, object)  # result, exception or None


class _Task(QRunnable):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.signals = _Signals()
        self._work = work

    def run(self) -> None:
        try:
            result, error = self._work(), None
        except Exception as caught:  # noqa: BLE001  (handed to the window's thread, where it is raised or handled)
            result, error = None, caught
        with contextlib.suppress(RuntimeError):  # the window has gone meanwhile
            self.signals.finished.emit(result, error)


class _Receiver(QObject):
    """Lives on the window's thread as a child of the owner, so that an answer to a deleted owner goes nowhere."""

    def __init__(self, owner: QObject, done: Callable[[Any], None], failed: Callable[[Exception], None] | None) -> None:
        super().__init__(owner)
        self._done, self._failed = done, failed
        self.task: _Task | None = None

    @Slot(object, object)
    def take(self, result: Any, error: Exception | None) -> None:
        self.task = None
        self.deleteLater()
        if error is None:
            self._done(result)
        elif self._failed is not None:
            self._failed(error)
        else:
            raise error


def run(
    owner: QObject,
    work: Callable[[], Any],
    done: Callable[[Any], None],
    failed: Callable[[Exception], None] | None = None,
    pool: QThreadPool | None = None,
) -> None:
    """Call `work` in a pool thread, then `done(result)` or `failed(error)` on the thread of `owner`.

    Without `failed` an error is raised on the window's thread, where the error hook shows it. If `owner` is deleted
    first, the answer is dropped. `work` must not touch widgets.
    """
    receiver = _Receiver(owner, done, failed)
    receiver.task = _Task(work)
    receiver.task.setAutoDelete(False)
    receiver.task.signals.finished.connect(receiver.take)
    (pool or QThreadPool.globalInstance()).start(receiver.task)


class Latest(QObject):
    """Runs one question at a time; while it runs only the newest further one is kept. Answers arrive in order."""

    def __init__(self, owner: QObject, done: Callable[[Any], None]) -> None:
        super().__init__(owner)
        self._done = done
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
        raise error

    def _go_on(self) -> None:
        self._busy = False
        if self._next is not None:
            work, self._next = self._next, None
            self.ask(work)
