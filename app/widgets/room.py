"""A part of a dialog that is as high as what is in it, and scrolls where the screen is too low for that."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtWidgets import QFrame, QScrollArea, QWidget

SHARE = 0.6  # of the screen's height, which leaves something for a banner and the buttons


class Room(QScrollArea):
    """See the module."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidgetResizable(True)
        self.setWidget(content)
        content.setObjectName("Column")

    def minimumSizeHint(self) -> QSize:
        content = self.widget()
        assert content is not None
        height = max(content.heightForWidth(self.viewport().width()), content.minimumSizeHint().height())
        room = round(SHARE * self.screen().availableSize().height())
        bar = self.verticalScrollBar().sizeHint().width() if height > room else 0
        return QSize(content.minimumSizeHint().width() + bar, min(height, room))

    def sizeHint(self) -> QSize:
        return self.minimumSizeHint()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)
