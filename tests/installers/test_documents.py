"""Documents that name what the code has: a line on every dependency, and commands that the launcher knows."""

from __future__ import annotations

import re
from pathlib import Path

from installers.stamp import requirement_lists

ROOT = Path(__file__).parents[2]


def test_every_dependency_has_a_line_and_no_line_is_left_over() -> None:
    lists = requirement_lists(ROOT / "pyproject.toml")
    wanted = {re.split(r"[ <>=!;\[~]", line, maxsplit=1)[0] for lines in lists.values() for line in lines}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == wanted


def test_both_readmes_and_ci_name_the_same_commands() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "./gui.sh demo" in text and "./gui.sh test" in text, name
    assert "exec ./gui.sh test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_between_documents_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_documents_name_are_there() -> None:
    folders = "app|captioners|docs|installers|resources|tests|trainer"
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for name in re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def test_marks_that_the_guide_names_are_on_tests() -> None:
    marks = re.findall(r"gui.sh test -m (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert marks and all(f"pytest.mark.{mark}" in sources for mark in marks), marks
