"""Work on the window's thread in small pieces, so that it never keeps a key or a picture waiting.

A piece ends where a generator yields. `Slices` goes on while the window has nothing else to do, a few milliseconds at a
time; whoever needs the result now finishes the task.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from PySide6.QtCore import QObject, QTimer

PIECE_S = 0.008  # begun pieces are ended, so that a slice takes this and one piece more

Pieces = Iterator[None]


class Task:
    """One piece of work that is under way."""

    def __init__(self, pieces: Pieces, done: Callable[[], object] | None = None) -> None:
        self._pieces = pieces
        self._done = [done] if done is not None else []
        self.is_done = False

    def when_done(self, action: Callable[[], object]) -> None:
        """Call `action` at the end; now, if that has been."""
        if self.is_done:
            action()
        else:
            self._done.append(action)

    def go_on(self) -> None:
        """The next piece. Whatever it raises ends the task."""
        try:
            next(self._pieces)
        except StopIteration:
            self.is_done = True
            for action in self._done:
                action()
        except BaseException:
            self.is_done = True
            raise

    def finish(self) -> None:
        """All that is left, at once."""
        while not self.is_done:
            self.go_on()


class Slices(QObject):
    """Tasks one after the other, each for as long as nothing else is to be done. Window's thread only."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._tasks: deque[Task] = deque()
        self._timer = QTimer(self, interval=0)
        self._timer.timeout.connect(self._go_on)
        self._held = False

    def start(self, pieces: Pieces, done: Callable[[], object] | None = None, *, first: bool = True) -> Task:
        """Begin a task; it goes before the others unless `first` is False."""
        task = Task(pieces, done)
        self._tasks.insert(0 if first else len(self._tasks), task)
        if not self._held:
            self._timer.start()
        return task

    def hurry(self, task: Task) -> None:
        """Do this one next."""
        if task in self._tasks:
            self._tasks.remove(task)
            self._tasks.appendleft(task)

    def clear(self) -> None:
        """Forget all tasks: what they build is going away."""
        self._tasks.clear()
        self._timer.stop()

    def hold(self, held: bool) -> None:
        """Leave everything until something more urgent is done, or go on."""
        self._held = held
        if held:
            self._timer.stop()
        elif self._tasks:
            self._timer.start()

    def _go_on(self) -> None:
        end = time.perf_counter() + PIECE_S
        while self._tasks and time.perf_counter() < end:
            task = self._tasks[0]
            try:
                if not task.is_done:  # somebody may have finished it
                    task.go_on()
            finally:
                if task.is_done and task in self._tasks:
                    self._tasks.remove(task)
        if not self._tasks:
            self._timer.stop()
