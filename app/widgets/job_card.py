"""A job of the tools as a card: what it does and how far it is, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app import errors, theme
from app.i18n import tr, translate_message
from app.tool_jobs import Job, Jobs
from app.widgets.basics import (
    SEVERITY_ICONS,
    Card,
    ElidedLabel,
    ProgressBar,
    button,
    clear,
    label,
    row,
    set_role,
    tool_button,
)
from app.widgets.flow import FlowLayout
from app.widgets.run_files import open_in_system

_SIGNS = {"done": "good", "failed": "problem", "stopped": "warning"}


class JobCard(Card):
    """See the module."""

    def __init__(self, jobs: Jobs, job: Job, look: Callable[[Path], object], use: Callable[[Path], object]) -> None:
        """`look(path)` shows what a file says; `use(path)` makes it the base model."""
        super().__init__()
        self._jobs, self.job, self._look, self._use = jobs, job, look, use
        self.sign = QLabel()
        self.title = label("", "heading")
        self.subject = ElidedLabel(job.subject, "muted")
        self.stop = button(tr("Stop"), lambda: jobs.stop(job), icon="square")
        self.away = tool_button("x", tr("Remove from the list"), lambda: jobs.remove(job), role="muted")
        line = row(self.sign, self.title, self.subject, self.stop, self.away)
        line.setStretch(2, 1)
        self.body.addLayout(line)
        self.bar = ProgressBar()
        self.text = label("", wrap=True)
        self.text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.text.setAccessibleName(tr("Result"))
        self.notes = label("", "warning", wrap=True)
        self.buttons = QWidget()
        self._buttons = FlowLayout(self.buttons, theme.px(theme.SPACE))
        column = QVBoxLayout()
        column.setSpacing(theme.px(6))
        for widget in (self.bar, self.text, self.notes, self.buttons):
            column.addWidget(widget)
        self.body.addLayout(column)
        self._shown_state = ""
        self.refresh()

    def refresh(self) -> None:
        """Show the job as it is now."""
        job = self.job
        self.title.setText(translate_message(job.title))
        self.bar.setVisible(job.state in ("running", "stopping"))
        self.bar.show_progress(job.done, job.total)
        self.text.setText(_state_words(job))
        self.text.setVisible(bool(self.text.text()))
        if job.state != self._shown_state:
            self._shown_state = job.state
            self._show_state()

    def _show_state(self) -> None:
        job = self.job
        severity = _SIGNS.get(job.state)
        icon = SEVERITY_ICONS[severity] if severity else "timer"
        self.sign.setPixmap(theme.pixmap(icon, severity or "muted", 18))
        set_role(self.text, "" if job.state == "done" else "problem" if job.state == "failed" else "muted")
        is_table = "\n" in job.text  # hashes are one long word each
        self.text.setFont(theme.font("small", mono=True) if is_table else theme.font())
        self.notes.setText("\n".join(job.notes))
        self.notes.setVisible(bool(job.notes))
        self.stop.setVisible(job.state in ("running", "stopping"))
        self.stop.setEnabled(job.state != "stopping")
        self.away.setVisible(job.is_over or job.state == "waiting")
        self._show_actions()

    def _show_actions(self) -> None:
        clear(self._buttons)
        job = self.job
        for path in job.outputs:
            self._add(tr("Show in folder"), partial(open_in_system, path.parent), "folder-open", path)
            self._add(tr("Metadata…"), partial(self._look, path), "list-tree", path)
            if job.makes_model:
                self._add(tr("Train on it"), partial(self._use, path), "box", path)
        if job.state == "done" and not job.outputs:
            self._add(tr("Copy"), lambda: errors.copy_text(job.text), "copy")
        if job.state == "failed":
            self._add(tr("Copy report"), lambda: errors.copy_text(job.whole_report), "copy")
        self.buttons.setVisible(self._buttons.count() > 0)

    def _add(self, name: str, action: Callable[[], object], icon: str, path: Path | None = None) -> None:
        made = button(name, action, icon=icon)
        if path is not None:
            made.setAccessibleName(f"{name}: {path.name}")
            made.setToolTip(str(path))
        self._buttons.addWidget(made)


def _state_words(job: Job) -> str:
    match job.state:
        case "waiting":
            return tr("Waits until the one before is done.")
        case "stopping":
            return tr("Stopping…")
        case "running":
            percent = f" · {100 * job.done // job.total} %" if job.total else ""
            return f"{job.text or tr('Starting…')}{percent}"
        case "stopped":
            return job.text or tr("Stopped. Nothing was written.")
    return job.text
