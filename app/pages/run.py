"""The Run page: how far, how well, what it looks like, where the files are, and everything one can ask of a worker."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QFrame,
    QInputDialog,
    QMenu,
    QPlainTextEdit,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme, work
from app.errors import copy_text, describe
from app.i18n import joined, tr, translate_message
from app.pages.base import BannerPlace
from app.preferences import Preferences
from app.slices import Pieces
from app.widgets.basics import Banner, Card, ElidedLabel, Fold, Invitation, button, clear, row
from app.widgets.flow import FlowLayout
from app.widgets.run_figures import state_words

if TYPE_CHECKING:
    from app.runs import Run, Runs, Summary

DRAW_MS = 100  # the page is renewed at most ten times a second
LOG_MS = 2000
SHOWN_REMARKS = 3


class RunPage(QWidget):
    """Shows `runs.current`. Built again when language, theme or scale change; everything it shows is in the run."""

    def __init__(self, runs: Runs, preferences: Preferences) -> None:
        super().__init__()
        self.runs, self.preferences = runs, preferences
        self._is_built = False
        self._stack = QStackedWidget()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._stack)

    def build(self) -> Pieces:
        """The empty state, the cards, and then what is known of the current run."""
        self._stack.addWidget(self._build_empty())
        self._scroll = QScrollArea(widgetResizable=True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        yield
        yield from self._build_cards()
        self._stack.addWidget(self._scroll)
        yield
        runs = self.runs
        self._draw_timer = QTimer(self, singleShot=True, interval=DRAW_MS)
        self._draw_timer.timeout.connect(self.refresh)
        self._log_timer = QTimer(self, interval=LOG_MS)
        self._log_timer.timeout.connect(self._read_log)
        self._shown_state = ""
        self._num_remarks = -1
        runs.progressed.connect(self._schedule)
        runs.current_changed.connect(self._on_run_changed)
        runs.start_failed.connect(self._on_start_failed)
        runs.listed.connect(self._fill_menu)
        self._is_built = True
        self._on_run_changed()
        if runs.current is None:
            runs.show_newest()
        if runs.failure is not None:
            self._on_start_failed(runs.failure)

    @property
    def run(self) -> Run | None:
        return self.runs.current

    # ---- building ----

    def _build_empty(self) -> QWidget:
        outside = QWidget()
        column = QVBoxLayout(outside)
        column.setContentsMargins(*(theme.px(24),) * 4)
        self.start_banner = BannerPlace()
        column.addWidget(self.start_banner)
        sentence = tr("No run yet. Press Start below when your settings are ready; curves and pictures appear here.")
        column.addWidget(Invitation("flame", sentence, ()))
        column.addStretch(1)
        return outside

    def _build_cards(self) -> Pieces:
        from app.widgets.beside import Beside
        from app.widgets.loss_plot import LossPlot
        from app.widgets.run_figures import WIDTH, RunFigures
        from app.widgets.run_files import RunFiles
        from app.widgets.run_pictures import RunPictures

        inside = QWidget(objectName="Column")
        self._scroll.setWidget(inside)
        column = QVBoxLayout(inside)
        column.setContentsMargins(theme.px(24), theme.px(16), theme.px(24), theme.px(24))
        column.setSpacing(theme.px(2 * theme.SPACE))
        column.addLayout(self._build_title())
        yield
        self.banner = BannerPlace()
        self.remarks = QWidget()
        self._remark_lines = QVBoxLayout(self.remarks)
        self._remark_lines.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.banner)
        column.addWidget(self.remarks)
        self.figures = RunFigures()
        yield
        self.plot = LossPlot(self.preferences)
        plot_card = Card()
        plot_card.add(self.plot)
        plot_card.setMinimumHeight(theme.px(340))
        column.addWidget(Beside(self.figures, plot_card, above_below=WIDTH + 360, first_width=WIDTH))
        yield
        self.pictures = RunPictures()
        column.addWidget(self.pictures)
        yield
        self.files = RunFiles()
        self.files.export_asked.connect(self.export)
        column.addWidget(self.files)
        column.addWidget(self._build_log())
        column.addStretch(1)

    def _build_title(self) -> QVBoxLayout:
        self.title = ElidedLabel("", "title", Qt.TextElideMode.ElideRight)
        self.chooser = QToolButton(popupMode=QToolButton.ToolButtonPopupMode.InstantPopup)
        self.chooser.setText(f" {tr('Other runs')}")  # the blank keeps off the icon
        self.chooser.setIcon(theme.icon("history"))
        self.chooser.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.menu = QMenu(self.chooser)
        self.menu.aboutToShow.connect(self.runs.find)
        self.menu.addAction(tr("Looking for runs…")).setEnabled(False)
        self.chooser.setMenu(self.menu)
        self.pause = button(tr("Pause"), self._pause, icon="pause")
        self.save = button(tr("Save now"), lambda: self._ask("save"), icon="save")
        self.sample = button(tr("Sample now"), lambda: self._ask("sample"), icon="image")
        self.prompts = button(tr("Edit prompts…"), self.edit_prompts, icon="message-square-text")
        self.stop = button(tr("Stop and save"), self._stop, icon="square")
        self.abort = button(tr("Stop now"), self._abort, role="danger", icon="octagon-x")
        self.abort.setToolTip(tr("Ends at once, without saving. The last snapshot stays, and the run can go on from it."))
        self.resume = button(tr("Go on"), self._resume, icon="play")
        self.longer = button(tr("More epochs…"), self._ask_epochs, icon="plus")
        self._while_active = (self.pause, self.save, self.sample, self.prompts, self.stop, self.abort)
        self._when_over = (self.resume, self.longer)
        both = QVBoxLayout()
        both.setSpacing(theme.px(8))
        first = row(self.title, self.chooser)
        first.setStretch(0, 1)
        both.addLayout(first)
        flow = FlowLayout(None, theme.px(theme.SPACE))
        for made in (self.pause, self.save, self.sample, self.prompts, self.resume, self.longer, self.stop, self.abort):
            flow.addWidget(made)
        both.addLayout(flow)
        return both

    def _build_log(self) -> QWidget:
        self.log_fold = Fold(tr("Log"), "run log", self.preferences)
        self.log = QPlainTextEdit(readOnly=True)
        self.log.setAccessibleName(tr("Log"))
        self.log.setFont(theme.font("small", mono=True))
        self.log.setMaximumBlockCount(2000)
        self.log.setMinimumHeight(theme.px(220))
        self.log_fold.body.addWidget(self.log)
        self.log_fold.toggled.connect(self._on_log_toggled)
        return self.log_fold

    # ---- showing ----

    def _on_run_changed(self) -> None:
        self._shown_state, self._num_remarks = "", -1
        self.log.clear()
        self._stack.setCurrentIndex(0 if self.run is None else 1)
        if self.run is not None:
            self.run.unanswered.connect(self._on_unanswered)
            self.pictures.set_run(self.run)
            self._on_log_toggled(self.log_fold.is_open)
            self.refresh()

    def _schedule(self) -> None:
        """Draw soon; not while a long journal is still being read, which takes a second and would be drawn ten times."""
        is_read = self.run is None or self.run.is_read
        if is_read and self.isVisible() and not self._draw_timer.isActive():
            self._draw_timer.start()

    def showEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().showEvent(event)
        if self._is_built:
            self.refresh()

    def refresh(self) -> None:
        """Show the run as it stands."""
        run = self.run
        if run is None:
            return
        self.title.setText(run.name)
        self.plot.show_history(run.history)
        self.figures.show_run(run, self.plot.last_smoothed)
        self.pictures.refresh()
        self.files.show_run(run)
        self._show_buttons(run)
        self._show_remarks(run)
        if run.state != self._shown_state:
            self._shown_state = run.state
            self._show_banner(run)

    def _show_buttons(self, run: Run) -> None:
        is_active = run.is_active
        for made in self._while_active:
            made.setVisible(is_active)
            made.setEnabled(run.state in ("running", "paused"))
        self.stop.setEnabled(run.state in ("starting", "running", "paused"))
        self.abort.setEnabled(is_active and run.stopping != "abort")
        for made in self._when_over:
            made.setVisible(not is_active and run.state != "reading")
        self.resume.setVisible(self.resume.isVisibleTo(self) and run.state != "finished")
        paused = run.state == "paused"
        self.pause.setText(tr("Go on") if paused else tr("Pause"))
        self.pause.setIcon(theme.icon("play" if paused else "pause"))

    def _show_remarks(self, run: Run) -> None:
        """The last warnings, and with which other settings the run went on."""
        warnings, changes = run.history.warnings, run.history.changes
        if len(warnings) + len(changes) == self._num_remarks:
            return
        self._num_remarks = len(warnings) + len(changes)
        clear(self._remark_lines)
        texts = {joined(translate_message(one.what), translate_message(one.todo)): one.is_note for one in warnings}
        for text in list(texts)[-SHOWN_REMARKS:]:
            self._remark_lines.addWidget(Banner(text, "info" if texts[text] else "warning"))
        for change in changes[-1:]:
            self._remark_lines.addWidget(Banner(translate_message(change), "info"))
        self.remarks.setVisible(self._num_remarks > 0)

    def _show_banner(self, run: Run) -> None:
        """What a run that is over has to say, and what to do next."""
        history = run.history
        report = (tr("Copy report"), self.copy_report)
        folder = (tr("Open the folder"), lambda: self.files.open_folder.click())
        log = (tr("Show the log"), lambda: self.log_fold.set_open(True))
        if run.state == "failed" and history.failed is not None:
            text = joined(translate_message(history.failed.what), translate_message(history.failed.todo))
            actions = [(tr("Try again"), self._resume), log, report]
            self.banner.show_banner(text, "problem", actions)
        elif run.state == "died":
            self.banner.show_banner(tr("Looking at what happened…"), "problem", [])
            work.run(self, run.folder.log_tail, lambda tail: self._show_death(run, tail))
        elif run.state == "finished":
            text = tr("The LoRA is ready: {file}", file=Path(history.done.file).name if history.done else "")
            self.banner.show_banner(text, "good", [(tr("Export to a WebUI…"), self.export), folder])
        elif run.state in ("stopped", "aborted"):
            self.banner.show_banner(f"{state_words(run)}.", "info", [(tr("Go on"), self._resume), folder])
        else:
            self.banner.show_banner("")

    def _show_death(self, run: Run, tail: str) -> None:
        if run is not self.run or run.state != "died":
            return
        last = tail.strip().splitlines()[-3:]
        what = tr("The training ended without a word: it was killed, ran out of memory, or the computer was switched off.")
        todo = tr("Go on continues from the last snapshot. If it happens again, lower the batch size or the resolution.")
        lines = tr("The last lines: {lines}", lines=" ⏎ ".join(last)) if last else ""
        actions = [
            (tr("Go on"), self._resume),
            (tr("Show the log"), lambda: self.log_fold.set_open(True)),
            (tr("Copy report"), self.copy_report),
        ]
        text = "\n".join(part for part in (joined(what, todo), lines) if part)
        self.banner.show_banner(text, "problem", actions)

    # ---- commands ----

    def _ask(self, name: str) -> None:
        if self.run is not None:
            self.run.command(name)

    def _pause(self) -> None:
        if self.run is not None:
            self.run.command("resume" if self.run.history.paused else "pause")

    def _stop(self) -> None:
        if self.run is not None:
            self.run.stop()

    def _abort(self) -> None:
        if self.run is not None:
            self.run.abort()

    def _resume(self) -> None:
        if self.run is not None:
            self.runs.resume(self.run.folder.path)

    def _ask_epochs(self) -> None:
        """Lengthen a run that is over: asks for the new number of epochs."""
        run = self.run
        if run is None:
            return
        dialog = QInputDialog(self.window())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(tr("More epochs"))
        dialog.setLabelText(tr("Train until this epoch; the run goes on where it stopped:"))
        dialog.setInputMode(QInputDialog.InputMode.IntInput)
        dialog.setIntRange(max(1, run.history.epoch), 100_000)
        dialog.setIntValue(max(1, run.history.epochs or run.history.epoch) + 5)
        dialog.intValueSelected.connect(lambda epochs: self.runs.resume(run.folder.path, epochs))
        dialog.open()

    def edit_prompts(self) -> None:
        """Open the prompts of the run in a dialog; what is accepted there goes to the worker."""
        run = self.run
        if run is not None:
            read, opened = lambda: _prompts_of(run.folder.run_file), lambda found: self._open_prompts(run, found)
            work.run(self, read, opened, self._on_start_failed)

    def _open_prompts(self, run: Run, prompts: list[dict[str, Any]]) -> None:
        from app.prompts_dialog import PromptsDialog

        dialog = PromptsDialog(self.window(), run.prompts if run.prompts is not None else prompts)
        dialog.accepted_prompts.connect(run.set_prompts)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def export(self) -> None:
        """Open the export dialog, beginning with the newest file."""
        run = self.run
        if run is not None:
            work.run(self, lambda: _offer(run), self._open_export, self._on_start_failed)

    def _open_export(self, offer: Any) -> None:
        from app.export_dialog import ExportDialog

        dialog = ExportDialog(self.window(), self.preferences, offer)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _on_unanswered(self) -> None:
        text = tr("The training did not take that. It may be busy loading; try again in a moment.")
        self.banner.show_banner(text, "warning")

    def _on_start_failed(self, error: Exception) -> None:
        place = self.banner if self.run is not None else self.start_banner
        place.show_banner(joined(*describe(error)), "problem")

    # ---- the log, the report, other runs ----

    def _on_log_toggled(self, opened: bool) -> None:
        if opened:
            self._read_log()
            self._log_timer.start()
        else:
            self._log_timer.stop()

    def _read_log(self) -> None:
        run = self.run
        if run is not None and (self.isVisible() or not self.log.toPlainText()):
            work.run(self, lambda: run.folder.log_tail(500, 131_072), self._show_log)

    def _show_log(self, text: str) -> None:
        if text == self.log.toPlainText():
            return
        bar = self.log.verticalScrollBar()
        was_at_end = bar.value() >= bar.maximum() - 2
        self.log.setPlainText(text)
        if was_at_end:
            bar.setValue(bar.maximum())

    def copy_report(self) -> None:
        """Put everything that helps to find the cause on the clipboard."""
        run = self.run
        if run is not None:
            work.run(self, lambda: report_of(run), copy_text)

    def _fill_menu(self, found: list[Summary]) -> None:
        self.menu.clear()
        for summary in found[:15]:
            icon = theme.icon("flame", "accent") if summary.alive else theme.icon("circle-dot", "muted")
            action = self.menu.addAction(icon, summary.folder.path.name)
            action.triggered.connect(lambda _=False, path=summary.folder.path: self.runs.open(path))
        if not found:
            self.menu.addAction(tr("There is no other run.")).setEnabled(False)


def report_of(run: Run) -> str:
    """A report on a run that went wrong: system, run file, error, log. Any thread."""
    failed = run.history.failed
    try:
        settings = run.folder.run_file.read_text(encoding="utf-8")
    except OSError as error:
        settings = str(error)
    lines = [line for line in settings.splitlines() if line.strip() and not line.startswith("#")]
    parts = [
        f"Athanor: {run.name}, {run.state}, step {run.history.step} of {run.history.total_steps}",
        f"{platform.platform()}, Python {platform.python_version()}, {run.history.device}",
        f"{failed.what} {failed.todo or ''}\n{failed.details}" if failed else "",
        "--- run.toml ---\n" + "\n".join(lines),
        "--- log.txt ---\n" + run.folder.log_tail(100, 65_536),
    ]
    return "\n\n".join(part for part in parts if part.strip())


def _prompts_of(path: Path) -> list[dict[str, Any]]:
    from trainer.config.files import read_run

    return [prompt.model_dump() for prompt in read_run(path).samples.prompts]


def _offer(run: Run) -> Any:
    """What can be exported of a run, newest first. Any thread."""
    from app.export_dialog import Offer
    from trainer.config.files import read_run
    from trainer.worker import activation_text

    settings = read_run(run.folder.run_file)
    files = [run.folder.path / saved.file for saved in run.history.files if saved.what != "export"]
    pictures = [run.folder.path / sample.file for _, sample in sorted(run.history.samples.items())]
    there = [path for path in reversed(files) if path.is_file()]
    return Offer(there, [path for path in pictures if path.is_file()], activation_text(settings), settings.output.export_to)
