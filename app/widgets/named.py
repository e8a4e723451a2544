"""A name and what it names: side by side, or one above the other where there is little room."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QLabel, QLayout, QWidget

from app import theme

NAME_WIDTH = 168
ABOVE_BELOW = 440  # design pixels of width under which a name stands above
MOST = 16_777_215  # Qt's own


class Named(QWidget):
    """See the module; `put` fills it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._parts.setContentsMargins(0, 0, 0, 0)
        self._is_narrow = False

    def put(self, name: QLabel, content: QWidget | QLayout, width: float = NAME_WIDTH) -> None:
        """`width` is that of the name beside the content, in design pixels."""
        self._name, self._name_width = name, theme.px(width)
        self._parts.addWidget(name)
        if isinstance(content, QWidget):
            self._parts.addWidget(content, 1)
        else:
            self._parts.addLayout(content, 1)
        self._arrange()

    def _arrange(self) -> None:
        narrow = self._is_narrow
        self._parts.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        self._parts.setSpacing(theme.px(theme.SPACE / 2 if narrow else theme.SPACE))
        self._parts.setAlignment(self._name, Qt.AlignmentFlag(0) if narrow else Qt.AlignmentFlag.AlignTop)
        self._name.setMinimumWidth(0 if narrow else self._name_width)
        self._name.setMaximumWidth(MOST if narrow else self._name_width)
        self._name.setContentsMargins(0, 0 if narrow else theme.px(6), 0, 0)

    def minimumSizeHint(self) -> QSize:
        """What it takes one above the other."""
        content = self._parts.itemAt(1)
        assert content is not None
        return QSize(content.minimumSize().width(), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = self.width() < theme.px(ABOVE_BELOW)
        if narrow is not self._is_narrow:
            self._is_narrow = narrow
            self._arrange()
