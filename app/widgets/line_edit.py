"""A line of text with a button that empties it. (The icons in Qt's own do not grow with the window's scale.)"""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QLineEdit, QWidget

from app import theme
from app.i18n import tr
from app.widgets.basics import tool_button

ICON = 16


class ClearableEdit(QLineEdit):
    """See the module. `textEdited` tells of the button too. `icon` is shown in front."""

    def __init__(self, text: str = "", parent: QWidget | None = None, *, hint: str = "", icon: str = "") -> None:
        super().__init__(text, parent, placeholderText=hint)
        self._empty = tool_button("x", tr("Clear"), self._clear, role="muted")
        self._empty.setParent(self)
        self._empty.setObjectName("Clear")
        self._empty.setIconSize(QSize(theme.px(ICON), theme.px(ICON)))
        self._empty.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # Ctrl+A and Delete do the same
        self._empty.setCursor(Qt.CursorShape.ArrowCursor)
        self._sign: QLabel | None = None
        if icon:
            self._sign = QLabel(self)
            self._sign.setPixmap(theme.pixmap(icon, "muted", ICON))
            self._sign.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.textChanged.connect(lambda _: self._make_room())
        self._make_room()

    def _clear(self) -> None:
        self.clear()
        self.textEdited.emit("")
        self.setFocus(Qt.FocusReason.MouseFocusReason)

    def _make_room(self) -> None:
        beside = theme.px(ICON + 4)
        self._empty.setVisible(bool(self.text()) and self.isEnabled())
        self.setTextMargins(beside if self._sign is not None else 0, 0, beside if self.text() else 0, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        side, edge = theme.px(ICON), theme.px(8)
        top = (self.height() - side) // 2
        self._empty.setGeometry(self.width() - edge - side, top, side, side)
        if self._sign is not None:
            self._sign.setGeometry(edge, top, side, side)
