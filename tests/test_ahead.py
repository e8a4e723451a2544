"""Tests of trainer.ahead: order, how much is under way, errors, and the threads' end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from trainer.ahead import ahead


@pytest.mark.parametrize(("depth", "threads"), [(1, 1), (6, 2), (3, 8)])
def test_results_come_in_turn_and_not_too_many_are_made_ahead(depth: int, threads: int) -> None:
    drawn = 0

    def keys() -> Iterator[int]:
        nonlocal drawn
        for number in range(40):
            drawn += 1
            yield number

    most = 0
    for position, (key, made) in enumerate(ahead(lambda number: number * 2, keys(), depth, threads)):
        assert (key, made) == (position, position * 2)
        most = max(most, drawn - position - 1)
    assert position == 39 and most == depth


def test_the_next_one_is_made_while_the_caller_works() -> None:
    begun = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            begun.set()
        return number

    with closing(ahead(make, range(3))) as made:
        next(made)
        assert begun.wait(10), "made without being asked for"


def test_an_error_is_raised_in_its_turn_and_ends_the_threads() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    seen = []
    with pytest.raises(ValueError, match="three"):
        for _, made in ahead(make, range(9), 2, name="failing"):
            seen.append(made)
    assert seen == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("failing")]


def test_closing_it_ends_the_threads() -> None:
    with closing(ahead(lambda number: number, range(10**9), 4, 3, name="closing")) as made:
        next(made)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("closing")]


def test_nothing_gives_nothing() -> None:
    assert list(ahead(str, [])) == []
