"""Captions by a tagger: which model, which thresholds, progress, cancel, and what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import errors, theme
from app.editors import ComboBox
from app.form import problem_text
from app.i18n import joined, tr, translate_message
from app.pages.base import BannerPlace, Context
from app.path_editor import PathEditor
from app.processes import Command, last_words
from app.section_form import SectionForm
from app.widgets.basics import Card, ProgressBar, button, label, row, set_role, tool_button
from app.words import time_words
from trainer.errors import BadInput


class TaggerCard(Card):
    """See the module. Everything heavy is built when it is first opened.

    Signals:
        finished(): captions may have changed.
    """

    finished = Signal()

    def __init__(self, context: Context, folders: Callable[[], list[Path]]) -> None:
        super().__init__(tr("Write captions with a tagger"))
        self.context, self._folders = context, folders
        self._process: Command | None = None
        self._has_said = False  # it has told how it ended
        self._built = False
        self.heading_row.addWidget(tool_button("x", tr("Close"), self.hide, role="muted"))

    def open(self) -> None:
        if not self._built:
            self._built = True
            self._build()

    def reopen(self) -> None:
        """Show a tagger that has been at work since before the window was built anew; else nothing."""
        running = self.context.tagger
        is_at_work = running is not None and running.is_running
        self.setVisible(is_at_work)
        if is_at_work:
            self.open()
            self._attach(running)

    def _build(self) -> None:
        from captioners.catalog import WriteSettings, cards

        self.choice = ComboBox(accessibleName=tr("Tagger"))
        for name, card in cards().items():
            self.choice.addItem(translate_message(card.title), name)
        self.choice.setVisible(self.choice.count() > 1)
        self.choice.activated.connect(lambda _: self._show_card())
        self.add(self.choice)
        self.summary = self.add(label("", "muted", wrap=True))
        self.model = PathEditor(files=False, folders=True, placeholder=tr("Drop the model's folder here"))
        self.model.field().setAccessibleName(tr("Folder of the model"))
        known = self.context.preferences.get("taggers")
        self.model.set_value(known[0] if known else "")
        self.model.edited.connect(lambda _: self._check())
        self.add(self.model)
        self.message = label("", "problem", wrap=True)
        self.add(self.message)
        self._form_place = QVBoxLayout()
        self.body.addLayout(self._form_place)
        self.settings: SectionForm | None = None
        self.writing = SectionForm(WriteSettings, "tagger.writing", self.context.preferences)
        self.add(self.writing)
        self.banner = BannerPlace()
        self.add(self.banner)
        self.add(self._build_progress())
        self.start_button = button(tr("Write captions"), self.start, role="primary", icon="captions")
        self.stop_button = button(tr("Stop"), self.stop, icon="square")
        self.stop_button.hide()
        self.body.addLayout(row(self.start_button, self.stop_button, None))
        self._show_card()

    def _build_progress(self) -> QWidget:
        self.progress = QWidget()
        column = QVBoxLayout(self.progress)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(4))
        self.bar = ProgressBar()
        self.state = label("", "small")
        self.last = label("", "muted", wrap=True)
        for widget in (self.state, self.bar, self.last):
            column.addWidget(widget)
        self.progress.hide()
        return self.progress

    def _card(self) -> Any:
        from captioners.catalog import cards

        return cards()[self.choice.currentData()]

    def _show_card(self) -> None:
        card = self._card()
        self.summary.setText(translate_message(card.summary))  # type: ignore[attr-defined]
        if self.settings is not None:
            self.settings.deleteLater()
        self.settings = SectionForm(card.settings, f"tagger.{card.name}", self.context.preferences)
        self._form_place.addWidget(self.settings)
        self._check()

    def _check(self) -> None:
        """Say at once whether the folder holds a model: names and first bytes only."""
        text, state = "", ""
        folder = str(self.model.value())
        if folder:
            try:
                self._card().check(Path(folder))
                state = "good"
            except BadInput as error:
                text, state = joined(*errors.describe(error)), "problem"
        self.model.set_state(state)
        set_role(self.message, "problem")
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.start_button.setEnabled(state == "good")

    # ---- running ----

    def start(self) -> None:
        """Run it over all folders in use."""
        from captioners.catalog import WriteSettings, arguments

        assert self.settings is not None
        for form in (self.settings, self.writing):
            _, problems = form.settings()
            if problems:
                name = form.name_of(problems[0])
                text = tr("{subject}: {text}", subject=name, text=problem_text(problems[0]))
                self.banner.show_banner(text, "problem")
                return
        settings, writing = self.settings.settings()[0], self.writing.settings()[0]
        assert isinstance(writing, WriteSettings)
        model = Path(str(self.model.value()))
        self.context.preferences.remember("taggers", str(model))
        self.banner.show_banner("")
        process = Command(self.context.draft)  # which stays when language or theme change, as this card does not
        self._attach(process)
        self.state.setText(tr("Opening the model…"))
        line = arguments(self._card().name, model, self._folders(), settings, writing)
        process.start(line, program="captioners", takes_stop_file=True)

    def _attach(self, process: Command) -> None:
        """Follow a tagger that is at work."""
        self._process = self.context.tagger = process
        self._has_said = False
        process.reported.connect(self._on_event)
        process.ended.connect(self._on_ended)
        self.bar.show_progress(0, 0)
        self.last.setText("")
        self._show_running(True)

    def stop(self) -> None:
        if self._process is not None:
            self.state.setText(tr("Stopping after this picture…"))
            self._process.stop()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def _show_running(self, running: bool) -> None:
        self.progress.setVisible(running)
        self.start_button.setVisible(not running)
        self.stop_button.setVisible(running)

    def _on_event(self, data: dict[str, Any]) -> None:
        from captioners.common.events import event_of

        event: Any = event_of(data)
        match event.kind if event is not None else "":
            case "begun":
                self.bar.show_progress(0, max(1, event.total))
            case "progress":
                self.bar.show_progress(event.done, max(1, event.total))
                left = tr("{time} left", time=time_words(event.seconds_left)) if event.seconds_left >= 0 else ""
                text = tr("{done} of {total} pictures", done=event.done, total=event.total)
                self.state.setText(" · ".join(filter(None, (text, left))))
            case "captioned":
                self.last.setText(f"{Path(event.picture).name}: {event.caption}")
            case "finished":
                self._has_said = True
                text = translate_message(event.message)
                if event.backups:
                    text += "\n" + tr("The captions as they were: {folders}", folders=", ".join(event.backups))
                self.banner.show_banner(text, "warning" if event.skipped else "good")
            case "failed" | "warning":
                self._has_said |= event.kind == "failed"
                text = joined(translate_message(event.what), translate_message(event.todo))
                self.banner.show_banner(text, "problem" if event.kind == "failed" else "warning")

    def _on_ended(self, code: int, tail: str) -> None:
        self._show_running(False)
        if self._process is not None:
            self._process.deleteLater()
        self._process = self.context.tagger = None
        if code == 130 and not self._has_said:
            self.banner.show_banner(tr("Stopped. Captions that were written stay."))
        elif code != 0 and not self._has_said:
            copy = (tr("Copy report"), lambda: errors.copy_text(tail))
            self.banner.show_banner(last_words(tail, code), "problem", (copy,))
        if code != 130:
            self.context.news.tell("images", "done" if code == 0 else "failed")
        QTimer.singleShot(0, self, self.finished.emit)
