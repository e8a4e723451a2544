"""The Gallery: former runs to open, and all pictures of the one that is shown, with a slider through time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtWidgets import (
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QSlider,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import tr
from app.preferences import Preferences
from app.slices import Pieces
from app.widgets.basics import ElidedLabel, Invitation, label, row

if TYPE_CHECKING:
    from app.runs import Runs, Summary

LIST_WIDTH = 248
DRAW_MS = 250
CELL = "gallery_cell"  # preference: place in CELL_SIZES


class GalleryPage(QWidget):
    """Shows the pictures of `runs.current`. Built again when language, theme or scale change."""

    def __init__(self, runs: Runs, preferences: Preferences) -> None:
        super().__init__()
        self.runs, self.preferences = runs, preferences
        self._known = (-1, -1)
        self._stack = QStackedWidget()

    def build(self) -> Pieces:
        """The list of runs, then the pictures."""
        runs = self.runs
        line = QHBoxLayout(self)
        line.setContentsMargins(theme.px(24), theme.px(16), theme.px(24), theme.px(24))
        line.setSpacing(theme.px(16))
        line.addWidget(self._build_list(), 1)
        yield
        sentence = tr("Pictures of a training appear here: a row for each prompt, a column for each step.")
        self._stack.addWidget(Invitation("images", sentence, ()))
        self._stack.addWidget(self._build_pictures())
        line.addWidget(self._stack, 2)
        self._draw_timer = QTimer(self, singleShot=True, interval=DRAW_MS)
        self._draw_timer.timeout.connect(self.refresh)
        runs.progressed.connect(self._schedule)
        runs.current_changed.connect(self._on_run_changed)
        runs.listed.connect(self._fill_list)
        self._on_run_changed()
        runs.find()
        if runs.current is None:
            runs.show_newest()

    def _build_list(self) -> QWidget:
        made = QWidget()
        made.setMaximumWidth(theme.px(LIST_WIDTH))
        column = QVBoxLayout(made)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(label(tr("Runs"), "title"))
        self.list = QListWidget()
        self.list.setAccessibleName(tr("Runs"))
        self.list.setIconSize(QSize(theme.px(20), theme.px(20)))
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.itemActivated.connect(self._open_item)
        self.list.itemClicked.connect(self._open_item)
        column.addWidget(self.list, 1)
        return made

    def _build_pictures(self) -> QWidget:
        from app.widgets.picture_view import PictureView
        from app.widgets.sample_grid import CELL_SIZES, GridArea, SampleGrid

        self._sizes = CELL_SIZES
        made = QWidget()
        column = QVBoxLayout(made)
        column.setContentsMargins(0, 0, 0, 0)
        self.title = ElidedLabel("", "title", Qt.TextElideMode.ElideRight)
        self.step_name = label("", "muted")
        self.steps = QSlider(Qt.Orientation.Horizontal)
        self.steps.setAccessibleName(tr("Step"))
        self.steps.valueChanged.connect(lambda _: self._show_step())
        self.sizes = QSlider(Qt.Orientation.Horizontal)
        self.sizes.setAccessibleName(tr("Size of the pictures"))
        self.sizes.setToolTip(tr("Size of the pictures"))
        self.sizes.setRange(0, len(CELL_SIZES) - 1)
        self.sizes.setFixedWidth(theme.px(96))
        self.sizes.setValue(int(self.preferences.get(CELL, 2)))
        self.sizes.valueChanged.connect(self._on_size)
        self.strip = QHBoxLayout()
        self.strip.setSpacing(theme.px(8))
        self._views: list[PictureView] = []
        self.grid = SampleGrid(CELL_SIZES[self.sizes.value()])
        self.grid.chosen.connect(self.compare)
        self.area = GridArea(self.grid)
        top = row(self.title, self.sizes)
        top.setStretch(0, 1)
        time_line = row(self.steps, self.step_name)
        time_line.setStretch(0, 1)
        column.addLayout(top)
        column.addLayout(self.strip, 2)
        column.addLayout(time_line)
        column.addWidget(self.area, 3)
        return made

    # ---- showing ----

    def _on_run_changed(self) -> None:
        self._known = (-1, -1)
        self.refresh()

    def _schedule(self) -> None:
        if self.isVisible() and not self._draw_timer.isActive():
            self._draw_timer.start()

    def showEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().showEvent(event)
        self.runs.find()
        if self._stack.count():
            self.refresh()

    def refresh(self) -> None:
        """Show new pictures, if there are any; the slider stays at the end if it was there."""
        run = self.runs.current
        has_pictures = run is not None and bool(run.history.samples)
        self._stack.setCurrentIndex(1 if has_pictures else 0)
        if run is None or not has_pictures:
            return
        known = (len(run.history.samples), run.history.last_sample_number)
        if known == self._known:
            return
        was_at_end = self._known == (-1, -1) or self.steps.value() == self.steps.maximum()
        self._known = known
        self.title.setText(run.name)
        self.grid.show_history(run.folder, run.history)
        self.steps.setMaximum(len(run.history.sample_steps) - 1)
        if was_at_end:
            self.steps.setValue(self.steps.maximum())
            self.area.go_to_end()
        self._show_step()

    def _show_step(self) -> None:
        """The pictures of the step that the slider is at, large."""
        from app.widgets.sample_grid import step_words

        run = self.runs.current
        steps = run.history.sample_steps if run is not None else []
        if run is None or not steps:
            return
        step = steps[min(self.steps.value(), len(steps) - 1)]
        self.step_name.setText(tr("Step {step}", step=step_words(step)))
        indices = run.history.sample_indices
        self._make_views(min(4, len(indices)))
        for view, index in zip(self._views, indices, strict=False):
            sample = run.history.samples.get((step, index))
            path = run.folder.path / sample.file if sample is not None else None
            view.show_file(path, f"{step_words(step)}  ·  {sample.prompt}" if sample is not None else "")
            view.setProperty("place", (step, index))

    def _make_views(self, count: int) -> None:
        from app.widgets.picture_view import PictureView

        while len(self._views) < count:
            view = PictureView()
            view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            view.pressed.connect(lambda view=view: self.compare(*view.property("place")))
            self._views.append(view)
            self.strip.addWidget(view)
        for place, view in enumerate(self._views):
            view.setVisible(place < count)

    def compare(self, step: int, index: int) -> None:
        """Open a picture beside that of step 0."""
        from app.widgets.picture_view import Comparison

        run = self.runs.current
        if run is not None and (step, index) in run.history.samples:
            dialog = Comparison(self.window(), run.folder, run.history, step, index)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.show()

    def _on_size(self, place: int) -> None:
        self.preferences.set(CELL, place)
        self.grid.set_cell(self._sizes[place])

    # ---- former runs ----

    def _fill_list(self, found: list[Summary]) -> None:
        self.list.clear()
        for summary in found[:200]:
            item = QListWidgetItem(summary_words(summary))
            item.setIcon(theme.icon("flame", "accent") if summary.alive else theme.icon("circle-dot", "muted"))
            item.setData(Qt.ItemDataRole.UserRole, str(summary.folder.path))
            item.setToolTip(str(summary.folder.path))
            self.list.addItem(item)
            if self.runs.current is not None and summary.folder.path == self.runs.current.folder.path:
                self.list.setCurrentItem(item)

    def _open_item(self, item: QListWidgetItem) -> None:
        self.runs.open(Path(item.data(Qt.ItemDataRole.UserRole)))


def summary_words(summary: Summary) -> str:
    """A run in three lines: its name; when; how far and how it stands."""
    status = summary.status
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.created)) if status.created else ""
    far = tr("step {step}", step=f"{status.step:,}")
    return f"{status.name or summary.folder.path.name}\n{when}\n{far}  ·  {state_of(summary)}"


def state_of(summary: Summary) -> str:
    """How a run stands, in a word or two."""
    if summary.alive:
        return tr("paused") if summary.status.state == "paused" else tr("training")
    words = {
        "finished": tr("finished"),
        "stopped": tr("stopped"),
        "aborted": tr("stopped"),
        "failed": tr("failed"),
    }
    return words.get(summary.status.state, tr("interrupted"))

