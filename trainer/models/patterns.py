"""Regular expressions out of other people's files, matched in a time that nobody can make long. No torch.

Python's own engine can need for ever for a few characters. Here a pattern becomes states, and all that hold are followed at
once (Thompson 1968). What looks around, refers back or never gives back is not read; what a single character may be (a
class, an escape, a dot) is asked of Python's engine, so that the rest means what it means there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_MAX_CHARACTERS, _MAX_DEPTH, _MAX_STATES = 500, 20, 500
_MAX_WORK = 2_500_000  # for one file, about 2 s; a pattern for each layer of SDXL takes half of it
_TOKEN = re.compile(
    r"""
    (?P<many>(?:[*+?]|\{(?:\d{1,3}(?:,\d{0,3})?|,\d{1,3})\})\??)  # lazy or not: the whole name must match
  | (?P<open>\((?:\?:|(?!\?)))
  | (?P<close>\))
  | (?P<bar>\|)
  | (?P<begin>\^)
  | (?P<end>\$)
  | (?P<one>\\[dDwWsS]|\\[^a-zA-Z0-9]|\[\^?(?:\\[dDwWsS]|\\[^a-zA-Z0-9]|[\w./:]|-(?!-))+\]|[^\\()\[\]|*+?{}^$])
    """,
    re.VERBOSE,
)


class NotRead(ValueError):
    """A pattern that is none, or of a kind that is not matched here."""


@dataclass(frozen=True)
class _Node:
    """A piece of a pattern: "one" character, its "begin" or "end", its `parts` in a "row", "either" of them, or the only
    one of them "many" times, from `low` to `high` (None: without end).
    """

    kind: str
    parts: tuple[_Node, ...] = ()
    one: re.Pattern[str] | None = None
    low: int = 0
    high: int | None = None


@dataclass
class _State:
    """A place in a pattern: what must be there ("one", "begin", "end", "goal") or a "fork", and the states after it."""

    kind: str
    after: list[int] = field(default_factory=list)
    one: re.Pattern[str] | None = None


class Patterns:
    r"""Patterns in an order, each matched with the whole of a name or with all that follows one of its dots, as PEFT does
    with `re.match(rf"(.*\.)?({pattern})$", name)`. Raises NotRead, which names the pattern.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._work = 0
        self._all = [(text, self._made(text)) for text in texts]

    def first(self, name: str) -> str | None:
        """The first pattern that matches. Raises NotRead once all names together took too long."""
        for text, pattern in self._all:
            before = pattern.work
            matches = pattern.matches(name)
            self._count(pattern.work - before, text)
            if matches:
                return text
        return None

    def _made(self, text: str) -> _Pattern:
        self._count(200 + 10 * len(text), text)
        pattern = _Pattern(text)
        self._count(pattern.work, text)
        return pattern

    def _count(self, work: int, text: str) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise NotRead(text)


class _Pattern:
    """One pattern, and the `work` that it has cost."""

    def __init__(self, text: str) -> None:
        self.work = 0
        self._states: list[_State] = []
        self._pieces = 0
        try:
            tokens = list(_tokens(text))
            self._plain = None
            if {kind for kind, _ in tokens} <= {"one"}:  # such are long lists of layers; nothing in them can be slow
                self._plain = re.compile(rf"(?:.*\.)?{text}", re.DOTALL)
                return
            self._add(_read(iter(tokens)))
        except (ValueError, re.error) as error:
            raise NotRead(text) from error
        self._states.append(_State("goal"))
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self.work = 10 * len(self._states)
        self._begin, self._inside = self._reached([0], begin=True), self._reached([0])

    def matches(self, name: str) -> bool:
        self.work += 2 if self._plain is not None else len(name)
        if self._plain is not None:
            return self._plain.fullmatch(name) is not None
        here = self._begin
        for character in name:
            then = self._known.get((here, character))
            if then is None:
                then = self._known[here, character] = self._step(here, character)
            here = then
        goal = len(self._states) - 1
        return goal in self._reached(here, begin=not name, end=True)

    def _step(self, here: Iterable[int], character: str) -> frozenset[int]:
        after = [
            then
            for number in here
            for then in self._states[number].after
            if (one := self._states[number].one) is not None and one.match(character)
        ]
        return self._reached(after) | (self._inside if character == "." else frozenset())

    def _reached(self, numbers: Iterable[int], *, begin: bool = False, end: bool = False) -> frozenset[int]:
        """The states where something must be, from these on, at the begin or the end of a name."""
        passed = {"fork"} | ({"begin"} if begin else set()) | ({"end"} if end else set())
        found: set[int] = set()
        ahead = list(numbers)
        while ahead:
            number = ahead.pop()
            if number not in found:
                found.add(number)
                if self._states[number].kind in passed:
                    ahead += self._states[number].after
        self.work += len(found)
        return frozenset(number for number in found if self._states[number].kind not in passed)

    def _add(self, node: _Node) -> None:
        """The states of a piece; what comes after it is the next state that is made."""
        self._pieces += 1
        if self._pieces > _MAX_STATES:
            raise NotRead
        if node.kind == "row":
            for part in node.parts:
                self._add(part)
        elif node.kind == "either":
            self._add_either(node.parts)
        elif node.kind == "many":
            self._add_many(node.parts[0], node.low, node.high)
        else:
            self._states.append(_State(node.kind, [len(self._states) + 1], node.one))

    def _fork(self, *after: int) -> _State:
        state = _State("fork", list(after))
        self._states.append(state)
        return state

    def _add_either(self, parts: Iterable[_Node]) -> None:
        fork, ends = self._fork(), []
        for part in parts:
            fork.after.append(len(self._states))
            self._add(part)
            ends.append(self._fork())
        for end in ends:
            end.after.append(len(self._states))

    def _add_many(self, part: _Node, low: int, high: int | None) -> None:
        for _ in range(low):
            self._add(part)
        forks = []
        for _ in range(1 if high is None else high - low):
            start = len(self._states)
            forks.append(self._fork(start + 1))
            self._add(part)
            if high is None:
                self._fork(start)
        for fork in forks:
            fork.after.append(len(self._states))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    if len(text) > _MAX_CHARACTERS:
        raise NotRead
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise NotRead
        yield match.lastgroup, match[0]
        place = match.end()


def _read(tokens: Iterator[tuple[str, str]], depth: int = 0) -> _Node:
    """The pieces up to the end, or up to the bracket that closes the `depth`th."""
    if depth > _MAX_DEPTH:
        raise NotRead
    rows: list[list[_Node]] = [[]]
    for kind, text in tokens:
        row = rows[-1]
        if kind == "close" and depth:
            break
        if kind == "bar":
            rows.append([])
        elif kind == "many" and row and row[-1].kind in ("one", "either"):
            row[-1] = _many(row[-1], text.removesuffix("?") or text)
        elif kind == "open":
            row.append(_read(tokens, depth + 1))
        elif kind == "one":
            row.append(_Node("one", one=re.compile(text)))
        elif kind in ("begin", "end"):
            row.append(_Node(kind))
        else:
            raise NotRead
    else:
        if depth:
            raise NotRead
    return _Node("either", tuple(_Node("row", tuple(row)) for row in rows))


def _many(node: _Node, text: str) -> _Node:
    low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(text) or _bounds(text)
    if high is not None and high < low:
        raise NotRead
    return _Node("many", (node,), low=low, high=high)


def _bounds(text: str) -> tuple[int, int | None]:
    """Of {3}, {3,}, {,3} or {3,5}."""
    low, comma, high = text.strip("{}").partition(",")
    return int(low or 0), (int(high) if high else None) if comma else int(low)
