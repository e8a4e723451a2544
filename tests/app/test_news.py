"""What ends while another page is open is marked in the sidebar until it is looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.main_window import MainWindow
from app.news import News
from app.processes import Command
from app.tool_jobs import Job
from tests.app.conftest import Wait
from tests.app.test_images_page import images_page, kohya_folder
from tests.captioners.tiny_tagger import save_model
from tests.fake_worker import run_of
from trainer.ipc.detach import start_detached
from trainer.messages import say


def test_a_failure_is_not_covered_and_a_visit_clears() -> None:
    news = News()
    news.visit("images")
    for page, what in (("tools", "done"), ("tools", "failed"), ("tools", "done"), ("images", "failed"), ("model", "done")):
        news.tell(page, what)  # type: ignore[arg-type]
    assert news.marks == {"tools": "failed", "model": "done"}
    news.visit("tools")
    assert news.marks == {"model": "done"}


def command(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let every tool say that it is done, or that it failed."""
    said = '{"event": "result", "summary": "x"}' if code == 0 else '{"event": "failed", "what": "It broke."}'

    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", f"import sys; print({said!r}); sys.exit({code})"])

    monkeypatch.setattr(Command, "start", start)


@pytest.mark.parametrize(("code", "words"), [(0, "Tools, something is done"), (2, "Tools, something has failed")])
def test_a_tool_that_ends_elsewhere_marks_its_page(
    window: MainWindow, wait: Wait, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    command(monkeypatch, code)
    window.open_page("images")
    jobs = window.context.jobs
    jobs.add(Job(say("Convert"), "x", ()))
    wait(lambda: jobs.jobs[0].is_over)
    assert window.sidebar.buttons["tools"].accessibleName() == words == window.sidebar.buttons["tools"].toolTip()
    window.rebuild()
    assert window.sidebar.buttons["tools"].accessibleName() == words
    window.grab()
    window.resize(640, 700)
    window.grab()  # narrow
    window.open_page("tools")
    assert window.sidebar.buttons["tools"].accessibleName() == "Tools"
    jobs.add(Job(say("Convert"), "x", ()))
    wait(lambda: jobs.jobs[-1].is_over)
    assert window.context.news.marks == {}


def test_a_download_that_ends_elsewhere_marks_the_base_model(
    window: MainWindow, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(monkeypatch, 2)
    window.open_page("images")
    for begin in (window.context.download.ask, window.context.download.start):
        assert "model" not in window.context.news.marks, "asking for a size is no news"
        begin("someone/model")
        wait(lambda: not window.context.download.is_busy)
    assert window.context.news.marks == {"model": "failed"}
    assert "failed" in window.sidebar.buttons["model"].accessibleName()
    window.open_page("model")
    assert "failed" not in window.sidebar.buttons["model"].accessibleName()


@pytest.mark.parametrize(
    ("behaviour", "words"), [({}, "Runs, something is done"), ({"fail_at": 3}, "Runs, something has failed")]
)
def test_a_run_that_ends_elsewhere_marks_its_page(
    window: MainWindow, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, int], words: str
) -> None:
    monkeypatch.setenv("FAKE_WORKER", json.dumps({"seconds": 0.001} | behaviour))
    runs = window.starter.runs()
    monkeypatch.setattr(
        runs, "_starter", lambda arguments, *rest: start_detached(["-m", "tests.fake_worker", *arguments[2:]], *rest)
    )
    window.open_page("images")
    runs.start(run_of(folder=str(tmp_path)))
    wait(lambda: window.context.news.marks)
    button = window.sidebar.buttons["run"]
    assert button.accessibleName() == words
    window.open_page("run")
    assert button.accessibleName() == "Runs"


@pytest.mark.parametrize("what", ["done", "failed"])
def test_a_tagger_that_ends_elsewhere_marks_the_images(window: MainWindow, tmp_path: Path, wait: Wait, what: str) -> None:
    page = images_page(window)
    page.folders.add_paths([str(kohya_folder(tmp_path))])
    wait(lambda: page.folders.picture_folders())
    page.tag_button.click()
    model = save_model(tmp_path / "model")
    page.tagger.model.set_value(str(model))
    if what == "failed":
        (model / "model.onnx").write_bytes(b"broken")
    page.tagger.start()
    window.open_page("network")
    wait(lambda: not page.tagger.is_running, 120)
    assert window.context.news.marks == {"images": what}
    button = window.sidebar.buttons["images"]
    assert what in button.accessibleName()
    window.open_page("images")
    assert what not in button.accessibleName()
