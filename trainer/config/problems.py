"""From values to a run, or to every problem with them: place, value and way out, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainer.config.fields import Choice, Section, item_section, settings_of
from trainer.config.rules import broken_rules
from trainer.config.run import RunFile, sections
from trainer.errors import Problem
from trainer.messages import Message, say

SectionT = TypeVar("SectionT", bound=Section)


def check_values(values: Mapping[str, Any]) -> tuple[RunFile | None, tuple[Problem, ...]]:
    """Check the tables of a run file (as tomllib gives them, without `format`).

    Returns:
        the run, or None if any problem is an error; and all problems, warnings included. Each section is checked by
        itself, and rules across values are checked with the defaults in place of what is wrong, so that one mistake
        does not hide another.
    """
    problems = list(_unknown_keys(values, sections(), ""))
    parts: dict[str, Any] = {}
    for key, kind in sections().items():
        part, found = read_section(kind, values.get(key, {}), key)
        parts[key] = part
        problems += found
    run = RunFile(**parts)
    wrong = {problem.place for problem in problems}
    problems += [problem for problem in broken_rules(run) if problem.place not in wrong]
    failed = any(problem.severity == "error" for problem in problems)
    return (None if failed else run), tuple(problems)


def read_section(kind: type[Section], values: Any, place: str) -> tuple[Section, list[Problem]]:
    """A section from its table; what is wrong in it takes its default and is reported, `place` before each key."""
    if not isinstance(values, Mapping):
        return kind(), [Problem(place, say("this should be a table of settings."), value=values)]
    problems = list(_unknown_keys(values, kind.model_fields, place))
    good = {key: value for key, value in values.items() if key in kind.model_fields}
    for key, field, info in settings_of(kind):
        if key not in good:
            continue
        item = item_section(field)
        if item is not None and isinstance(good[key], list | tuple):
            read = [read_section(item, entry, f"{place}.{key}[{n}]") for n, entry in enumerate(good[key], 1)]
            good[key] = tuple(section for section, _ in read)
            problems += [problem for _, found in read for problem in found]
        elif info.choices and (problem := _bad_choice(f"{place}.{key}", good[key], info.choices)):
            problems.append(problem)
            del good[key]
    try:
        return kind(**good), problems
    except ValidationError as error:
        details = error.errors()
        problems += [_problem(place, detail) for detail in details]
        return kind(
            **{key: value for key, value in good.items() if key not in {d["loc"][0] for d in details}}
        ), problems


def _unknown_keys(values: Mapping[str, Any], known: Iterable[str], place: str) -> Iterable[Problem]:
    for key in values:
        if key not in known:
            where = f"{place}.{key}" if place else str(key)
            what = say("there is no setting of this name.") if place else say("there is no section of this name.")
            yield Problem(where, what, _did_you_mean(key, known), values[key])


def _bad_choice(place: str, value: Any, choices: tuple[Choice, ...]) -> Problem | None:
    allowed = [choice.value for choice in choices]
    if value in allowed and type(value) is type(allowed[0]):
        return None
    what = say("{value} is not one of {allowed}.", value=_shown(value), allowed=", ".join(map(str, allowed)))
    return Problem(place, what, _did_you_mean(str(value), map(str, allowed)), value)


def _did_you_mean(word: str, known: Iterable[str]) -> Message | None:
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), names, 1, 0.6)
    return say("Did you mean {name}?", name=names[near[0]]) if near else None


def _problem(place: str, detail: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words."""
    where = place + "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    limits = detail.get("ctx", {})
    value = detail["input"]
    shown = _shown(value)
    kind = detail["type"]
    if kind in _BOUNDS:
        limit = next(limits[name] for name in ("ge", "gt", "le", "lt", "multiple_of", "max_length") if name in limits)
        return Problem(where, say(_BOUNDS[kind], value=shown, limit=limit), value=value)
    if kind.startswith(("float", "int")) and isinstance(value, str):
        return Problem(
            where,
            say("{value} is text, and a number is needed.", value=shown),
            say("Write it without quotes."),
            value,
        )
    if kind in _TYPES:
        return Problem(where, say("{value} is not {wanted}.", value=shown, wanted=_TYPES[kind]), value=value)
    return Problem(where, say("{value} cannot be used here: {reason}.", value=shown, reason=detail["msg"]), value=value)


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


_BOUNDS = {
    "greater_than_equal": "{value} is too small; the least is {limit}.",
    "greater_than": "{value} is too small; it must be more than {limit}.",
    "less_than_equal": "{value} is too large; the most is {limit}.",
    "less_than": "{value} is too large; it must be less than {limit}.",
    "multiple_of": "{value} is not a multiple of {limit}.",
    "string_too_long": "This is too long; at most {limit} characters.",
}
_TYPES = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a table of name = value",
    "tuple_type": "a list",
    "literal_error": "a known method",
    "model_type": "a table of settings",
}
