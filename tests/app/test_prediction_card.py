"""What a base model predicts: the reason that is given, the test that asks the model, and the choice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from app.main_window import MainWindow
from app.pages.model import ModelPage
from app.processes import Command
from app.widgets.model_parts import reason_words
from tests.app.conftest import Wait
from tests.app.model_page import chosen
from tests.app.model_page import page as page
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.models import shapes
from tests.models.shapes import Shapes
from trainer.data.memo import Memo
from trainer.guess import judge
from trainer.messages import say
from trainer.models.header import ModelFacts
from trainer.parametrisation import remembered


@pytest.mark.parametrize(
    ("prediction", "source", "words"),
    [
        ("v_prediction", "metadata", "v-prediction: the file's metadata says so."),
        ("v_prediction", "marker", "v-prediction: a mark in the file says so."),
        ("epsilon", "config", "epsilon: its config says so."),
        ("epsilon", "family", "epsilon: Stable Diffusion 1.x models do, unless they say otherwise."),
        (None, None, "The file does not say it, and models of this kind differ."),
    ],
)
def test_a_reason_is_given(window: MainWindow, prediction: str | None, source: str | None, words: str) -> None:
    facts = ModelFacts(Path("x"), "base", "sd1", say(""), prediction=prediction, prediction_source=source)
    assert reason_words(facts, "auto") == words
    assert reason_words(facts, "epsilon") == f"epsilon: you chose it. {words}"
    if source is None:
        assert reason_words(facts, "auto", "A test says v.") == "A test says v."


def sd2_file(tmp_path: Path, sd1: Shapes) -> Path:
    return shapes.write(tmp_path / "two.safetensors", shapes.sd2(sd1))


ANSWERS = {
    "guess": (
        '{"ok": true, "guess": "v_prediction", "summary": "It seems to predict v."}',
        0,
        "It seems to predict v.",
    ),
    "refused": ('{"ok": false, "what": "It cannot be tested.", "todo": "Choose another."}', 2, "It cannot be tested."),
    "broken": ("Killed", 3, "Killed"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_model_itself_is_asked(
    page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    line, code, words = ANSWERS[answer]
    seen: list[list[str]] = []

    def start(self: Command, arguments: Any, **_: Any) -> None:
        seen.append(list(arguments))
        self._process.start(sys.executable, ["-c", f"import sys; print({line!r}); sys.exit({code})"])

    monkeypatch.setattr(Command, "start", start)
    file = sd2_file(tmp_path, sd1)
    facts = chosen(page, file, wait)
    assert facts.prediction_source is None
    card = page.prediction
    assert card.find_button.isVisibleTo(page)
    card.find_button.click()
    assert card.stop_button.isVisibleTo(page) and not card.find_button.isVisibleTo(page)
    wait(lambda: card._command is None)
    assert seen == [["probe", str(file), "--json"]]
    shown = card.reason.text() if answer == "guess" else card.state.text()
    assert words in shown
    assert (card.state.property("role") == "problem") is (answer != "guess")
    page.draft.set("model.prediction", "epsilon")
    assert card.reason.text().startswith("epsilon: you chose it.")


def test_a_test_can_be_stopped_and_ends_with_its_model(
    page: ModelPage, tmp_path: Path, sd1: Shapes, sdxl: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(Command, "start", start)
    chosen(page, sd2_file(tmp_path, sd1), wait)
    for leave in (page.prediction.stop, lambda: page.draft.set("model.path", str(sdxl))):
        page.prediction.find_out()
        running = page.prediction._command
        assert running is not None
        wait(lambda running=running: running.is_running)
        leave()
        wait(lambda: page.prediction._command is None)
    assert page.prediction.state.text() == ""


def test_an_answer_about_another_model_is_not_taken(
    page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie in the pipe when the model is changed."""
    said = '{"ok": true, "guess": "v_prediction", "summary": "It seems to predict v."}'

    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", f"import time; print({said!r}, flush=True); time.sleep(60)"])

    monkeypatch.setattr(Command, "start", start)
    chosen(page, sd2_file(tmp_path, sd1), wait)
    page.prediction.find_out()
    command = page.prediction._command
    assert command is not None
    heard: list[Any] = []
    command.blockSignals(True)
    command._process.readyReadStandardOutput.connect(lambda: heard.append(1))
    wait(lambda: heard)
    other = shapes.write(tmp_path / "other.safetensors", shapes.sd2(sd1))
    page.draft.set("model.path", str(other))
    wait(lambda: page.prediction.facts is not None and page.prediction.facts.path == other)
    command.blockSignals(False)
    command.reported.emit({"ok": True, "summary": "It seems to predict v."})
    wait(lambda: page.prediction._command is None)
    assert "seems" not in page.prediction.reason.text()


def test_without_a_model_there_is_nothing_to_find_out(page: ModelPage) -> None:
    assert page.reveal("model.prediction")
    assert page.prediction.isVisibleTo(page)
    assert not page.prediction.find_button.isVisibleTo(page) and not page.prediction.reason.isVisibleTo(page)


def test_both_settings_are_on_the_page(page: ModelPage, tiny: Path, wait: Wait) -> None:
    chosen(page, tiny, wait)
    assert page.reveal("model.prediction") and page.reveal("model.zero_terminal_snr") and page.reveal("model.vae")
    box = page.prediction.rows["model.prediction"].editor.field()
    QTest.keyClick(box, Qt.Key.Key_End)
    assert page.draft.get("model.prediction") == "v_prediction"
    page.draft.undo()
    assert page.draft.get("model.prediction") == "auto"


@pytest.mark.parametrize("is_sd2", [True, False])
def test_what_a_test_said_before_is_shown_again(
    page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait, is_sd2: bool
) -> None:
    """A run goes by it, also where the file is silent and its family mostly predicts the other."""
    file = sd2_file(tmp_path, sd1) if is_sd2 else shapes.write(tmp_path / "one.safetensors", sd1)
    os.utime(file, (1.7e9, 1.7e9))  # old enough to be remembered
    remembered(Memo(), file, lambda: judge(0.0, 0.9))
    assert chosen(page, file, wait).prediction_source == (None if is_sd2 else "family")
    wait(lambda: "it is a model of v-prediction" in page.prediction.reason.text())
