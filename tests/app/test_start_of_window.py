"""The start: what is painted first waits for nothing that can come later, and pages come in pieces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.main_window import MainWindow
from app.pages.images import ImagesPage
from app.pages.tools import ToolsPage
from app.run_folders import Summary
from app.slices import Slices
from tests.app.conftest import Wait
from trainer.ipc.runfolder import create
from trainer.paths import ROOT

LATER = (
    "app.pages.model", "app.run_folders", "app.runs", "http.client", "numpy", "PIL", "psutil",
    "pydantic.plugin._loader", "sqlite3", "ssl", "subprocess", "trainer.check", "trainer.export_targets",
    "trainer.models.header", "trainer.tools.catalog",
)  # fmt: skip


def run_python(program: str, home: Path) -> str:
    environment = os.environ | {"ATHANOR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_paint_waits_for_no_page_and_for_nothing_that_pages_bring(tmp_path: Path) -> None:
    program = f"""
import gc, sys
import app.__main__ as start
def report(app):
    print("imported:", sorted(set({LATER!r}) & set(sys.modules)), "collecting:", gc.isenabled())
    app.exit(0)
start._report_start = report
start.main(["--measure-start"])
"""
    assert "imported: [] collecting: False" in run_python(program, tmp_path)


def test_numpy_comes_with_the_pages_of_runs_only(tmp_path: Path) -> None:
    program = """
import sys
from PySide6.QtWidgets import QApplication
app = QApplication([])
from app.main_window import MainWindow, apply_look
from app.pages import PAGES
from app.preferences import Preferences
preferences = Preferences()
apply_look(preferences)
window = MainWindow(preferences)
for key, row in PAGES.items():
    if not row.needs_runs:
        window.page(key)
print("numpy:", "numpy" in sys.modules)
window.page("run")
print("then:", "numpy" in sys.modules)
window.close()
"""
    said = run_python(program, tmp_path)
    assert "numpy: False" in said and "then: True" in said


def test_importing_plainly_reads_no_source(tmp_path: Path) -> None:
    program = """
import linecache
from PySide6 import QtCore
from app.imports import import_plainly
import_plainly()
import app.words, colorsys
from PySide6.QtWidgets import QLabel
print("read:", [name for name in linecache.cache if name.endswith(("words.py", "colorsys.py"))], QLabel.__name__)
"""
    assert "read: [] QLabel" in run_python(program, tmp_path)


def test_a_page_that_nobody_has_opened_comes_in_pieces_and_only_if_it_is_still_wanted(
    window: MainWindow, wait: Wait
) -> None:
    shown: list[object] = []
    window.stack.currentChanged.connect(lambda _: shown.append(type(window.stack.currentWidget())))
    window.open_page("tools")
    window.open_page("images")
    assert window.page_key == "images" and not shown
    wait(lambda: isinstance(window.stack.currentWidget(), ImagesPage))
    assert ToolsPage not in shown
    assert window.help._advice == window.stack.currentWidget().advice()  # type: ignore[union-attr]


def test_pieces_wait_while_they_are_held(window: MainWindow, wait: Wait) -> None:
    def pieces() -> Iterator[None]:
        seen.append(1)
        yield

    slices, seen = Slices(window), []
    slices.hold(True)
    task, other = slices.start(pieces()), Slices(window).start(iter([None]))
    wait(lambda: other.is_done)
    assert not seen and not task.is_done
    slices.hold(False)
    wait(lambda: task.is_done)


def test_runs_are_brought_at_once_only_for_one_that_is_at_work(
    window: MainWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[object] = []
    monkeypatch.setattr(window.starter, "with_runs", wanted.append)
    folder = create(tmp_path, "x")
    for alive in (False, True):
        assert not wanted
        window.starter._show_at_work([Summary(folder, folder.read_status(), alive)])
    assert len(wanted) == 1
