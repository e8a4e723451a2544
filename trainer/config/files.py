"""Run files: read with every problem at once, written with each setting's help as a comment above it."""

from __future__ import annotations

import os
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from trainer.config.fields import Section, info_of, item_section, plain_type, settings_of
from trainer.config.migrate import migrate
from trainer.config.problems import check_values
from trainer.config.run import FORMAT, RunFile
from trainer.errors import BadInput, BadRunFile
from trainer.files import write_text
from trainer.messages import say
from trainer.models import hub

__all__ = ["absolute", "check_values", "parse_toml", "read_run", "read_values", "to_toml", "to_values", "write_run"]

_WIDTH = 110


def read_run(path: Path) -> RunFile:
    """Read a run file; relative paths in it become absolute, from the file's folder.

    Raises:
        BadInput: if the file cannot be read or is not TOML.
        BadRunFile: with all of its problems, if any is an error.
    """
    run, problems = check_values(read_values(path))
    if run is None:
        raise BadRunFile([problem for problem in problems if problem.severity == "error"])
    return absolute(run, path.resolve().parent)


def read_values(path: Path) -> dict[str, Any]:
    """The tables of a run file in today's format, unchecked (for a draft that may hold mistakes). Raises as read_run."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = say("{path} is not a text file in UTF-8.", path=str(path))
        raise BadInput(what, say("Is it a run file? Save it as UTF-8.")) from error
    except FileNotFoundError as error:
        raise BadInput(
            say("There is no run file {path}.", path=str(path)), say("Check the name and folder.")
        ) from error
    except OSError as error:
        what = say("{path} cannot be read: {reason}.", path=str(path), reason=error.strerror or str(error))
        raise BadInput(what, say("Check that it is a file and that you may read it.")) from error
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The tables of a run file's text in today's format. Raises as read_run; `name` is for its sentences."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = say("{path} is not a run file: {reason}.", path=name, reason=str(error))
        raise BadInput(what, say("Mend that line. A backslash in a path must be written twice, or use '…'.")) from error
    return migrate(values)


def to_values(run: RunFile) -> dict[str, Any]:
    """The run as tables of plain values (None where a setting is empty)."""
    return run.model_dump()


def write_run(path: Path, run: RunFile) -> None:
    """Write the run file atomically, with comments."""
    write_text(path, to_toml(run))


def to_toml(run: RunFile) -> str:
    """The run file's text. What `read_run` reads from it equals `run`."""
    lines = ["# Athanor run file", f"format = {FORMAT}", ""]
    for key, field in RunFile.model_fields.items():
        section: Section = getattr(run, key)
        lines += [f"# ---- {field.title} ----", f"[{key}]"]
        lines += _plain_lines(section, comments=True)
        lines += _table_lines(section, key)
        lines.append("")
    return "\n".join(lines)


def _plain_lines(section: Section, comments: bool) -> Iterator[str]:
    """The settings that stand on a line of their own, with help above and `#` before what is empty."""
    for key, field, info in settings_of(type(section)):
        value = getattr(section, key)
        if item_section(field) is not None or plain_type(field) is dict:
            continue
        if comments:
            choices = f" One of: {', '.join(str(choice.value) for choice in info.choices)}." if info.choices else ""
            yield from textwrap.wrap(f"{info.help}{choices}", _WIDTH, initial_indent="# ", subsequent_indent="# ")
        if value is not None or field.default is not None:
            yield _assignment(key, "" if value is None else value)
        elif comments:
            yield f"# {key} ="


def _table_lines(section: Section, place: str) -> Iterator[str]:
    """The settings that are tables or lists of tables; TOML wants them after the plain ones."""
    for key, field, _ in settings_of(type(section)):
        value = getattr(section, key)
        if item_section(field) is not None:
            yield f"# {info_of(field).help}"
            for item in value:
                yield f"[[{place}.{key}]]"
                yield from _plain_lines(item, comments=False)
        elif plain_type(field) is dict:
            yield f"# {info_of(field).help}"
            yield f"[{place}.{key}]"
            yield from (_assignment(name, entry) for name, entry in value.items())


def _assignment(key: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        entries = ", ".join(_assignment("x", entry).removeprefix("x = ") for entry in value)
        return f"{_assignment(key, 0).removesuffix('0')}[{entries}]"
    return tomli_w.dumps({key: value}).strip()


def absolute(run: RunFile, folder: Path) -> RunFile:
    """`run` with every path made absolute from `folder`; empty ones and ids of models on the hub stay."""
    return run.model_copy(update={key: _absolute(getattr(run, key), folder, key) for key in RunFile.model_fields})


def _absolute(section: Section, folder: Path, name: str) -> Section:
    changes: Mapping[str, Any] = {}
    for key, field, info in settings_of(type(section)):
        value = getattr(section, key)
        if item_section(field) is not None:
            changes = {**changes, key: tuple(_absolute(item, folder, name) for item in value)}
        elif name in ("model", "network") and info.widget == "file" and hub.parse(value, folder) is not None:
            continue
        elif info.widget in ("file", "folder") and value:
            changes = {**changes, key: str(folder / os.path.expanduser(value))}
    return section.model_copy(update=dict(changes))
