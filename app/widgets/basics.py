"""Small pieces that every page is made of: labels, buttons, cards, banners, foldable parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import tr
from app.preferences import Preferences

BUTTONS_BELOW = 480  # design pixels of a banner's width
PROGRESS_STEPS = 1000  # that a bar shows at most; its own numbers are too small for bytes
SEVERITY_ICONS = {"info": "info", "good": "circle-check", "warning": "triangle-alert", "problem": "circle-x"}


def label(text: str, role: str = "", *, wrap: bool = False) -> QLabel:
    """A label in a role of the style sheet: title, heading, muted, small, problem, warning, good, chip, …"""
    made = QLabel(text, wordWrap=wrap)
    made.setTextFormat(Qt.TextFormat.PlainText)
    if role:
        made.setProperty("role", role)
    if wrap:
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        made.setSizePolicy(policy)
    return made


def set_role(widget: QWidget, role: str) -> None:
    """Give a widget another role of the style sheet."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def set_flag(widget: QWidget, name: str, value: object) -> None:
    """Set a property that the style sheet looks at."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def button(
    text: str, pressed: Callable[[], object] | None = None, *, role: str = "", icon: str = "", tip: str = ""
) -> QPushButton:
    """A push button. Roles: primary, danger, flat, link."""
    made = QPushButton(f" {text}" if icon else text, toolTip=tip, accessibleName=text)  # the blank keeps off the icon
    if role:
        made.setProperty("role", role)
    if icon:
        colour = {"primary": "on_accent", "danger": "problem", "link": "accent"}.get(role, "text")
        made.setIcon(theme.icon(icon, colour))
        made.setIconSize(QSize(theme.px(16), theme.px(16)))
    if pressed is not None:
        made.clicked.connect(lambda _=False: pressed())
    return made


def tool_button(
    icon: str, name: str, pressed: Callable[[], object] | None = None, *, role: str = "text"
) -> QToolButton:
    """A button that is an icon; `name` is its tooltip and its accessible name."""
    made = QToolButton(icon=theme.icon(icon, role), toolTip=name, accessibleName=name)
    made.setIconSize(QSize(theme.px(18), theme.px(18)))
    if pressed is not None:
        made.clicked.connect(lambda _=False: pressed())
    return made


def fitted(widget: QWidget, width: float, height: float) -> QSize:
    """A size of the design in pixels, at most nine tenths of the widget's screen."""
    room = widget.screen().availableSize()
    return QSize(min(theme.px(width), round(0.9 * room.width())), min(theme.px(height), round(0.9 * room.height())))


def row(*widgets: QWidget | None, spacing: float = theme.SPACE) -> QHBoxLayout:
    """Widgets side by side; None is a stretch."""
    line = QHBoxLayout()
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(theme.px(spacing))
    for widget in widgets:
        if widget is None:
            line.addStretch(1)
        else:
            line.addWidget(widget)
    return line


def clear(layout: QLayout) -> None:
    """Take everything out of a layout and delete it."""
    while (item := layout.takeAt(0)) is not None:
        if (widget := item.widget()) is not None:
            widget.hide()
            widget.deleteLater()


class Card(QFrame):
    """A bordered card with an optional heading; `body` is its column."""

    def __init__(self, heading: str = "", subtitle: str = "") -> None:
        super().__init__(objectName="Card")
        self.body = QVBoxLayout(self)
        margin = theme.px(2 * theme.SPACE)
        self.body.setContentsMargins(margin, margin, margin, margin)
        self.body.setSpacing(theme.px(1.5 * theme.SPACE))
        if heading:
            self.heading = label(heading, "heading")
            self.heading_row = row(self.heading, None)
            self.body.addLayout(self.heading_row)
        if subtitle:
            self.body.addWidget(label(subtitle, "muted", wrap=True))

    def add(self, widget: QWidget) -> QWidget:
        self.body.addWidget(widget)
        return widget


