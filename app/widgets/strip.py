"""The strip at the bottom, always there: the figures of the run to come and Start; while one runs, its progress and Stop."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.draft import Draft
from app.i18n import tr
from app.widgets.basics import ElidedLabel, ProgressBar, button, label, row
from app.words import count_words, size_words, time_words

HEIGHT, EDGE, LEAST = 60, 16, 360


class Figure(QWidget):
    """An icon, a number and its name in small; hidden where the number is not known, or has no place."""

    def __init__(self, icon: str, name: str) -> None:
        super().__init__()
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, theme.px(12), 0)
        line.setSpacing(theme.px(6))
        sign = QLabel()
        sign.setPixmap(theme.pixmap(icon, "muted", 16))
        line.addWidget(sign)
        column = QVBoxLayout()
        column.setSpacing(0)
        self.value = label("", "heading")
        self.value.setFont(theme.font(bold=True))
        self.name = label(name, "small")
        column.addWidget(self.value)
        column.addWidget(self.name)
        line.addLayout(column)
        self.hide()

    def show_value(self, text: str, tip: str = "") -> None:
        self.value.setText(text)
        self.setToolTip(tip)
        self.setAccessibleName(f"{self.name.text()}: {text}")

    @property
    def is_known(self) -> bool:
        return bool(self.value.text())


class Strip(QFrame):
    """See the module.

    Signals:
        start_pressed(), stop_pressed(), problems_pressed(), run_pressed()
    """

    start_pressed = Signal()
    stop_pressed = Signal()
    problems_pressed = Signal()
    run_pressed = Signal()

    def __init__(self, draft: Draft) -> None:
        super().__init__(objectName="Strip")
        self.draft = draft
        self._stack = QStackedWidget()
        outer = QHBoxLayout(self)
        outer.setContentsMargins(theme.px(EDGE), theme.px(8), theme.px(EDGE), theme.px(8))
        outer.addWidget(self._stack)
        self._stack.addWidget(self._build_before())
        self._stack.addWidget(self._build_running())
        self.setFixedHeight(theme.px(HEIGHT))
        draft.checked.connect(self.refresh)
        draft.edited.connect(self.refresh)
        self.refresh()

    # ---- before a start ----

    def _build_before(self) -> QWidget:
        self.steps = Figure("footprints", tr("steps"))
        self.file_size = Figure("package", tr("a file"))
        self.free = Figure("hard-drive", tr("free disk"))
        self.waiting = label("", "muted", wrap=True)
        self.problems = button("", self.problems_pressed.emit, role="flat")
        self.start = _primary(tr("Start"), "play", self.start_pressed.emit)
        self.start.setToolTip(tr("Start training (Ctrl+Enter)"))
        self.start.setAccessibleName(tr("Start"))
        made = QWidget()
        line = row(self.steps, self.file_size, self.free, self.waiting, self.problems, self.start)
        line.setStretchFactor(self.waiting, 1)
        made.setLayout(line)
        self._before = line
        return made

    def refresh(self) -> None:
        """Show what is known of the draft now."""
        plan, facts = self.draft.disk.plan, self.draft.disk.facts
        steps = count_words(plan.total_steps) if plan else ""
        tip = tr("{epochs} epochs of {steps} steps", epochs=plan.num_epochs, steps=plan.steps_per_epoch) if plan else ""
        self.steps.show_value(steps, tip)
        size = facts.file_bytes if facts else None
        self.file_size.show_value(f"≈ {size_words(size)}" if size else "", _files_tip(facts))
        free = facts.free_bytes if facts else None
        self.free.show_value(size_words(free) if free else "", tr("On the disk of the output folder"))
        nothing = not (plan or size or free) and bool(self.draft.errors)
        self.waiting.setText(tr("Figures appear here as soon as they are known.") if nothing else "")
        self._show_problems()
        self._make_room()

    def _make_room(self) -> None:
        """Show the figures that are known and have a place beside the buttons, the first ones first."""
        figures = [figure for figure in (self.steps, self.file_size, self.free) if figure.is_known]
        for figure in (self.steps, self.file_size, self.free):
            figure.setVisible(figure in figures)
        room = self.width() - 2 * (theme.px(EDGE) + self.frameWidth())
        while figures and self._before.minimumSize().width() > room:
            figures.pop().hide()

    def minimumSizeHint(self) -> QSize:
        """Without the figures: a window need not be wider for them."""
        return QSize(theme.px(LEAST), theme.px(HEIGHT))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._make_room()

    def _show_problems(self) -> None:
        missing = [problem for problem in self.draft.errors if self.draft.is_missing(problem.place)]
        errors = len(self.draft.errors) - len(missing)
        warnings = len(self.draft.problems) - len(self.draft.errors)
        if errors:
            text = tr("1 problem") if errors == 1 else tr("{count} problems", count=errors)
            icon, role = "circle-x", "problem"
        elif missing:
            text = tr("1 thing to choose") if len(missing) == 1 else tr("{count} things to choose", count=len(missing))
            icon, role = "circle-dot", "accent"
        else:
            text = tr("1 warning") if warnings == 1 else tr("{count} warnings", count=warnings)
            icon, role = "triangle-alert", "warning"
        shown = bool(errors or missing or warnings)
        self.problems.setVisible(shown)
        self.problems.setText(f" {text}")
        self.problems.setAccessibleName(text)
        self.problems.setToolTip(tr("Jump to the first"))
        self.problems.setIcon(theme.icon(icon, role))
        self.problems.setIconSize(QSize(theme.px(16), theme.px(16)))

    # ---- while a run goes on ----

    def _build_running(self) -> QWidget:
        self.bar = ProgressBar()
        self.state = ElidedLabel("", "heading", Qt.TextElideMode.ElideRight)
        self.details = ElidedLabel("", "small", Qt.TextElideMode.ElideRight)
        for made in (self.state, self.details):
            made.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        self.show_run = button(tr("Show the run"), self.run_pressed.emit)
        self.stop = button(tr("Stop and save"), self.stop_pressed.emit, icon="square")
        texts = QVBoxLayout()
        texts.setSpacing(theme.px(4))
        texts.addLayout(row(self.state, None, self.details))
        texts.addWidget(self.bar)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(theme.px(12))
        line.addLayout(texts, 1)
        line.addWidget(self.show_run)
        line.addWidget(self.stop)
        holder = QWidget()
        holder.setLayout(line)
        return holder

    @property
    def is_running(self) -> bool:
        return self._stack.currentIndex() == 1

    def show_progress(
        self, name: str, done: int, total: int, seconds_left: float | None, loss: float | None, stage: str = ""
    ) -> None:
        """Show a running training. `seconds_left` and `loss` are None while unknown; `stage` is in the window's words."""
        self._stack.setCurrentIndex(1)
        self.bar.show_progress(done, total)
        percent = f" · {100 * done // total} %" if total else ""
        self.state.setText(f"{name}{percent}")
        parts = [stage] if stage else []
        if total:
            parts.append(tr("step {step} of {total}", step=count_words(done), total=count_words(total)))
        if seconds_left is not None:
            parts.append(tr("{time} left", time=time_words(seconds_left)))
        if loss is not None:
            parts.append(tr("loss {loss}", loss=f"{loss:.4f}"))
        self.details.setText(" · ".join(parts))

    def show_draft(self, *, is_starting: bool = False) -> None:
        """No run goes on: back to the figures of the draft. `is_starting`: Start was pressed, and it is being checked."""
        self._stack.setCurrentIndex(0)
        self.start.setEnabled(not is_starting)
        self.start.setText(f" {tr('Starting…') if is_starting else tr('Start')}")


def _primary(text: str, icon: str, pressed: Callable[[], object]) -> QPushButton:
    made = button(text, pressed, role="primary", icon=icon)
    made.setMinimumWidth(theme.px(120))
    made.setCursor(Qt.CursorShape.PointingHandCursor)
    return made


def _files_tip(facts: object) -> str:
    count = getattr(facts, "num_files", 0)
    size = getattr(facts, "file_bytes", None)
    if not count or not size:
        return ""
    return tr("Files kept: {count}, {size} in all", count=count, size=size_words(count * size))
