"""Beside the base model's card: pickers for parts that it lacks; what it predicts, why, and a way to find out."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.form import Row
from app.i18n import joined, tr, translate_message
from app.path_editor import PathEditor, model_files
from app.processes import Command, Event, complaint, last_words, sentence
from app.widgets.basics import Card, button, clear, label, row, set_role
from app.widgets.model_card import FactsLine, prediction_words
from app.words import part_words
from app.work import Latest
from trainer.data.memo import Memo
from trainer.messages import Message
from trainer.models.header import FAMILY_TITLES, TRAINABLE, ModelFacts, text_encoder_problem, vae_problem
from trainer.parametrisation import known_guess

PLACES = {"text_encoder": "model.text_encoder", "text_encoder_2": "model.text_encoder_2", "vae": "model.vae"}
PREDICTION, ZERO_SNR = "model.prediction", "model.zero_terminal_snr"


class PartPicker(QWidget):
    """A part that the base model lacks: its name, and the file that it is to be taken from."""

    def __init__(self, draft: Draft, part: str, family: str | None) -> None:
        super().__init__()
        self.part, self.place = part, PLACES[part]
        self._draft, self._family = draft, family
        name = tr("VAE") if part == "vae" else part_words(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(4))
        self.text = label(tr("The {part} is not in this file. Choose a file that has it:", part=name), wrap=True)
        hint = tr("Drop a file or folder here")
        self.path = PathEditor(files=True, folders=True, pattern=model_files(), placeholder=hint)
        self.path.field().setAccessibleName(name)
        self.path.edited.connect(lambda value: draft.set(self.place, value))
        self.facts = FactsLine(self._judge)
        for widget in (self.text, self.path, self.facts):
            column.addWidget(widget)
        draft.changed.connect(self._on_changed)
        self.refresh()

    def _judge(self, facts: ModelFacts) -> Message | None:
        problem = vae_problem if self.part == "vae" else text_encoder_problem
        return problem(facts, self._family)

    def _on_changed(self, place: str) -> None:
        if place in ("", self.place):
            self.refresh()

    def refresh(self) -> None:
        self.path.set_value(self._draft.get(self.place))
        self.facts.look(self._draft.path(self.place))


class MissingParts(QWidget):
    """A picker for each part that a model lacks and that can be given as another file."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self._draft = draft
        self._shown: tuple[str | None, tuple[str, ...]] = (None, ())
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(theme.px(1.5 * theme.SPACE))
        self.pickers: list[PartPicker] = []
        self.hide()

    def show_facts(self, facts: ModelFacts) -> None:
        """Offer what is missing in this model; nothing for a file that is none."""
        is_model = facts.kind == "base" and "unet" in facts.parts
        parts = tuple(part for part in PLACES if is_model and part in facts.missing)
        if (facts.family, parts) != self._shown:
            self._shown = (facts.family, parts)
            clear(self._column)
            self.pickers = [PartPicker(self._draft, part, facts.family) for part in parts]
            for picker in self.pickers:
                self._column.addWidget(picker)
        self.setVisible(bool(parts))


