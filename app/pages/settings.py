"""The window's own settings: language, theme, scale, and where things lie."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QComboBox, QWidget

from app import i18n, theme
from app.editors import ComboBox
from app.i18n import tr
from app.pages.base import Context, Page
from app.slices import Pieces
from app.widgets.basics import Card, ElidedLabel, button, label, row
from app.widgets.named import Named
from trainer.paths import cache_folder, default_runs_folder, user_folder


class SettingsPage(Page):
    """See the module. A change holds at once."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, tr("Settings"), tr("Of this window. They hold at once and touch no run."))

    def build(self) -> Pieces:
        card = Card()
        languages = [("", tr("As the system")), *i18n.LANGUAGES.items()]
        themes = [("system", tr("As the system")), ("light", tr("Light")), ("dark", tr("Dark"))]
        scales = [(scale, f"{scale} %") for scale in theme.SCALES]
        self.language = self._choice(card, tr("Language"), "language", languages)
        self.theme = self._choice(card, tr("Theme"), "theme", themes)
        self.scale = self._choice(card, tr("Size"), "scale", scales)
        self.add(card)
        yield
        self.add(self._folders())

    def _choice(self, card: Card, name: str, key: str, choices: list[Any]) -> QComboBox:
        box = ComboBox(sizeAdjustPolicy=QComboBox.SizeAdjustPolicy.AdjustToContents, accessibleName=name)
        box.setMinimumWidth(theme.px(200))
        for value, text in choices:
            box.addItem(text, value)
        box.setCurrentIndex(max(0, box.findData(self.preferences.get(key))))
        box.activated.connect(lambda _: self._take(key, box.currentData()))
        card.add(_line(name, box))
        return box

    def _take(self, key: str, value: object) -> None:
        if value != self.preferences.get(key):
            self.preferences.set(key, value)
            QTimer.singleShot(0, self.context.draft, lambda: self.context.rebuild())

    def _folders(self) -> Card:
        card = Card(tr("Folders"), tr("ATHANOR_HOME moves the first one, and with it the others."))
        for name, folder in (
            (tr("Drafts and preferences"), user_folder()),
            (tr("Runs without an output folder"), default_runs_folder()),
            (tr("Cache"), cache_folder()),
        ):
            path = ElidedLabel(str(folder), "muted")
            url = QUrl.fromLocalFile(str(folder))
            show = button(tr("Open"), partial(QDesktopServices.openUrl, url), role="flat", icon="external-link")
            show.setAccessibleName(f"{tr('Open')}: {name}")
            card.add(_line(name, path, show))
        return card


def _line(name: str, widget: QWidget, *others: QWidget) -> QWidget:
    """A name and what it names, at its own width if it is a choice."""
    made = Named()
    text = label(name, wrap=True)
    text.setBuddy(widget)
    line = row(widget, *others, *((None,) if isinstance(widget, QComboBox) else ()))
    line.setStretch(0, 0 if isinstance(widget, QComboBox) else 1)
    made.put(text, line)
    return made
