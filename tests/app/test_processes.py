"""Commands beside the window: where the stop file stands, how an end is told, what a number is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QObject, QProcess
from PySide6.QtWidgets import QApplication

from app.processes import Command, last_words, number_in
from tests.app.conftest import Wait


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["tools", "hash", "x"], ["-m", "trainer", "tools", "hash", "x", "--stop-file", "S"]),
        (["wd14", "--json", "--", "-p"], ["-m", "trainer", "wd14", "--json", "--stop-file", "S", "--", "-p"]),
    ],
)
def test_the_stop_file_is_an_option(
    app: QApplication, monkeypatch: pytest.MonkeyPatch, given: list[str], line: list[str]
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(QProcess, "start", lambda self, program, arguments: seen.append(arguments))
    owner = QObject()
    command = Command(owner)
    command._stop_file = Path("S")
    command.start(given, takes_stop_file=True)
    assert seen == [line]


@pytest.mark.skipif(sys.platform == "win32", reason="there a process that is ended looks like one that ends")
def test_a_process_that_the_system_ends_is_told_from_one_that_fails(app: QApplication, wait: Wait) -> None:
    ends: list[tuple[int, str]] = []
    over: list[int] = []
    owner = QObject()
    for code in ("import os, signal; print('a word'); os.kill(os.getpid(), signal.SIGKILL)", "import sys; sys.exit(3)"):
        command = Command(owner)
        command.ended.connect(lambda code, tail: ends.append((code, tail)))
        command._process.start(sys.executable, ["-u", "-c", code])
        command.ended.connect(lambda *_: over.append(1))
        wait(lambda: over)
        over.clear()
    (killed, tail), (failed, _) = ends
    assert killed < 0 and "memory" in last_words(tail, killed) and last_words(tail, killed).endswith("a word")
    assert failed == 3 and "code 3" in last_words("", failed)


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), (2.7, 2), (None, 0), ("9", 0), (float("inf"), 0), (float("nan"), 0)]
)
def test_what_is_no_number_is_none(value: Any, number: int) -> None:
    assert number_in({"done": value}, "done") == number
    assert number_in({}, "done") == 0
