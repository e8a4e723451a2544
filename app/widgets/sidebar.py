"""The sidebar: the pages in order, each with its mark, and below them runs, gallery and settings."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QPoint, QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QButtonGroup, QFrame, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app import icons, theme
from app.i18n import tr
from app.pages import BELOW, WIZARD, PageRow, title_of
from app.widgets.basics import label, row

WIDTH, NARROW = 212, 60
MARKS = {
    "missing": ("circle-dot", "accent"),
    "fine": ("circle-check", "good"),
    "warning": ("triangle-alert", "warning"),
    "problem": ("circle-x", "problem"),
}


def mark_words(mark: str) -> str:
    """What a mark says, for people who cannot see it."""
    words = {
        "untouched": tr("not looked at yet"),
        "missing": tr("still to be filled in"),
        "fine": tr("fine"),
        "warning": tr("has a warning"),
        "problem": tr("has a problem"),
    }
    return words.get(mark, "")


def news_words(news: str) -> str:
    """What has ended on a page meanwhile, in words."""
    return {"done": tr("something is done"), "failed": tr("something has failed")}.get(news, "")


class SideButton(QPushButton):
    """A page's button, drawn by itself: icon, title, mark."""

    def __init__(self, page: PageRow) -> None:
        super().__init__(objectName="SideButton", checkable=True)
        self.page, self.mark, self.news, self.narrow = page, "", "", False
        self.title = title_of(page.key)
        self.setAccessibleName(self.title)
        self.setToolTip(self.title)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFixedHeight(theme.px(34))

    def set_mark(self, mark: str) -> None:
        """ "untouched", "missing", "fine", "warning", "problem", or "" for pages that have none."""
        if mark == self.mark:
            return
        self.mark = mark
        self._say()

    def set_news(self, news: str) -> None:
        """ "done" or "failed" where something has ended since the page was looked at, else ""."""
        if news != self.news:
            self.news = news
            self._say()

    def _say(self) -> None:
        words = news_words(self.news) or mark_words(self.mark)
        self.setAccessibleName(f"{self.title}, {words}" if words else self.title)
        self.setToolTip(self.accessibleName())
        self.update()

    def text_width(self) -> int:
        """What the title needs, for the test that nothing is cut."""
        return self.fontMetrics().horizontalAdvance(self.title)

    def room_for_text(self) -> int:
        return self.width() - theme.px(40) - (theme.px(28) if self.mark or self.page in BELOW else theme.px(8))

    def sizeHint(self) -> QSize:
        return QSize(theme.px(NARROW if self.narrow else WIDTH) - theme.px(16), theme.px(34))

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        side = theme.px(18)
        middle = self.height() // 2
        role = "accent" if self.isChecked() else "muted"
        left = (self.width() - side) // 2 if self.narrow else theme.px(12)
        theme.icon(self.page.icon, role).paint(painter, QRect(left, middle - side // 2, side, side))
        if not self.narrow:
            painter.setPen(theme.qcolour("accent" if self.isChecked() else "text"))
            font = self.font()
            font.setBold(self.isChecked())
            painter.setFont(font)
            painter.drawText(
                QRect(theme.px(40), 0, self.width() - theme.px(40), self.height()),
                Qt.AlignmentFlag.AlignVCenter,
                self.title,
            )
        self._paint_mark(painter, middle)

    def _paint_mark(self, painter: QPainter, middle: int) -> None:
        side = theme.px(10 if self.narrow else 15)
        left = self.width() - side - theme.px(3 if self.narrow else 10)
        top = theme.px(3) if self.narrow else middle - side // 2
        if self.news == "done":
            self._paint_dot(painter, left + side // 2, top + side // 2)
        elif self.news or self.mark in MARKS:
            name, role = MARKS["problem" if self.news else self.mark]
            theme.icon(name, role).paint(painter, QRect(left, top, side, side))
        elif self.mark == "untouched" and not self.narrow:
            painter.setPen(theme.qcolour("strong_border"))
            dot = theme.px(6)
            painter.drawEllipse(left + (side - dot) // 2, middle - dot // 2, dot, dot)

    def _paint_dot(self, painter: QPainter, across: int, down: int) -> None:
        """Quiet, and unlike the marks of settings."""
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.qcolour("accent"))
        painter.drawEllipse(QPoint(across, down), theme.px(4), theme.px(4))


class Sidebar(QFrame):
    """All pages.

    Signals:
        chosen(key): the user pressed a page.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__(objectName="Sidebar")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(theme.px(8), theme.px(12), theme.px(8), theme.px(8))
        outer.setSpacing(theme.px(8))
        self._sign = QLabel()
        self._sign.setPixmap(icons.app_icon().pixmap(QSize(theme.px(28), theme.px(28))))
        self._name = label("Athanor", "heading")
        top = row(self._sign, self._name, None)
        top.setContentsMargins(theme.px(7), 0, 0, theme.px(4))
        outer.addLayout(top)
        self._narrow: bool | None = None
        self._group = QButtonGroup(self, exclusive=True)
        self.buttons: dict[str, SideButton] = {}
        self._scroll = scroll = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        inside = QWidget(objectName="Column")
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(1))
        self._headings = [label(tr("New run"), "small")]
        self._headings[0].setContentsMargins(theme.px(12), 0, 0, theme.px(2))
        column.addWidget(self._headings[0])
        self._add_buttons(column, WIZARD)
        column.addStretch(1)
        scroll.setWidget(inside)
        outer.addWidget(scroll, 1)
        below = QVBoxLayout()
        below.setSpacing(theme.px(1))
        self._add_buttons(below, BELOW)
        outer.addLayout(below)
        self.set_narrow(False)

    def _add_buttons(self, column: QVBoxLayout, pages: tuple[PageRow, ...]) -> None:
        for page in pages:
            made = SideButton(page)
            made.clicked.connect(lambda _=False, key=page.key: self.chosen.emit(key))
            self._group.addButton(made)
            self.buttons[page.key] = made
            column.addWidget(made)

    def set_current(self, key: str) -> None:
        self.buttons[key].setChecked(True)
        made = self.buttons[key]
        QTimer.singleShot(0, made, lambda: self._scroll.ensureWidgetVisible(made, 0, made.height() // 2))

    def set_marks(self, marks: Mapping[str, str]) -> None:
        for key, mark in marks.items():
            self.buttons[key].set_mark(mark)

    def set_news(self, news: Mapping[str, str]) -> None:
        """What has ended on which page; nothing on the others."""
        for key, made in self.buttons.items():
            made.set_news(news.get(key, ""))

    def set_narrow(self, narrow: bool) -> None:
        """Icons alone, where the window is small or the scale large."""
        if narrow == self._narrow:
            return
        self._narrow = narrow
        self.setFixedWidth(theme.px(NARROW if narrow else WIDTH))
        policy = Qt.ScrollBarPolicy.ScrollBarAlwaysOff if narrow else Qt.ScrollBarPolicy.ScrollBarAsNeeded
        self._scroll.setVerticalScrollBarPolicy(policy)  # a bar would cover the icons; wheel and keys still scroll
        self._name.setVisible(not narrow)
        for heading in self._headings:
            heading.setVisible(not narrow)
        for made in self.buttons.values():
            made.narrow = narrow
            made.updateGeometry()
            made.update()
