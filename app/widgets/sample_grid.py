"""The grid of previews: a row for each prompt, a column for each step, painted as far as it is in view."""

from __future__ import annotations

import itertools

from PySide6.QtCore import QEvent, QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent, QHelpEvent, QImage, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QSizePolicy, QToolTip, QWidget

from app import theme
from app.i18n import tr
from app.journal import History
from app.widgets.picture_view import fitted
from app.widgets.thumbnails import shared
from trainer.ipc.events import Sample
from trainer.ipc.runfolder import RunFolder

GAP = 6
CELL_SIZES = (72, 96, 128, 192, 256)


class SampleGrid(QWidget):
    """See the module. Put it in a scroll area; arrows move, Enter opens.

    Signals:
        chosen(step, index): a picture was clicked, or opened with Enter.
    """

    chosen = Signal(int, int)

    def __init__(self, cell: int = 128) -> None:
        super().__init__()
        self._folder: RunFolder | None = None
        self._history = History()
        self._cell = cell
        self._steps: list[int] = []
        self._indices: list[int] = []
        self._focus = (0, 0)  # column, row
        self._live: dict[str, QImage] = {}
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(tr("Pictures by prompt and step"))
        self._repaint = QTimer(self, singleShot=True, interval=50)
        self._repaint.timeout.connect(self.update)

    def show_history(self, folder: RunFolder, history: History, steps: list[int] | None = None) -> None:
        """Show the pictures of a run: those of `steps`, or all."""
        self._folder, self._history = folder, history
        self._steps = history.sample_steps if steps is None else steps
        self._indices = history.sample_indices
        self.setFixedSize(self.sizeHint())
        self.update()

    def set_cell(self, cell: int) -> None:
        """The side of a picture, in design pixels."""
        self._cell = cell
        self.setFixedSize(self.sizeHint())
        self.update()

    def sizeHint(self) -> QSize:
        width, height = self._pitch()
        return QSize(max(1, width * len(self._steps)), max(1, self._header() + height * len(self._indices)))

    def _pitch(self) -> tuple[int, int]:
        """From one column to the next, and from one row to the next."""
        side = theme.px(self._cell) + theme.px(GAP)
        return side, side + self._words()

    def cell_rect(self, column: int, line: int) -> QRect:
        """Where a picture lies."""
        side, (width, height) = theme.px(self._cell), self._pitch()
        return QRect(column * width, self._header() + line * height + self._words(), side, side)

    def _in_view(self, seen: QRect) -> tuple[range, range]:
        """The columns and rows, words above them included, that a rectangle touches."""
        width, height = self._pitch()
        top = seen.top() - self._header()
        columns = range(max(0, seen.left() // width), min(len(self._steps), seen.right() // width + 1))
        lines = range(max(0, top // height), min(len(self._indices), (top + seen.height()) // height + 1))
        return columns, lines

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.setFont(theme.font("small"))
        columns, lines = self._in_view(event.rect())
        self._draw_words(painter, columns, lines)
        for column in columns:
            for line in lines:
                self._draw_cell(painter, self.cell_rect(column, line), column, line)

    def _draw_words(self, painter: QPainter, columns: range, lines: range) -> None:
        """The steps above the columns, and each prompt above its row, where it can be seen."""
        painter.setPen(theme.qcolour("muted"))
        side = theme.px(self._cell)
        for column in columns:
            place = QRect(self.cell_rect(column, 0).left(), 0, side, self._header())
            painter.drawText(place, int(Qt.AlignmentFlag.AlignCenter), step_words(self._steps[column]))
        visible = self.visibleRegion().boundingRect()
        for line in lines:
            index = self._indices[line]
            sample = next((found for step in self._steps if (found := self._history.samples.get((step, index)))), None)
            if sample is not None:
                top = self.cell_rect(0, line).top() - self._words()
                width = max(1, visible.width() - theme.px(8))
                text = painter.fontMetrics().elidedText(sample.prompt, Qt.TextElideMode.ElideRight, width)
                place = QRect(visible.left(), top, width, self._words())
                painter.drawText(place, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)

    def _draw_cell(self, painter: QPainter, place: QRect, column: int, line: int) -> None:
        sample = self._sample(column, line)
        image = self._image(sample) if sample is not None else None
        if image is None or image.isNull():
            painter.fillRect(place, theme.qcolour("raised"))
        else:
            painter.drawImage(fitted(image.size(), place), image)
        if self.hasFocus() and (column, line) == self._focus:
            painter.setPen(theme.qcolour("accent"))
            painter.drawRect(place.adjusted(0, 0, -1, -1))
            painter.drawRect(place.adjusted(1, 1, -2, -2))

    def _image(self, sample: Sample) -> QImage | None:
        """The picture: live from the worker until the file is read."""
        assert self._folder is not None
        side = round(theme.px(self._cell) * self.devicePixelRatioF())
        image = shared().get(self._folder.path / sample.file, side, self._repaint.start)
        if image is not None and not image.isNull():
            return image
        data = self._history.thumbnails.get(sample.file)
        if data and sample.file not in self._live:
            self._live[sample.file] = QImage.fromData(data)
        return self._live.get(sample.file)

    def _sample(self, column: int, line: int) -> Sample | None:
        if 0 <= column < len(self._steps) and 0 <= line < len(self._indices):
            return self._history.samples.get((self._steps[column], self._indices[line]))
        return None

    def _at(self, x: int, y: int) -> tuple[int, int] | None:
        for column, line in itertools.product(*self._in_view(QRect(x, y, 1, 1))):
            if self.cell_rect(column, line).contains(x, y) and self._sample(column, line) is not None:
                return column, line
        return None

    def _open(self, place: tuple[int, int]) -> None:
        if self._sample(*place) is not None:
            self.chosen.emit(self._steps[place[0]], self._indices[place[1]])

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        place = self._at(event.position().toPoint().x(), event.position().toPoint().y())
        if event.button() == Qt.MouseButton.LeftButton and place is not None:
            self._focus = place
            self._open(place)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        is_over = self._at(event.position().toPoint().x(), event.position().toPoint().y()) is not None
        self.setCursor(Qt.CursorShape.PointingHandCursor if is_over else Qt.CursorShape.ArrowCursor)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        moves = {
            Qt.Key.Key_Left: (-1, 0),
            Qt.Key.Key_Right: (1, 0),
            Qt.Key.Key_Up: (0, -1),
            Qt.Key.Key_Down: (0, 1),
        }
        key = Qt.Key(event.key())
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._open(self._focus)
        elif key in moves and self._steps and self._indices:
            column = min(max(0, self._focus[0] + moves[key][0]), len(self._steps) - 1)
            line = min(max(0, self._focus[1] + moves[key][1]), len(self._indices) - 1)
            self._focus = (column, line)
            self._show_focus()
        else:
            super().keyPressEvent(event)

    def _show_focus(self) -> None:
        """Bring the focused picture into view, and say which it is."""
        sample = self._sample(*self._focus)
        words = f"{step_words(sample.step)}: {sample.prompt}" if sample is not None else ""
        self.setAccessibleDescription(words)
        viewport = self.parentWidget()
        area = viewport.parentWidget() if viewport is not None else None
        if isinstance(area, QScrollArea):
            place = self.cell_rect(*self._focus)
            area.ensureVisible(place.center().x(), place.center().y(), place.width(), place.height())
        self.update()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self._show_focus()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.update()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            place = self._at(event.pos().x(), event.pos().y())
            sample = self._sample(*place) if place is not None else None
            QToolTip.showText(event.globalPos(), f"{step_words(sample.step)}\n{sample.prompt}" if sample else "", self)
            return True
        return super().event(event)

    def _header(self) -> int:
        return theme.px(20)

    def _words(self) -> int:
        return theme.px(20)


class GridArea(QScrollArea):
    """Scrolls a grid, and stays at its newest column if it was there."""

    def __init__(self, grid: SampleGrid) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidget(grid)
        grid.setAutoFillBackground(False)
        self.viewport().setAutoFillBackground(False)
        self._is_at_end = True
        self._bar = self.horizontalScrollBar()
        self._bar.valueChanged.connect(self._on_moved)
        self._bar.rangeChanged.connect(lambda _, end: self._bar.setValue(end) if self._is_at_end else None)
        self._bar.valueChanged.connect(lambda _: grid.update())  # its prompts stand at the left of what can be seen

    def go_to_end(self) -> None:
        self._is_at_end = True
        self._bar.setValue(self._bar.maximum())

    def _on_moved(self, value: int) -> None:
        self._is_at_end = value >= self._bar.maximum()


def step_words(step: int) -> str:
    """A step above its column; 0 is the base model."""
    return tr("before") if step == 0 else f"{step:,}"
