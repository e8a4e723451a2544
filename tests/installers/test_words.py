"""Every sentence of the set-up has its Chinese, with the same names in it."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import installers
from installers.chinese import SENTENCES
from installers.words import can_show, say, speaks_chinese, system_language

FOLDER = Path(installers.__file__).parent


def templates() -> set[str]:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}: not a constant sentence"
                found.add(node.args[0].value)
    return found


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_sentence_has_its_chinese_and_none_is_left_over() -> None:
    assert templates() == set(SENTENCES)


@pytest.mark.parametrize("template", sorted(SENTENCES))
def test_chinese_has_the_same_names(template: str) -> None:
    assert names(SENTENCES[template]) == names(template)


def test_language_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("installers.words.can_show", lambda text, encoding: True)
    assert system_language({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}) == "zh_CN.UTF-8"
    assert speaks_chinese({"LANG": "zh_CN.UTF-8"})
    assert not speaks_chinese({"LANG": "de_DE.UTF-8"})
    assert not speaks_chinese({"LANG": "zh_CN.UTF-8", "ATHANOR_LANG": "en"})
    monkeypatch.setenv("ATHANOR_LANG", "zh")
    assert say("{free} GB free", free="7") == "剩余 7 GB"


def test_console_that_cannot_show_chinese_gets_english() -> None:
    assert can_show("中文", "gbk")
    assert not can_show("中文", "cp437")
    assert not can_show("中文", None)
