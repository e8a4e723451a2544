"""docs/files.md: each row names a test that is there, and the tables have what the code has."""

from __future__ import annotations

import ast
import re
import typing
from functools import cache

from trainer.export_targets import PROGRAMS
from trainer.models import header
from trainer.paths import ROOT
from trainer.tools.catalog import TOOLS

PAGE = (ROOT / "docs/files.md").read_text(encoding="utf-8")
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(heading: str = "") -> list[str]:
    """The rows of the tables below a heading (of all tables for ""), without their own headings."""
    part = PAGE if not heading else PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = part.splitlines()
    ruled = {number for number, line in enumerate(lines) if re.fullmatch(r"\|[-|]+\|", line)}
    heads = {number - 1 for number in ruled}
    return [line for number, line in enumerate(lines) if line.startswith("|") and number not in ruled | heads]


@cache
def names_in(file: str) -> frozenset[str]:
    path = ROOT / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.parse("")
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_row_has_a_test_that_is_there() -> None:
    assert len(rows()) > 50
    for row in rows():
        named = REFERENCE.findall(row)
        assert named, f"no test in: {row}"
        missing = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
        assert not missing, f"{missing} in: {row}"


def test_every_kind_of_file_is_told_of() -> None:
    told = {word for row in rows("What `inspect` and the window tell apart") for word in re.findall(r"`(\w+)`", row)}
    assert told >= set(typing.get_args(header.Kind))


def test_every_program_has_its_row() -> None:
    names = {row.split("|")[1].strip() for row in rows("Export targets")}
    assert names >= {program.name for program in PROGRAMS} | {"a plain folder"}


def test_every_tool_that_writes_has_its_row() -> None:
    told = {name for row in rows("What the tools write") for name in re.findall(r"`tools (\w+)`", row)}
    reading = {"hash", "hashes"}
    assert told == set(TOOLS) - reading
