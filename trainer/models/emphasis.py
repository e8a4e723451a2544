"""The original WebUI's prompt syntax for how strongly words count: (a), ((a)), [a], (a:1.3), \\( and BREAK. No torch.

BREAK is there a piece with the weight -1, which brackets multiply as they do words, and only what is still of that weight
breaks: `(a BREAK b)` reads the word "break" with -1.1. That is done here too, so that a preview is the WebUI's picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

ROUND, SQUARE = 1.1, 1 / 1.1  # what a pair of brackets multiplies by

_MARK = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\]?)                    # a bracket or a backslash meant as such; one before else is dropped
  | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)   # the weight that ends a round bracket
  | (?P<bracket>[()\[\]])
  | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass
class Piece:
    """Words of one weight, or a BREAK."""

    text: str
    weight: float = 1.0


_BREAKS = Piece("BREAK", -1.0)


@dataclass
class _Reading:
    """Where a reading of a prompt is: the pieces so far, and at which of them each open bracket began."""

    pieces: list[Piece] = field(default_factory=list)
    round: list[int] = field(default_factory=list)
    square: list[int] = field(default_factory=list)

    def multiply(self, start: int, factor: float) -> None:
        for piece in self.pieces[start:]:
            piece.weight *= factor

    def add_text(self, text: str) -> None:
        for number, part in enumerate(_BREAK.split(text)):
            if number:
                self.pieces.append(replace(_BREAKS))
            self.pieces.append(Piece(part))

    def close(self) -> None:
        """Brackets that were never closed reach to the end."""
        for start in self.round:
            self.multiply(start, ROUND)
        for start in self.square:
            self.multiply(start, SQUARE)


def parse(prompt: str) -> list[list[tuple[str, float]]]:
    """The sections of a prompt between its BREAKs, each a list of (text, weight); runs of one weight are one text.

    Brackets without a partner are plain characters when they close, and reach to the end when they open. Weights of
    nested brackets multiply. There is always at least one section; a section without words is an empty list.
    """
    reading = _Reading()
    for mark in _MARK.finditer(prompt):
        _read(reading, mark)
    reading.close()
    sections: list[list[tuple[str, float]]] = [[]]
    for piece in _joined(reading.pieces):
        if piece == _BREAKS:
            sections.append([])
        elif piece.text:
            sections[-1].append((piece.text, piece.weight))
    return sections


def _read(reading: _Reading, mark: re.Match[str]) -> None:
    """One mark of the prompt: a bracket, a weight, an escaped character or text."""
    bracket, weight, whole = mark["bracket"], mark["weight"], mark[0]
    if mark["escaped"] is not None:
        reading.pieces.append(Piece(mark["escaped"]))
    elif bracket == "(":
        reading.round.append(len(reading.pieces))
    elif bracket == "[":
        reading.square.append(len(reading.pieces))
    elif weight is not None and reading.round:
        reading.multiply(reading.round.pop(), float(weight))
    elif bracket == ")" and reading.round:
        reading.multiply(reading.round.pop(), ROUND)
    elif bracket == "]" and reading.square:
        reading.multiply(reading.square.pop(), SQUARE)
    else:
        reading.add_text(whole)


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one weight become one piece: one word where they touch."""
    found: list[Piece] = []
    for piece in pieces:
        if found and found[-1].weight == piece.weight:
            found[-1] = Piece(found[-1].text + piece.text, piece.weight)
        else:
            found.append(piece)
    return found
