"""What differs between two run files, as sentences: a run that goes on with other settings says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config.run import RunFile
from trainer.messages import Message, say

# What a run takes from its snapshot, or what changes no result.
_LEFT_OUT = ("format", "samples", "output", "speed.cache_limit_gb", "speed.decode_threads")


def plain_values(run: RunFile) -> dict[str, Any]:
    """A run file as plain values (tables of numbers, texts and lists), for a snapshot to keep."""
    return run.model_dump(mode="json")


def changed_settings(before: Mapping[str, Any], run: RunFile) -> tuple[Message, ...]:
    """A sentence for each setting that had another value in `before` (`plain_values` of then).

    Settings that one of the two does not have (of another version) are left out, and so is what changes no result.
    """
    return tuple(_sentence(place, old, new) for place, old, new in _pairs("", before, plain_values(run)) if old != new)


def _pairs(place: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in [key for key in before if key in after]:  # in the file's order
        inner = f"{place}{key}"
        if inner in _LEFT_OUT:
            continue
        old, new = before[key], after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping) and inner != "optimizer.arguments":
            yield from _pairs(f"{inner}.", old, new)
        else:
            yield inner, old, new


def _sentence(place: str, old: Any, new: Any) -> Message:
    if isinstance(old, list | Mapping) or isinstance(new, list | Mapping):
        return say("{setting} has another value than before.", setting=place)
    return say("{setting} was {before} and is now {after}.", setting=place, before=_shown(old), after=_shown(new))


def _shown(value: Any) -> str | Message:
    """A value as a run file has it."""
    if value is None or value == "":
        return say("empty")
    return str(value).lower() if isinstance(value, bool) else str(value)
