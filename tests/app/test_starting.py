"""Start: once and not twice, told when it fails; and what the strip says meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QMessageBox

from app import draft as draft_module
from app.draft import OnDisk
from app.main_window import MainWindow
from app.slices import Slices, Task
from tests.app.conftest import Wait
from trainer.errors import BadInput, Problem
from trainer.messages import say


@pytest.fixture
def ready(window: MainWindow, wait: Wait) -> MainWindow:
    """A window whose draft may be started: the checks find nothing."""
    window.starter.runs()
    window.context.try_example()
    wait(lambda: window.draft.is_checked)
    return window


def begin(window: MainWindow, monkeypatch: pytest.MonkeyPatch, starter: Any) -> None:
    runs = window.starter.runs()
    monkeypatch.setattr(runs, "_starter", starter)


def test_pressing_start_again_and_again_starts_one_run(
    ready: MainWindow, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []
    begin(ready, monkeypatch, lambda arguments, log, environment: begun.append(log) or os.getpid())
    for _ in range(3):
        ready.starter.start()
        assert not ready.strip.start.isEnabled()
    wait(lambda: ready.starter.runs().current is not None)
    ready.starter.start()
    wait(lambda: ready.strip.is_running)
    assert len(begun) == 1 and ready.page_key == "run"


def test_a_start_waits_for_what_the_disk_says_now(
    ready: MainWindow, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(ready.starter.runs(), "start", begun.append)
    gate = threading.Event()

    def slow_look(_: Any) -> OnDisk:
        gate.wait(60)
        return OnDisk((Problem("model.path", say("It is gone."), say("Choose another.")),))

    monkeypatch.setattr(draft_module, "look_at_disk", slow_look)
    ready.starter.start()
    assert not ready.draft.is_checked
    wait(lambda: ready.draft._disk_checks.busy)
    for _ in range(20):
        QApplication.processEvents()
    assert not begun and not ready.strip.start.isEnabled()
    gate.set()
    wait(lambda: ready.draft.is_checked)
    assert not begun and ready.page_key == "review"


def test_an_answer_from_before_a_start_is_not_taken_for_the_one_after_it(
    ready: MainWindow, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(ready.starter.runs(), "start", begun.append)
    gates = [threading.Event(), threading.Event()]
    asked: list[int] = []
    missing = OnDisk((Problem("model.path", say("It is gone."), say("Choose another.")),))

    def slow_look(run: Any) -> OnDisk:
        asked.append(len(asked))
        gates[asked[-1]].wait(60)
        return OnDisk() if asked[-1] == 0 else missing

    monkeypatch.setattr(draft_module, "look_at_disk", slow_look)
    ready.draft.check_again()
    wait(lambda: asked)
    ready.starter.start()
    gates[0].set()
    wait(lambda: len(asked) == 2)
    assert not begun and not ready.draft.is_checked
    gates[1].set()
    wait(lambda: ready.draft.is_checked)
    assert not begun and ready.page_key == "review"


def test_a_start_that_fails_is_told_on_the_runs_page_and_may_be_tried_again(
    ready: MainWindow, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise BadInput(say("No worker today."), say("Come tomorrow."))

    begin(ready, monkeypatch, refuse)
    ready.starter.start()
    page = ready.page("run")
    wait(lambda: page.start_banner.banner is not None)  # type: ignore[attr-defined]
    assert page.start_banner.banner.text.text() == "No worker today. Come tomorrow."  # type: ignore[attr-defined]
    assert ready.strip.start.isEnabled()


def test_a_run_file_that_can_not_be_written_is_said_each_time(window: MainWindow, tmp_path: Path) -> None:
    for _ in range(2):
        window.run_files.save_path(tmp_path / "nowhere" / "deep" / "\0.toml" if os.name == "nt" else Path("/proc/run.toml"))
        boxes = [box for box in window.findChildren(QMessageBox) if box.isVisible()]
        assert len(boxes) == 1 and boxes[0].text()
        boxes[0].reject()


def pieces(seen: list[int], number: int) -> Iterator[None]:
    for place in range(number):
        seen.append(place)
        yield


def test_pieces_are_done_while_idle_or_at_once(window: MainWindow, wait: Wait) -> None:
    slices, seen = Slices(window), []
    done: list[str] = []
    task = slices.start(pieces(seen, 3), lambda: done.append("first"))
    task.when_done(lambda: done.append("second"))
    assert not seen
    wait(lambda: task.is_done)
    assert seen == [0, 1, 2] and done == ["first", "second"]
    task.when_done(lambda: done.append("late"))
    assert done[-1] == "late"
    other = Task(pieces(seen, 2))
    other.finish()
    assert seen == [0, 1, 2, 0, 1] and other.is_done


def test_a_piece_that_fails_ends_its_task_alone(window: MainWindow, wait: Wait) -> None:
    def failing() -> Iterator[None]:
        yield
        raise ValueError("no more")

    task = Task(failing())
    task.go_on()
    with pytest.raises(ValueError, match="no more"):
        task.go_on()
    assert task.is_done
