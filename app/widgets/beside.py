"""Two parts side by side, or one above the other where there is little room."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QWidget

from app import theme

MOST = 16_777_215  # Qt's own


class Beside(QWidget):
    """See the module. The second part takes what room there is."""

    def __init__(self, first: QWidget, second: QWidget, *, above_below: float, first_width: float) -> None:
        """In design pixels: the width under which one is above the other, and that of the first part beside the second."""
        super().__init__()
        self._first, self._second = first, second
        self._above_below, self._first_width = theme.px(above_below), theme.px(first_width)
        self._parts = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._parts.setContentsMargins(0, 0, 0, 0)
        self._parts.setSpacing(theme.px(2 * theme.SPACE))
        self._parts.addWidget(first)
        self._parts.addWidget(second, 1)
        self._is_narrow = False
        self._arrange()

    def _arrange(self) -> None:
        narrow = self._is_narrow
        self._parts.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        self._first.setMinimumWidth(0 if narrow else self._first_width)
        self._first.setMaximumWidth(MOST if narrow else self._first_width)

    def minimumSizeHint(self) -> QSize:
        """What it takes one above the other."""
        widths = [part.minimumSizeHint().width() for part in (self._first, self._second)]
        return QSize(max(widths), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = self.width() < self._above_below
        if narrow is not self._is_narrow:
            self._is_narrow = narrow
            self._arrange()
