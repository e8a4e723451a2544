"""Runs Python's garbage collector when it does not hurt: on the window's thread, between events, a little at a time.

By itself it runs whenever enough objects were made, in whatever thread made them: 50 ms for all that a window consists of,
with every other thread waiting, and widgets may then be deleted outside their thread.
"""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

TICK_MS = 1000
SETTLED_TICKS = (1, 4, 10)  # the window is shown, its pages are built
FULL_TICKS = 120
YOUNG_OBJECTS, YOUNG_ROUNDS = 2000, 10  # how many new ones are worth a round; after how many rounds the survivors are
MANY_OBJECTS = 20_000  # so many new ones are the window itself, or what ten thousand files are: 5 ms to look at


class Collector(QObject):
    """At work until `end`. What is there when the window has settled is not looked at again: it stays as long as it. Nor is
    what came in great numbers: it goes when nobody needs it any more, and has no rings in it that would stay.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        gc.disable()
        self._ticks = 0
        self._timer = QTimer(self, interval=TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()

    def tick(self) -> None:
        """One second more: collect what is worth it."""
        self._ticks += 1
        young, rounds, _ = gc.get_count()
        if young > MANY_OBJECTS:
            gc.freeze()
        elif self._ticks % FULL_TICKS == 0:
            gc.collect()
            gc.freeze()
        elif young > YOUNG_OBJECTS:
            gc.collect(1 if rounds > YOUNG_ROUNDS else 0)
        if self._ticks in SETTLED_TICKS:
            gc.freeze()

    def end(self) -> None:
        """Leave it to Python again."""
        self._timer.stop()
        gc.unfreeze()
        gc.enable()


def collect_everything() -> None:
    """After all pages were thrown away: their remains too, wherever a `Collector` is at work."""
    if not gc.isenabled():
        gc.unfreeze()
        gc.collect()
        gc.freeze()
