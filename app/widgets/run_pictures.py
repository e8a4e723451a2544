"""The pictures of a run on its page: the newest large, one prompt at a time, and the grid of the latest steps beside it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.i18n import tr
from app.runs import Run
from app.widgets.basics import Card, ElidedLabel, label, row, tool_button
from app.widgets.beside import Beside
from app.widgets.picture_view import Comparison, PictureView
from app.widgets.sample_grid import GridArea, SampleGrid, step_words

LARGE = 288


class RunPictures(Card):
    """See the module. A click compares a picture with the base model's, over time."""

    def __init__(self) -> None:
        super().__init__(tr("Pictures"))
        self._run: Run | None = None
        self._index = 0
        self._known: tuple[int, int] = (-1, -1)
        self.newest = PictureView(tr("The first preview appears here."))
        self.newest.setFixedSize(theme.px(LARGE), theme.px(LARGE))
        self.newest.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.newest.setCursor(Qt.CursorShape.PointingHandCursor)
        self.newest.pressed.connect(self._open_newest)
        self.newest_name = ElidedLabel("", "small", Qt.TextElideMode.ElideRight)
        self.newest_name.setFixedWidth(theme.px(LARGE - 64))
        earlier = tool_button("chevron-left", tr("Previous prompt"), lambda: self._turn(-1))
        later = tool_button("chevron-right", tr("Next prompt"), lambda: self._turn(1))
        large = QWidget()
        left = QVBoxLayout(large)
        left.setContentsMargins(0, 0, 0, 0)
        left.addWidget(self.newest)
        left.addLayout(row(earlier, self.newest_name, later, spacing=2))
        left.addStretch(1)
        self.grid = SampleGrid(112)
        self.grid.chosen.connect(self.compare)
        self.area = GridArea(self.grid)
        self.area.setMinimumHeight(theme.px(LARGE + 32))
        self.hint = label(tr("Click a picture to see it beside the one before training."), "small", wrap=True)
        several = QWidget()
        right = QVBoxLayout(several)
        right.setContentsMargins(0, 0, 0, 0)
        right.addWidget(self.area, 1)
        right.addWidget(self.hint)
        self.add(Beside(large, several, above_below=LARGE + 260, first_width=LARGE))

    def set_run(self, run: Run) -> None:
        self._run, self._known, self._index = run, (-1, -1), 0
        self.area.go_to_end()
        self.refresh()

    def refresh(self) -> None:
        """Show new pictures, if there are any."""
        run = self._run
        if run is None:
            return
        known = (len(run.history.samples), run.history.last_sample_number)
        if known == self._known:
            return
        self._known = known
        self.grid.show_history(run.folder, run.history)
        self.hint.setVisible(bool(run.history.samples))
        self._show_newest()

    def compare(self, step: int, index: int) -> None:
        """Open a picture beside that of step 0."""
        if self._run is not None:
            dialog = Comparison(self.window(), self._run.folder, self._run.history, step, index)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.show()

    def _show_newest(self) -> None:
        run = self._run
        samples = run.history.newest_samples if run is not None else []
        if run is None or not samples:
            self.newest.show_file(None)
            self.newest_name.setText("")
            return
        sample = samples[self._index % len(samples)]
        words = f"{step_words(sample.step)}  ·  {sample.prompt}"
        self.newest.show_file(run.folder.path / sample.file, words)
        self.newest_name.setText(words)

    def _open_newest(self) -> None:
        samples = self._run.history.newest_samples if self._run is not None else []
        if samples:
            sample = samples[self._index % len(samples)]
            self.compare(sample.step, sample.index)

    def _turn(self, direction: int) -> None:
        self._index += direction
        self._show_newest()
