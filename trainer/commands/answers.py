"""What commands answer to programs: anything as JSON has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.messages import Message


def json_value(value: Any) -> Any:
    """A value as JSON takes it: messages and paths as text, dataclasses as tables, sets in order."""
    if isinstance(value, Message | Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: json_value(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(map(json_value, value))
    if isinstance(value, tuple | list):
        return [json_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | None) else str(value)
