"""A base model on the hub: nothing is asked unasked, its download is shown, stopped, begun again; mirrors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.hub_download import MIRROR, VARIABLE, is_address, use_mirror
from app.main_window import MainWindow
from app.pages.model import ModelPage
from app.preferences import Preferences
from app.processes import Command
from tests.app.conftest import Wait
from tests.app.model_page import chips, chosen
from tests.app.model_page import page as page
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.models.conftest import server as server  # a fixture
from tests.models.hub_server import Hub
from trainer.messages import Message
from trainer.models.header import inspect_file

REPO = "someone/tiny-model"


@pytest.fixture
def endpoint() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    yield
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before


def test_a_model_is_downloaded_from_a_mirror(
    page: ModelPage, wait: Wait, server: Hub, tiny: Path, endpoint: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos[REPO] = {"model.safetensors": tiny.read_bytes(), "README.md": b"# x"}
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    chosen(page, REPO, wait)
    assert page.download.isVisibleTo(page) and not page.facts_card.isVisibleTo(page)
    page.download.mirror.setText(server.address)
    page.download.start_button.click()
    assert page.preferences.get(MIRROR) == server.address
    assert page.context.download.state == "running"
    wait(lambda: page.context.download.state != "running")
    assert page.context.download.state == "done", page.context.download.text
    wait(lambda: "Stable Diffusion 1.x" in chips(page))
    assert not page.download.isVisibleTo(page)
    assert page.draft.get("model.path") == REPO


def test_the_hub_is_asked_for_a_size_only_by_a_press(
    page: ModelPage, wait: Wait, server: Hub, tiny: Path, endpoint: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    server.repos[REPO] = {"model.safetensors": tiny.read_bytes(), "README.md": b"# x"}
    page.preferences.set(MIRROR, server.address)
    use_mirror(page.preferences)
    chosen(page, REPO, wait)
    card = page.download
    assert "only the hub knows" in card.text.text()
    assert server.asked == []
    card.ask_button.click()
    assert page.context.download.state == "asking" and card.stop_button.isVisibleTo(page)
    wait(lambda: not page.context.download.is_busy)
    wait(lambda: "are to be downloaded" in card.text.text())
    assert "are free on that disk" in card.text.text()
    assert {method for method, *_ in server.asked} == {"GET"} and not server.sent("cdn") and not server.sent("resolve")
    assert not card.ask_button.isVisibleTo(page) and card.start_button.isVisibleTo(page)


def test_asking_can_be_stopped(page: ModelPage, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    run_slow(monkeypatch)
    chosen(page, REPO, wait)
    page.download.ask()
    wait(lambda: page.context.download._command.is_running)
    page.download.stop_button.click()
    wait(lambda: not page.context.download.is_busy)
    assert "only the hub knows" in page.download.text.text()


def test_a_download_that_fails_says_why_and_can_be_begun_again(
    page: ModelPage, wait: Wait, server: Hub, endpoint: None
) -> None:
    chosen(page, "someone/nothing", wait)
    page.preferences.set(MIRROR, server.address)
    page.download.start()
    wait(lambda: page.context.download.state != "running")
    assert page.context.download.state == "failed"
    assert page.download.text.property("role") == "problem" and len(page.download.text.text()) > 20
    assert page.download.start_button.isVisibleTo(page) and page.download.start_button.isEnabled()
    assert page.download.mirror.isVisibleTo(page), "the way out where the hub cannot be reached"


SLOW = """
import json, time
print(json.dumps({"event": "plan", "files": 1, "done": 0, "total": 4000000, "free": 9}), flush=True)
for done in range(0, 4000000, 100000):
    print(json.dumps({"event": "progress", "done": done, "total": 4000000}), flush=True)
    time.sleep(0.05)
time.sleep(60)
"""


def run_slow(monkeypatch: pytest.MonkeyPatch, program: str = SLOW) -> None:
    """Let `python -m trainer …` be a little program."""

    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", program])

    monkeypatch.setattr(Command, "start", start)


def test_a_download_shows_its_speed_and_can_be_stopped(
    page: ModelPage, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_slow(monkeypatch)
    chosen(page, REPO, wait)
    page.download.start()
    assert page.download.text.text() == f"{REPO}: asking the hub…"
    wait(lambda: "a second" in page.download.text.text() and "left" in page.download.text.text())
    assert page.download.bar.value() > 0
    page.download.stop_button.click()
    wait(lambda: page.context.download.state == "stopped")
    assert "Stopped" in page.download.text.text()


def test_a_download_stays_in_sight_whatever_is_chosen_meanwhile(
    page: ModelPage, window: MainWindow, tiny: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_slow(monkeypatch)
    chosen(page, REPO, wait)
    page.download.start()
    wait(lambda: "left" in page.download.text.text())
    chosen(page, tiny, wait)
    assert page.download.isVisibleTo(page) and page.download.text.text().startswith(REPO)
    chosen(page, "someone/other", wait)
    assert page.download.text.text().startswith(REPO) and not page.download.start_button.isVisibleTo(page)
    page.draft.set("model.path", "")
    assert page.download.isVisibleTo(page)
    window.rebuild()
    again = window.page("model")
    assert isinstance(again, ModelPage)
    again.download.stop_button.click()
    wait(lambda: page.context.download.state == "stopped")
    assert not again.download.isVisibleTo(again)


def test_a_download_is_over_when_its_process_is(
    page: ModelPage, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one that began before would be ended with the first."""
    line = '{"ok": false, "what": "No.", "todo": "Try."}'
    run_slow(monkeypatch, f"import time; print({line!r}, flush=True); time.sleep(0.5)")
    chosen(page, REPO, wait)
    download = page.context.download
    page.download.start()
    wait(lambda: download.text)
    assert download.state == "running" and not page.download.start_button.isVisibleTo(page)
    wait(lambda: not download.is_busy)
    assert (download.state, page.download.text.text()) == ("failed", "No. Try.")


@pytest.mark.parametrize("text", ["huh", "ftp://x.org", "https://", "https://a b", "http://[::1"])
def test_an_address_that_is_none_is_refused(page: ModelPage, text: str, endpoint: None) -> None:
    assert not is_address(text)
    page.download.mirror.setText(text)
    page.download._save_mirror()
    assert not page.download.mirror_problem.isHidden()
    assert page.preferences.get(MIRROR) == ""
    assert os.environ.get(VARIABLE) != text


def test_the_mirror_is_what_processes_ask(endpoint: None) -> None:
    preferences = Preferences()
    before = os.environ.get(VARIABLE)
    preferences.set(MIRROR, "https://mirror.example")
    use_mirror(preferences)
    assert os.environ[VARIABLE] == "https://mirror.example"
    preferences.set(MIRROR, "")
    use_mirror(preferences)
    assert os.environ.get(VARIABLE) == before


def test_the_facts_of_a_hub_model_are_those_that_inspect_gives(server: Hub) -> None:
    facts = inspect_file("someone/else")
    assert facts.kind == "hub" and isinstance(facts.summary, Message)
