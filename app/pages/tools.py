"""Tools for model files: one is chosen, its form filled in, and it runs beside the window, several one after the other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtWidgets import QButtonGroup, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.errors import copy_text
from app.i18n import tr, translate_message
from app.pages.base import BannerPlace, Context, Page
from app.path_editor import choose_path, model_files
from app.slices import Pieces, Task
from app.tool_form import ToolForm, job_subject, tool_words
from app.tool_jobs import Job, Jobs, command_line
from app.widgets.basics import Card, accept_paths, button, dropped_paths, label, row, set_flag
from app.widgets.flow import FlowLayout
from app.widgets.job_card import JobCard
from app.widgets.metadata_view import MetadataView
from trainer.tools.catalog import TOOLS

ICONS = {
    "convert": "arrow-right-left", "merge": "git-merge", "bake": "puzzle", "join": "combine", "extract": "scissors",
    "resize": "shrink", "metadata": "braces", "hash": "hash",
}  # fmt: skip
MAKE_MODELS = ("convert", "merge", "bake")
CHOSEN = "tool"  # preference: the tool that was used last


class ToolsPage(Page):
    """See the module. What runs and what was typed belong to the window's `Jobs`, and stay when pages are built anew."""

    def __init__(self, context: Context) -> None:
        introduction = tr("For model files of every family. Nothing is changed in place unless you say so.")
        super().__init__(context, tr("Tools"), introduction)
        self.jobs: Jobs = context.jobs
        self.setAcceptDrops(True)

    def build(self) -> Pieces:
        self.add(self._build_choice())
        self.banner = BannerPlace()
        self.add(self.banner)
        yield
        holder = QWidget()
        self._cards = QVBoxLayout(holder)
        self._cards.setContentsMargins(0, 0, 0, 0)
        self._cards.setSpacing(theme.px(theme.SPACE))
        self._cards_holder = self.add(holder)
        self.card = Card(" ")
        self.summary = label("", "muted", wrap=True)
        self.card.add(self.summary)
        self._form_place = QVBoxLayout()
        self.card.body.addLayout(self._form_place)
        self.start_button = button(tr("Run this tool"), self.start, role="primary", icon="play", tip="Ctrl+Enter")
        self.look_button = button(tr("Show what a file says…"), self._choose_file, icon="list-tree")
        self.card.body.addLayout(row(self.start_button, self.look_button, None))
        self.add(self.card)
        yield
        self.tool_form: ToolForm | None = None
        self._task: Task | None = None
        self.jobs.listed.connect(self._show_jobs)
        self.jobs.changed.connect(self._show_job)
        self.jobs.ended.connect(self._show_failure)
        self._show_jobs()
        yield
        chosen = self.preferences.get(CHOSEN, "convert")
        self.choose(chosen if chosen in TOOLS else "convert")
        assert self._task is not None
        while not self._task.is_done:
            self._task.go_on()
            yield

    def _build_choice(self) -> QWidget:
        made = QWidget()
        flow = FlowLayout(made, theme.px(theme.SPACE))
        self._group = QButtonGroup(made, exclusive=True)
        self.choices: dict[str, QPushButton] = {}
        for name, tool in TOOLS.items():
            title, summary = tool_words(tool)
            choice = button(
                title, partial(self.choose, name), role="choice", icon=ICONS.get(name, "wrench"), tip=summary
            )
            choice.setIconSize(QSize(theme.px(18), theme.px(18)))
            choice.setCheckable(True)
            self._group.addButton(choice)
            self.choices[name] = choice
            flow.addWidget(choice)
        return made

    # ---- the form ----

    def choose(self, name: str) -> None:
        """Show a tool's form, with what was typed in it before."""
        if self.tool_form is not None:
            self._remember()
            if self.tool_form.tool.name == name:
                return
            self.tool_form.hide()
            self.tool_form.deleteLater()
        self.preferences.set(CHOSEN, name)
        self.choices[name].setChecked(True)
        tool = TOOLS[name]
        title, summary = tool_words(tool)
        self.card.heading.setText(title)
        self.summary.setText(summary)
        self.look_button.setVisible(name == "metadata")
        self.tool_form = ToolForm(tool, self.preferences, self.jobs.typed.get(name, {}), lambda: self.jobs.to_come)
        self.tool_form.changed.connect(self._remember)
        self._form_place.addWidget(self.tool_form)
        self._task = self.context.slices.start(self.tool_form.build())

    def reveal(self, place: str) -> bool:
        """`tools.NAME`: show that tool's form, its first field ready to be typed in."""
        name = place.removeprefix("tools.")
        if name not in TOOLS:
            return False
        self.choose(name)
        line = next(iter(self.whole_form().lines.values()))
        QTimer.singleShot(0, line, lambda: line.editor.field().setFocus(Qt.FocusReason.ShortcutFocusReason))
        self._bring_into_view(line)
        return True

    def whole_form(self) -> ToolForm:
        """The form with all its rows, now."""
        assert self.tool_form is not None and self._task is not None
        self._task.finish()
        return self.tool_form

    def _remember(self) -> None:
        if self.tool_form is not None and self._task is not None and self._task.is_done:
            self.jobs.typed[self.tool_form.tool.name] = self.tool_form.remembered()

    def start(self) -> None:
        """Begin the job, or put it behind those that are under way; what is missing is said under its field."""
        form = self.whole_form()
        settings = form.settings()
        if settings is None:
            return
        tool = form.tool
        values = form.values()
        line = command_line(tool.name, tool.given, settings)
        job = Job(tool.title, job_subject(values), line, str(values.get("output") or ""))
        job.makes_model = tool.name in MAKE_MODELS
        self.jobs.add(job)
        form.offer_output()  # for the next one: that name is taken now
        self.verticalScrollBar().setValue(0)

    # ---- jobs ----

    def cards(self) -> list[JobCard]:
        items = [self._cards.itemAt(place) for place in range(self._cards.count())]
        return [widget for item in items if item is not None and isinstance(widget := item.widget(), JobCard)]

    def _show_jobs(self) -> None:
        """A card a job, the newest first."""
        known = {id(card.job): card for card in self.cards()}
        for key, card in known.items():
            if key not in map(id, self.jobs.jobs):
                self._cards.removeWidget(card)
                card.hide()
                card.deleteLater()
        for job in self.jobs.jobs:
            if id(job) not in known:
                self._cards.insertWidget(0, JobCard(self.jobs, job, self.look, self._use))
        self._cards_holder.setVisible(bool(self.jobs.jobs))
        self._show_failure()

    def _show_failure(self, _: object = None) -> None:
        """Say what went wrong in the newest job that is over, until there is a newer one or it is taken away."""
        job = next((job for job in reversed(self.jobs.jobs) if job.is_over), None)
        if job is None or job.state != "failed":
            self.banner.show_banner("")
            return
        text = tr("{subject}: {text}", subject=translate_message(job.title), text=job.text)
        actions = ((tr("Try again"), lambda: self.jobs.again(job)), (tr("Copy report"), lambda: copy_text(job.whole_report)))
        self.banner.show_banner(text, "problem", actions)

    def _show_job(self, job: Job) -> None:
        for card in self.cards():
            if card.job is job:
                card.refresh()

    def look(self, path: Path) -> None:
        """Show what a file says about itself."""
        MetadataView(self.window(), path).show()

    def _choose_file(self) -> None:
        form = self.whole_form()
        file = str(form.values().get("file") or "")
        if file:
            self.look(Path(file))
        else:
            choose_path(self, lambda path: self.look(Path(path)), pattern=model_files())

    def _use(self, path: Path) -> None:
        self.draft.set("model.path", str(path))
        self.context.open_page("model")

    # ---- dropping ----

    def dragEnterEvent(self, event: Any) -> None:
        if accept_paths(event):
            set_flag(self.card, "drop", True)

    def dragMoveEvent(self, event: Any) -> None:
        accept_paths(event)

    def dragLeaveEvent(self, event: Any) -> None:
        set_flag(self.card, "drop", False)

    def dropEvent(self, event: Any) -> None:
        set_flag(self.card, "drop", False)
        self.whole_form().take_files(dropped_paths(event))
        event.acceptProposedAction()
