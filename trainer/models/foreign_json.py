"""JSON out of files of strangers: what would take much more memory than its bytes is refused before it is read. No torch."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_BRACKETS, MAX_COMMAS = 1 << 16, 1 << 18  # a model's header has 5,000 tensors with two brackets and six commas each
_PLAIN_BYTES = 1024 * 1024  # a shorter one cannot become large in memory, whatever is in it
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)


class TooManyEntries(ValueError):
    """It has more tables, lists or entries than any model's."""


def parse(text: str | bytes, **options: Any) -> Any:
    """The value of a JSON text; `options` are those of `json.loads`.

    Raises ValueError, for what is nested too deeply too; TooManyEntries before it takes memory.
    """
    if len(text) > _PLAIN_BYTES:
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        if _has_too_many_entries(raw):
            raise TooManyEntries("more entries than any model")
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, **options)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _has_too_many_entries(text: bytes) -> bool:
    """Whether brackets or commas outside of strings would make more objects than a model's header has."""
    if text.count(b"[") + text.count(b"{") <= MAX_BRACKETS and text.count(b",") <= MAX_COMMAS:
        return False
    brackets = commas = place = 0
    while brackets <= MAX_BRACKETS and commas <= MAX_COMMAS:
        quote = text.find(b'"', place)
        end = len(text) if quote < 0 else quote
        brackets += text.count(b"[", place, end) + text.count(b"{", place, end)
        commas += text.count(b",", place, end)
        string = _STRING.match(text, quote) if quote >= 0 else None
        if string is None:
            return brackets > MAX_BRACKETS or commas > MAX_COMMAS
        place = string.end()
    return True
