"""The vocabulary of settings: `setting(...)` makes one line of the schema that form, file, manual and check all read.

A section of the run file is a frozen pydantic model derived from `Section`; each of its fields is one `setting`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Level = Literal["basic", "advanced"]
Widget = Literal["", "file", "folder", "rate", "text", "seed", "size", "arguments", "list", "device", "colour"]


@dataclass(frozen=True)
class Choice:
    """One value of a setting with a fixed list: as the file has it, as people read it, and what it means."""

    value: str | int
    label: str
    help: str = ""


@dataclass(frozen=True)
class Info:
    """What the form, the file comment and the manual know of a setting beside its type and bounds."""

    label: str
    help: str
    level: Level = "basic"
    widget: Widget = ""
    unit: str = ""
    costs: str = ""
    choices: tuple[Choice, ...] = ()
    step: float | None = None
    kohya: tuple[str, ...] = ()


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    level: Level = "basic",
    widget: Widget = "",
    unit: str = "",
    costs: str = "",
    choices: Sequence[Choice] = (),
    step: float | None = None,
    kohya: Sequence[str] = (),
    **bounds: Any,
) -> Any:
    """Declare a setting.

    Args:
        default: its value in a new run file (a setting without a sensible one defaults to "" or ()).
        label: a few words for the form.
        help: one or two sentences: what it does, what more and less of it does, the usual value.
        level: "basic" settings are seen at once, "advanced" ones under "More settings".
        widget: how it is edited, where the type does not say enough.
        unit: of the number, for people.
        costs: what it costs or saves in memory and time, in a sentence.
        choices: the values allowed, if there is a fixed list.
        step: of a spin box.
        kohya: its names in kohya_ss / sd-scripts, for the search box.
        **bounds: pydantic's ge, gt, le, lt, multiple_of, max_length.
    """
    info = Info(label, help, level, widget, unit, costs, tuple(choices), step, tuple(kohya))
    return Field(default, title=label, description=help, json_schema_extra=typing.cast(Any, {"info": info}), **bounds)


def info_of(field: FieldInfo) -> Info:
    """The `Info` of a field made by `setting`; raises AssertionError for one that was not."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict) and isinstance(extra.get("info"), Info), "every field is made by setting(...)"
    return typing.cast(Info, extra["info"])


class Section(BaseModel):
    """A table of the run file: frozen, and strict about types and keys (a rate given as text is a mistake to show)."""

    # Deferred: a section's checks are made when it is first filled in, which the window does in its pool.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, values: Any) -> Any:
        """TOML has lists where the frozen schema holds tuples, and "" where it holds None; nothing else is converted."""
        if not isinstance(values, Mapping):
            return values
        empty = {key for key, field in cls.model_fields.items() if values.get(key) == "" and may_be_empty(field)}
        return {
            key: None if key in empty else tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }


def settings_of(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, Info]]:
    """Each setting of a section in order: its key, pydantic's field, and its `Info`."""
    for key, field in section.model_fields.items():
        yield key, field, info_of(field)


def may_be_empty(field: FieldInfo) -> bool:
    """Whether a setting may hold None, which the file writes as "" (or leaves out where None is the default)."""
    return type(None) in typing.get_args(field.annotation)


def plain_type(field: FieldInfo) -> type:
    """The type of a setting without `| None`: int, float, bool, str, tuple, dict or a Section."""
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return typing.cast(type, typing.get_origin(annotation) or annotation)


def item_section(field: FieldInfo) -> type[Section] | None:
    """The Section that a list setting (`tuple[SomeSection, ...]`) holds, or None for any other setting."""
    if typing.get_origin(field.annotation) is tuple:
        kind = typing.get_args(field.annotation)[0]
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """The numeric bounds of a setting: any of ge, gt, le, lt, multiple_of."""
    found: dict[str, float] = {}
    for constraint in field.metadata:
        for name in ("ge", "gt", "le", "lt", "multiple_of"):
            value = getattr(constraint, name, None)
            if value is not None:
                found[name] = value
    return found
