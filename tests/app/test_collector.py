"""The collector runs by a timer instead of by itself, and forgets nothing for good."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from PySide6.QtWidgets import QApplication

from app.collector import FULL_TICKS, MANY_OBJECTS, Collector, collect_everything


class Ring:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.myself = self


@pytest.fixture
def collector(app: QApplication) -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.end()


def ring() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


def test_nothing_is_collected_between_ticks_and_everything_in_the_end(collector: Collector) -> None:
    assert not gc.isenabled()
    for _ in range(20):  # settled
        collector.tick()
    lost = ring()
    [[] for _ in range(5000)]
    assert lost() is not None
    for _ in range(FULL_TICKS):
        collector.tick()
    assert lost() is None


def test_what_had_settled_is_freed_when_pages_are_thrown_away(collector: Collector) -> None:
    kept = Ring()
    lost = weakref.ref(kept)
    for _ in range(20):
        collector.tick()
    assert gc.get_freeze_count() > 1000
    del kept
    gc.collect()
    assert lost() is not None, "frozen"
    collect_everything()
    assert lost() is None


def test_many_young_objects_are_looked_at_soon(collector: Collector) -> None:
    collector.tick()
    lost = ring()
    keep = [[] for _ in range(5000)]
    collector.tick()
    assert lost() is None and len(keep) == 5000


def test_a_great_many_objects_are_not_looked_at_but_kept_out_of_the_way(collector: Collector) -> None:
    collector.tick()
    keep = [[] for _ in range(MANY_OBJECTS + 1000)]
    looked_at: list[str] = []
    gc.callbacks.append(lambda phase, _: looked_at.append(phase))
    try:
        collector.tick()
        collector.tick()
    finally:
        gc.callbacks.pop()
    assert not looked_at and gc.get_freeze_count() > len(keep)


def test_python_takes_over_again(app: QApplication) -> None:
    Collector().end()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    collect_everything()
    assert gc.get_freeze_count() == 0