class PredictionCard(Card):
    """What the model predicts, why that is thought, the choice, and a test where the file does not say it."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(tr("What it predicts"))
        self._draft = draft
        self.facts: ModelFacts | None = None
        self._guess = ""  # in words, as soon as the model was tested
        self._command: Command | None = None
        self._guesses = Latest(self, self._take_guess)
        self.reason = label("", wrap=True)
        self.body.addWidget(self.reason)
        self.find_button = button(tr("Find out"), self.find_out, icon="scan-search")
        self.find_button.setToolTip(tr("Asks the model itself, which takes about half a minute."))
        self.stop_button = button(tr("Stop"), self.stop, icon="square")
        self.state = label("", "muted", wrap=True)
        self.body.addLayout(row(self.find_button, self.stop_button, None))
        self.body.addWidget(self.state)
        self.rows = {place: Row(draft, place) for place in (PREDICTION, ZERO_SNR)}
        for made in self.rows.values():
            self.body.addWidget(made)
        draft.changed.connect(self._on_changed)
        draft.checked.connect(self._show_problems)
        self._refresh()
        self.state.hide()
        self.hide()

    def show_facts(self, facts: ModelFacts) -> None:
        """Show what is known of a base model."""
        is_new = self.facts != facts
        self.facts = facts
        if is_new:
            self.stop()
            self._guess = ""
            self._say("")
            if facts.kind == "base" and facts.prediction_source in (None, "family"):
                self._guesses.ask(lambda: (facts.path, _known(facts.path)))
        self._refresh()
        self.setVisible(facts.kind == "base" and "unet" in facts.parts and facts.family in TRAINABLE)

    def _on_changed(self, place: str) -> None:
        for key, made in self.rows.items():
            if place in ("", key):
                made.refresh()
        if place in ("", PREDICTION, ZERO_SNR):
            self._refresh()

    def _show_problems(self) -> None:
        for made in self.rows.values():
            made.show_problems()

    def _refresh(self) -> None:
        if self.facts is None:
            for widget in (self.reason, self.find_button, self.stop_button):
                widget.hide()
            return
        self.reason.show()
        self.reason.setText(reason_words(self.facts, str(self._draft.get(PREDICTION)), self._guess))
        is_open = self.facts.prediction_source in (None, "family")
        running = self._command is not None
        self.find_button.setVisible(is_open and not running)
        self.stop_button.setVisible(running)

    # ---- the test ----

    def find_out(self) -> None:
        """Ask the model itself, in a process."""
        if self._command is not None or self.facts is None:
            return
        self._say(tr("Opening the model and asking it…"))
        self._command, asked = Command(self), self.facts
        self._command.reported.connect(lambda event: self._on_event(asked, event))
        self._command.ended.connect(lambda code, tail: self._on_ended(asked, code, tail))
        self._command.start(["probe", str(asked.path), "--json"])
        self._refresh()

    def stop(self) -> None:
        if self._command is not None:
            self._command.stop()

    def _on_event(self, asked: ModelFacts, event: Event) -> None:
        if asked != self.facts:
            return  # another model was chosen meanwhile
        if event.get("ok") is False:
            self._say(complaint(event), "problem")
        elif event.get("ok") is True:
            self._guess = sentence(event, "summary")
            self._say("")

    def _on_ended(self, asked: ModelFacts, code: int, tail: str) -> None:
        command, self._command = self._command, None
        if command is not None:
            command.deleteLater()
        if code == 130 or asked != self.facts:
            self._say("")
        elif code != 0 and self.state.property("role") != "problem":
            self._say(last_words(tail, code), "problem")
        self._refresh()

    def _take_guess(self, answer: tuple[Path, Message | None]) -> None:
        path, guess = answer
        if self.facts is not None and path == self.facts.path and guess is not None:
            self._guess = translate_message(guess)
            self._refresh()

    def _say(self, text: str, role: str = "muted") -> None:
        set_role(self.state, role)
        self.state.setText(text)
        self.state.setVisible(bool(text))


def _known(path: Path) -> Message | None:
    """What an earlier test has said of a model. For the pool."""
    try:
        found = known_guess(Memo(), path)
    except (OSError, ValueError):
        return None
    return found.sentence() if found is not None else None


def reason_words(facts: ModelFacts, chosen: str, guess: str = "") -> str:
    """What is trained with and why, in a sentence or two; `guess` is what a test has said."""
    says = prediction_words(facts.prediction)
    family = FAMILY_TITLES.get(facts.family or "", "")
    sources = {
        "metadata": tr("{prediction}: the file's metadata says so.", prediction=says),
        "marker": tr("{prediction}: a mark in the file says so.", prediction=says),
        "config": tr("{prediction}: its config says so.", prediction=says),
        "family": tr("{prediction}: {family} models do, unless they say otherwise.", prediction=says, family=family),
    }
    found = sources.get(
        facts.prediction_source or "", guess or tr("The file does not say it, and models of this kind differ.")
    )
    if facts.prediction_source == "family" and guess:
        found = joined(found, guess)
    if chosen != "auto":
        found = joined(tr("{prediction}: you chose it.", prediction=prediction_words(chosen) or chosen), found)
    snr = tr("It was made with zero terminal SNR.") if facts.zero_snr else ""
    return joined(found, snr)
