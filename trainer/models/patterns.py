"""Regular expressions out of other people's files, matched in bounded time. No torch."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import regex  # as Python's own, but it can be given a time to end in: a few characters can keep an engine for ever

_MAX_CHARACTERS = 500
_MAX_PATTERNS = 5000  # the largest models have some 1,500 layers
_MOST_SECONDS = 1.5  # for all names of a file; 1,500 of them and 30 patterns take a fiftieth of that
_MOST_REPEATS = 1000  # counts multiplied: a compiled pattern may hold a copy for each
_COUNT = re.compile(r"\{(?:(\d+)?,)?(\d+)?\}|\{")  # {3}, {3,5}, {3,}, {,5}; a bare brace can begin what Python has not
_NAME = re.compile(r"\w+(?:\.\w+)*")
Result = TypeVar("Result")


class NotRead(ValueError):
    """A pattern that is none, or one that takes too long."""


class Patterns:
    """Patterns in an order, each matched with the whole of a name or with all that follows one of its dots, as PEFT does
    with `re.match(rf"(.*\\.)?({pattern})$", name)`. A pattern that is a plain name means just that name.

    With `whole`, only with the whole of a name. Raises NotRead, which names the pattern.
    """

    def __init__(self, texts: Iterable[str], whole: bool = False) -> None:
        self._whole = whole
        self._names: dict[str, int] = {}
        self._others: list[tuple[int, str, regex.Pattern[str]]] = []
        self._seconds_left = _MOST_SECONDS
        for number, text in enumerate(texts):
            if len(text) > _MAX_CHARACTERS or number >= _MAX_PATTERNS:
                raise NotRead(text)
            if _NAME.fullmatch(text):
                self._names.setdefault(text, number)
            else:
                self._others.append((number, text, self._in_time(text, partial(_compiled, text, whole))))

    def first(self, name: str) -> str | None:
        """The first pattern that matches, None if none does. Raises NotRead."""
        known = [(self._names[end], end) for end in ((name,) if self._whole else _ends(name)) if end in self._names]
        number, found = min(known, default=(_MAX_PATTERNS, None))
        for earlier, text, pattern in self._others:
            if earlier > number:
                break
            if self._in_time(text, partial(pattern.match, name, timeout=self._seconds_left)):
                return text
        return found

    def _in_time(self, text: str, work: Callable[[], Result]) -> Result:
        """What `work` gives, its time counted."""
        began = time.perf_counter()
        try:
            result = work()
        except (regex.error, TimeoutError, RecursionError, MemoryError, OverflowError) as error:
            raise NotRead(text) from error
        self._seconds_left -= time.perf_counter() - began
        if self._seconds_left <= 0:
            raise NotRead(text)
        return result


def _compiled(text: str, whole: bool) -> regex.Pattern[str]:
    """Raises regex.error where the pattern alone is none: brackets must not close those around it."""
    if math.prod(_counts(text)) > _MOST_REPEATS:
        raise regex.error("too many repeats")
    regex.compile(text)
    return regex.compile(rf"({text})\Z" if whole else rf"(.*\.)?({text})$")


def _counts(text: str) -> Iterator[int]:
    """The greatest number of each repeat that has one; too many for a brace that is no such repeat."""
    for found in _COUNT.finditer(text):
        least, most = found.groups()
        yield max(1, int((most or least or "")[:9] or _MOST_REPEATS + 1))


def _ends(name: str) -> Iterator[str]:
    """The name, and all that follows each of its dots."""
    while True:
        yield name
        _, dot, name = name.partition(".")
        if not dot:
            return
