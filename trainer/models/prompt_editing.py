"""The WebUI's prompts that change while a picture is drawn, and those of several parts. No torch.

`[from:to:when]`, `[to:when]` and `[from::when]` change at a step, or at a share of all steps where `when` has a point;
`[one|other]` changes with every step; `a AND b:0.5` is heard as texts apart, each with its weight. What is no such form,
or has a `|` outside of one, stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
_TOKEN = re.compile(r"(?:[^\\\[\]():|]|\\.)+|[\[\]():|]|\\", re.DOTALL)
_WHEN = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_CLOSES = {"]": "[", ")": "("}
_DEEPEST = 50  # brackets within brackets; what goes deeper stays as it is written


@dataclass(frozen=True)
class Timed:
    """A text and what becomes of it: each of `stages` is heard up to its step, counted from 0."""

    stages: tuple[tuple[int, str], ...]

    def at(self, step: int) -> str:
        """What is heard at a step."""
        return next((text for end, text in self.stages if step <= end), self.stages[0][1])

    def texts(self) -> Iterator[str]:
        return (text for _, text in self.stages)


def timed(prompt: str, steps: int) -> Timed:
    """A prompt without AND (a negative one knows none), drawn in so many steps."""
    try:
        whole = _parsed(prompt)
    except _NotOne:
        return Timed(((steps, prompt),))
    ends = sorted({steps, *_ends(whole, steps)})
    return Timed(tuple((end, _said(whole, end, steps)) for end in ends))


def parts(prompt: str, steps: int) -> list[tuple[Timed, float]]:
    """The parts of a prompt between its ANDs with their weights; most have one, of weight 1."""
    found = []
    for part in _AND.split(prompt):
        text, _, last = part.rpartition(":")
        weighted = ":" in part and _WEIGHT.fullmatch(last.strip()) is not None
        found.append((timed((text if weighted else part).rstrip(), steps), float(last) if weighted else 1.0))
    return found


# --- what a prompt is made of ---


class _NotOne(Exception):
    """The prompt is not written in these forms."""


@dataclass(frozen=True)
class _Change:
    """`before` up to a step, then `after`."""

    before: Sequence[_Node]
    after: Sequence[_Node]
    when: str

    def step(self, steps: int) -> int:
        wanted = float(self.when) * (steps if "." in self.when else 1)
        return int(max(0.0, min(wanted, float(steps))))


@dataclass(frozen=True)
class _Turns:
    """One after the other, in turn."""

    choices: Sequence[Sequence[_Node]]


_Node = str | _Change | _Turns


@dataclass
class _Open:
    """A bracket that is not closed yet ("" is the whole prompt): what stands in it, cut at its colons or bars."""

    bracket: str
    pieces: list[list[_Node]] = field(default_factory=lambda: [[]])
    marks: list[str] = field(default_factory=list)

    def plain(self, end: str = "") -> list[_Node]:
        """All of it as it is written."""
        nodes: list[_Node] = [self.bracket, *self.pieces[0]]
        for mark, piece in zip(self.marks, self.pieces[1:], strict=True):
            nodes += [mark, *piece]
        return [*nodes, end]


def _parsed(prompt: str) -> list[_Node]:
    """Raises _NotOne for a bar or a backslash that stands alone, as the WebUI finds no form in all of such a prompt."""
    stack = [_Open("")]
    for token in _TOKEN.findall(prompt):
        if token == "\\" or len(stack) > _DEEPEST:
            raise _NotOne
        if token in ("[", "("):
            stack.append(_Open(token))
        elif token in (":", "|"):
            stack[-1].marks.append(token)
            stack[-1].pieces.append([])
        elif token not in _CLOSES:
            stack[-1].pieces[-1].append(token)
        elif stack[-1].bracket == _CLOSES[token]:
            closed = stack.pop()
            stack[-1].pieces[-1] += _closed(closed, token)
        else:
            stack = [_joined(stack)]
            stack[-1].pieces[-1].append(token)
    whole = _joined(stack)
    if "|" in whole.marks:
        raise _NotOne
    return whole.plain()


def _joined(stack: Sequence[_Open]) -> _Open:
    """Brackets that find no partner are plain characters."""
    whole = stack[0]
    for inner in stack[1:]:
        if "|" in inner.marks:
            raise _NotOne
        whole.pieces[-1] += inner.plain()
    return whole


def _closed(group: _Open, end: str) -> list[_Node]:
    if "|" in group.marks:
        if group.bracket != "[" or ":" in group.marks:
            raise _NotOne
        return [_Turns(group.pieces)]
    when = _when(group.pieces[-1]) if group.bracket == "[" and len(group.pieces) in (2, 3) else None
    if when is None:
        return group.plain(end)
    return [_Change(group.pieces[0] if len(group.pieces) == 3 else [], group.pieces[-2], when)]


def _when(piece: Sequence[_Node]) -> str | None:
    match = _WHEN.fullmatch(piece[0]) if len(piece) == 1 and isinstance(piece[0], str) else None
    return match[1] if match else None


# --- what it says at a step ---


def _ends(nodes: Iterable[_Node], steps: int) -> Iterator[int]:
    """The steps, from 1, up to which something is said that is another thing afterwards."""
    for node in nodes:
        if isinstance(node, _Change):
            if node.step(steps) >= 1:
                yield node.step(steps)
            yield from _ends([*node.before, *node.after], steps)
        elif isinstance(node, _Turns):
            yield from range(1, steps + 1)


def _said(nodes: Iterable[_Node], step: int, steps: int) -> str:
    return "".join(_text(node, step, steps) for node in nodes)


def _text(node: _Node, step: int, steps: int) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, _Turns):
        return _said(node.choices[(step - 1) % len(node.choices)], step, steps)
    return _said(node.before if step <= node.step(steps) else node.after, step, steps)
