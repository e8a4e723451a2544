"""A picture as large as its place allows, read in a thread; and two of them side by side with a slider through time."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QImage, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QDialog, QHBoxLayout, QSizePolicy, QSlider, QVBoxLayout, QWidget

from app import theme
from app.i18n import tr
from app.journal import History
from app.widgets.basics import label, row, tool_button
from app.widgets.thumbnails import shared
from trainer.ipc.runfolder import RunFolder

LARGE_PX = 1024


class PictureView(QWidget):
    """Shows one picture file, scaled to its place.

    Signals:
        pressed(): it was clicked, or Enter was pressed on it.
    """

    pressed = Signal()

    def __init__(self, words: str = "") -> None:
        super().__init__()
        self._path: Path | None = None
        self._image = QImage()
        self._words = words
        self.setMinimumSize(theme.px(64), theme.px(64))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        return QSize(theme.px(256), theme.px(256))

    def show_file(self, path: Path | None, name: str = "") -> None:
        """Show a picture (None: nothing). The last one stays until the new one is read."""
        self.setAccessibleName(name)
        self.setToolTip(name)
        if path == self._path:
            return
        self._path = path
        if path is None:
            self._image = QImage()
            self.update()
        else:
            self._arrived()

    def _arrived(self) -> None:
        if self._path is not None:
            image = shared().get(self._path, LARGE_PX, self._arrived)
            if image is not None:
                self._image = image
                self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        if self._image.isNull():
            painter.fillRect(self.rect(), theme.qcolour("raised"))
            painter.setPen(theme.qcolour("muted"))
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), self._words)
            return
        painter.drawImage(fitted(self._image.size(), self.rect()), self._image)
        if self.hasFocus():
            painter.setPen(theme.qcolour("accent"))
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.pressed.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.pressed.emit()
        else:
            super().keyPressEvent(event)


class Comparison(QDialog):
    """A picture beside the one that the base model drew from the same noise; slider through time, arrows for prompts."""

    def __init__(self, parent: QWidget, folder: RunFolder, history: History, step: int, index: int) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Pictures over time"))
        self.resize(theme.px(980), theme.px(620))
        self._folder, self._history, self._index = folder, history, index
        self.before, self.after = PictureView(tr("no picture")), PictureView(tr("no picture"))
        self.before_name, self.after_name = label("", "heading"), label("", "heading")
        self.prompt = label("", "muted", wrap=True)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName(tr("Step"))
        self._build()
        steps = self._steps()
        self.slider.setMaximum(max(0, len(steps) - 1))
        self.slider.setValue(steps.index(step) if step in steps else len(steps) - 1)
        self.slider.valueChanged.connect(lambda _: self.refresh())
        self.slider.setFocus()
        self.refresh()

    def _build(self) -> None:
        column = QVBoxLayout(self)
        pair = QHBoxLayout()
        for name, view in ((self.before_name, self.before), (self.after_name, self.after)):
            side = QVBoxLayout()
            side.addWidget(name)
            side.addWidget(view, 1)
            pair.addLayout(side, 1)
        column.addLayout(pair, 1)
        earlier = tool_button("chevron-left", tr("Previous prompt"), lambda: self._turn(-1))
        later = tool_button("chevron-right", tr("Next prompt"), lambda: self._turn(1))
        column.addWidget(self.slider)
        column.addLayout(row(earlier, later, self.prompt))

    def refresh(self) -> None:
        """Show the step that the slider is at."""
        steps = self._steps()
        if not steps:
            return
        step = steps[min(self.slider.value(), len(steps) - 1)]
        self._show(self.before, self.before_name, steps[0])
        self._show(self.after, self.after_name, step)
        sample = self._history.samples[step, self._index]
        self.prompt.setText(tr("{prompt}  ·  seed {seed}", prompt=sample.prompt, seed=sample.seed))

    def _show(self, view: PictureView, name: QWidget, step: int) -> None:
        sample = self._history.samples[step, self._index]
        words = tr("Before training") if step == 0 else tr("Step {step}", step=f"{step:,}")
        name.setText(words)  # type: ignore[attr-defined]
        view.show_file(self._folder.path / sample.file, f"{words}: {sample.prompt}")

    def _steps(self) -> list[int]:
        return sorted(step for step, index in self._history.samples if index == self._index)

    def _turn(self, direction: int) -> None:
        """The next prompt, at the same step if it has a picture there."""
        indices = self._history.sample_indices
        step = self._steps()[self.slider.value()]
        self._index = indices[(indices.index(self._index) + direction) % len(indices)]
        steps = self._steps()
        self.slider.setMaximum(len(steps) - 1)
        self.slider.setValue(min(range(len(steps)), key=lambda place: abs(steps[place] - step)))
        self.refresh()


def fitted(size: QSize, place: QRect) -> QRect:
    """Where a picture of `size` lies in `place`, whole, centred and never enlarged beyond twice its size."""
    scaled = size.scaled(place.size(), Qt.AspectRatioMode.KeepAspectRatio)
    if scaled.width() > 2 * size.width():
        scaled = QSize(2 * size.width(), 2 * size.height())
    left = place.left() + (place.width() - scaled.width()) // 2
    top = place.top() + (place.height() - scaled.height()) // 2
    return QRect(left, top, scaled.width(), scaled.height())
