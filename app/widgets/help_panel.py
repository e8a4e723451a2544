"""The help panel: the focused setting in two or three sentences, what it costs, its choices, and the page's advice."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.form import Row, shown_value
from app.i18n import tr, translate_trainer
from app.widgets.basics import clear, label, row, rule, tool_button

WIDTH = 288


class HelpPanel(QFrame):
    """See the module.

    Signals:
        closed(): its fold button was pressed.
    """

    closed = Signal()

    def __init__(self) -> None:
        super().__init__(objectName="HelpPanel")
        self.setFixedWidth(theme.px(WIDTH))
        outer = QVBoxLayout(self)
        outer.setContentsMargins(theme.px(16), theme.px(12), theme.px(8), theme.px(12))
        close = tool_button("x", tr("Fold the help away (F1)"), self.closed.emit, role="muted")
        outer.addLayout(row(label(tr("Help"), "heading"), None, close))
        scroll = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        inside = QWidget(objectName="Column")
        holder = QVBoxLayout(inside)
        holder.setContentsMargins(0, 0, theme.px(8), 0)
        self._column = QVBoxLayout()
        self._column.setSpacing(theme.px(10))
        holder.addLayout(self._column)
        holder.addStretch(1)
        scroll.setWidget(inside)
        outer.addWidget(scroll, 1)
        self._advice: Sequence[str] = ()
        self._row: Row | None = None
        self.place = ""

    def set_page(self, advice: Sequence[str]) -> None:
        """Another page is shown: its advice, and no setting yet."""
        self._advice, self._row, self.place = advice, None, ""
        self._show()

    def set_row(self, row_: Row) -> None:
        """Explain a setting."""
        if row_.place != self.place:
            self._row, self.place = row_, row_.place
            self._show()

    def _show(self) -> None:
        clear(self._column)
        if self._row is not None:
            self._explain(self._row)
        if self._advice:
            if self._row is not None:
                self._column.addWidget(rule())
            self._column.addWidget(label(tr("Good to know"), "small"))
            for sentence in self._advice:
                self._column.addWidget(_with_icon("lightbulb", "accent", sentence))
        if self._row is None and not self._advice:
            self._column.addWidget(label(tr("Press a setting to see what it does."), "muted", wrap=True))

    def _explain(self, row_: Row) -> None:
        info = row_.info
        self._column.addWidget(label(translate_trainer(info.label), "heading", wrap=True))
        self._column.addWidget(label(translate_trainer(info.help), wrap=True))
        if info.costs:
            self._column.addWidget(_with_icon("timer", "muted", translate_trainer(info.costs)))
        for choice in info.choices:
            if choice.help and choice.label:
                self._column.addWidget(label(translate_trainer(choice.label), "accent"))
                self._column.addWidget(label(translate_trainer(choice.help), "muted", wrap=True))
        default = shown_value(row_.draft.default(row_.place))
        self._column.addWidget(label(tr("Preset: {value}", value=default), "small", wrap=True))
        names = ", ".join((row_.place, *info.kohya))
        self._column.addWidget(label(tr("In files: {names}", names=_breakable(names)), "small", wrap=True))


def _breakable(names: str) -> str:
    """Long names may break at their underscores and dots."""
    return names.replace("_", "_\u200b").replace(".", ".\u200b")


def _with_icon(icon: str, role: str, sentence: str) -> QWidget:
    made = QWidget()
    line = QHBoxLayout(made)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(theme.px(8))
    sign = QLabel()
    sign.setPixmap(theme.pixmap(icon, role, 16))
    line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
    line.addWidget(label(sentence, "muted", wrap=True), 1)
    return made
