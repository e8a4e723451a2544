"""docs/tools.md and resources/tools.md: every tool and option, examples that work, tests that are there."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.test_files_document import REFERENCE, names_in
from trainer.paths import ROOT
from trainer.tools.catalog import TOOLS
from trainer.tools.commands import _parser, _settings
from trainer.tools.reference import TARGET, tools_page

PAGE = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
ROWS = {match[1]: line for line in PAGE.splitlines() if (match := re.match(r"\| `(\w+)` \| .+ \| `\w+ .+` \|", line))}


def test_the_page_of_options_is_that_of_the_descriptions() -> None:
    assert TARGET.read_text(encoding="utf-8") == tools_page(), "run python -m trainer.tools.reference"


def test_every_tool_is_told_of() -> None:
    assert set(ROWS) == set(TOOLS)
    assert all(f"- **{name}.**" in PAGE for name in TOOLS)


@pytest.mark.parametrize("name", list(TOOLS))
def test_a_row_has_an_example_that_works_and_a_test_that_is_there(name: str) -> None:
    example = ROWS[name].split("|")[3].strip().strip("`")
    chosen = _parser().parse_args(shlex.split(example))
    assert chosen.tool == name and _settings(TOOLS[name], chosen)
    ((file, test),) = REFERENCE.findall(ROWS[name])
    assert test in names_in(file)
