"""Places in a run's values, such as `optimizer.learning_rate` or `images.folders[2].repeats` (counted from 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic.fields import FieldInfo

from trainer.config.fields import Info, Section, info_of, item_section

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@lru_cache(maxsize=4096)
def parts_of(place: str) -> tuple[str | int, ...]:
    """ "images.folders[2].path" -> ("images", "folders", 1, "path")."""
    return tuple(name or int(number) - 1 for name, number in _PART.findall(place))


def read(values: Any, place: str) -> Any:
    """The value at a place. Raises KeyError where there is none."""
    for part in parts_of(place):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError) as error:
            raise KeyError(place) from error
    return values


def write(values: dict[str, Any], place: str, value: Any) -> None:
    """Put a value at a place whose containers exist (a missing section is made)."""
    *containers, last = parts_of(place)
    target: Any = values
    for part in containers:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    target[last] = value


def remove(values: dict[str, Any], place: str) -> None:
    """Take out what is at a place; nothing happens where there is nothing."""
    *containers, last = parts_of(place)
    target: Any = values
    part: Any
    for part in containers:
        try:
            target = target[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(target, dict):
        target.pop(last, None)


def setting_at(place: str, sections: Mapping[str, type[Section]]) -> tuple[FieldInfo, Info] | None:
    """The schema's line for a place, None for a place that the schema does not know."""
    section, *rest = parts_of(place)
    kind = sections.get(str(section))
    field: FieldInfo | None = None
    for part in rest:
        if isinstance(part, int):
            kind = item_section(field) if field is not None else None
            continue
        if kind is None or part not in kind.model_fields:
            break
        field = kind.model_fields[part]
    return None if field is None else (field, info_of(field))