class Banner(QFrame):
    """A coloured line that says something without standing in the way: an icon, a sentence, buttons."""

    def __init__(
        self, text: str, severity: str = "info", actions: Sequence[tuple[str, Callable[[], object]]] = ()
    ) -> None:
        super().__init__(objectName="Banner")
        self.setProperty("severity", severity)
        line = QHBoxLayout(self)
        line.setContentsMargins(theme.px(12), theme.px(8), theme.px(12), theme.px(8))
        line.setSpacing(theme.px(10))
        sign = QLabel()
        sign.setPixmap(theme.pixmap(SEVERITY_ICONS[severity], severity, 18))
        line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
        self.text = label(text, wrap=True)
        self._parts = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._parts.addWidget(self.text, 1)
        line.addLayout(self._parts, 1)
        if actions:
            self._parts.addWidget(flowing([button(name, action) for name, action in actions]))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Where it is narrow the buttons stand below the words."""
        super().resizeEvent(event)
        narrow = self.width() < theme.px(BUTTONS_BELOW)
        self._parts.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)


def flowing(buttons: Sequence[QPushButton]) -> QWidget:
    """Buttons side by side, or one below the other where it is narrow."""
    from app.widgets.flow import FlowLayout

    made = QWidget()
    policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)
    made.setSizePolicy(policy)
    flow = FlowLayout(made, theme.px(theme.SPACE))
    for entry in buttons:
        flow.addWidget(entry)
    return made


class Fold(QWidget):
    """A part that folds away under a line one can press, and stays as it was left.

    Signals:
        toggled(open)
    """

    toggled = Signal(bool)

    def __init__(self, title: str, name: str, preferences: Preferences, *, opened: bool = False) -> None:
        super().__init__()
        self._name, self._preferences = name, preferences
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(theme.SPACE))
        self.header = button(title, self._toggle, role="fold")
        self.header.setCheckable(True)
        self.header.setIconSize(QSize(theme.px(16), theme.px(16)))
        self.content = QWidget()
        self.body = QVBoxLayout(self.content)
        self.body.setContentsMargins(0, 0, 0, 0)
        self.body.setSpacing(theme.px(1.5 * theme.SPACE))
        column.addWidget(self.header)
        column.addWidget(self.content)
        self.set_open(not preferences.folded(name, not opened), remember=False)

    @property
    def is_open(self) -> bool:
        return self.header.isChecked()

    def set_open(self, opened: bool, *, remember: bool = True) -> None:
        self.header.setChecked(opened)
        self.header.setIcon(theme.icon("chevron-down" if opened else "chevron-right", "muted"))
        self.content.setVisible(opened)
        if remember:
            self._preferences.set_folded(self._name, not opened)
        self.toggled.emit(opened)

    def set_title(self, title: str) -> None:
        self.header.setText(title)

    def _toggle(self) -> None:
        self.set_open(self.header.isChecked())


class ProgressBar(QProgressBar):
    """A bar without words on it."""

    def __init__(self) -> None:
        super().__init__(textVisible=False)
        self.setAccessibleName(tr("Progress"))

    def show_progress(self, done: int, total: int) -> None:
        """Show `done` of `total`; a total of 0 is unknown. Painted when the window paints: Qt's setValue would paint now."""
        if total > PROGRESS_STEPS:
            done, total = PROGRESS_STEPS * done // total, PROGRESS_STEPS
        if (done, total) != (self.value(), self.maximum()):
            self.setUpdatesEnabled(False)
            self.setRange(0, total)
            self.setValue(done)
            self.setUpdatesEnabled(True)


class ElidedLabel(QLabel):
    """A label for paths and names: what does not fit is left out in the middle and stands in the tooltip."""

    def __init__(self, text: str = "", role: str = "", mode: Qt.TextElideMode = Qt.TextElideMode.ElideMiddle) -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._mode = mode
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setMinimumWidth(theme.px(48))
        if role:
            self.setProperty("role", role)

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 4, super().sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        shown = QFontMetrics(self.font()).elidedText(self.text(), self._mode, self.width())
        self.setToolTip(self.text() if shown != self.text() else "")
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), shown)


class Invitation(QFrame):
    """An empty state: an icon, one sentence, and buttons that fill it. Files may be dropped where `dropped` is given."""

    def __init__(
        self,
        icon: str,
        sentence: str,
        actions: tuple[tuple[str, str, Callable[[], object]], ...],
        dropped: Callable[[list[str]], None] | None = None,
    ) -> None:
        super().__init__(objectName="Invitation")
        self._dropped = dropped
        self.setAcceptDrops(dropped is not None)
        column = QVBoxLayout(self)
        column.setContentsMargins(*(theme.px(24),) * 4)
        column.setSpacing(theme.px(12))
        sign = QLabel()
        sign.setPixmap(theme.pixmap(icon, "accent", 36))
        column.addStretch(1)
        column.addWidget(sign, 0, Qt.AlignmentFlag.AlignHCenter)
        text = label(sentence, wrap=True)
        text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(text)
        line = row(None)
        self.buttons: list[QPushButton] = []
        for name, role, action in actions:
            made = button(name, action, role=role)
            self.buttons.append(made)
            line.addWidget(made)
        line.addStretch(1)
        column.addLayout(line)
        column.addStretch(1)

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", accept_paths(event))

    def dragLeaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)
        if self._dropped is not None and (paths := dropped_paths(event)):
            self._dropped(paths)


def dropped_paths(event) -> list[str]:  # type: ignore[no-untyped-def]
    """The local files and folders of a drop."""
    return [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]


def accept_paths(event) -> bool:  # type: ignore[no-untyped-def]
    """Take a drag that carries files or folders of this computer; False if it carries none."""
    if not dropped_paths(event):
        return False
    event.acceptProposedAction()
    return True


def rule() -> QFrame:
    """A thin line."""
    return QFrame(objectName="Rule")
