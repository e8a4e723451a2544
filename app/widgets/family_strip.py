"""A strip that says which settings a newly chosen base model has changed, from what to what, with the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.family_defaults import PROMPTS, Change, FamilyDefaults
from app.form import shown_value
from app.i18n import tr, translate_message, translate_trainer
from app.places import parts_of, setting_at
from app.widgets.basics import SEVERITY_ICONS, button, clear, label, row, tool_button
from trainer.config.run import sections
from trainer.models.header import FAMILY_TITLES


class FamilyStrip(QFrame):
    """See the module; hidden while there is nothing to say."""

    def __init__(self, defaults: FamilyDefaults) -> None:
        super().__init__(objectName="Banner")
        self.setProperty("severity", "info")
        self._defaults = defaults
        line = QHBoxLayout(self)
        line.setContentsMargins(theme.px(12), theme.px(8), theme.px(8), theme.px(8))
        line.setSpacing(theme.px(10))
        sign = QLabel()
        sign.setPixmap(theme.pixmap(SEVERITY_ICONS["info"], "info", 18))
        line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        column.setSpacing(theme.px(6))
        self.heading = label("", wrap=True)
        column.addWidget(self.heading)
        self.taken = _Table()
        column.addWidget(self.taken)
        self.kept_heading = label("", "muted", wrap=True)
        column.addWidget(self.kept_heading)
        self.kept = _Table()
        column.addWidget(self.kept)
        self.undo = button(tr("Undo these changes"), defaults.undo, icon="undo-2")
        self.take = button(tr("Take these over too"), defaults.take_rest)
        column.addSpacing(theme.px(4))
        column.addLayout(row(self.undo, self.take, None))
        line.addLayout(column, 1)
        line.addWidget(tool_button("x", tr("Close"), defaults.dismiss, role="muted"), 0, Qt.AlignmentFlag.AlignTop)
        defaults.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what was taken over, and what was left as the user has it."""
        taken, kept, facts = self._defaults.taken, self._defaults.kept, self._defaults.facts
        self.setVisible(bool(facts and (taken or kept)))
        if facts is None:
            return
        family = FAMILY_TITLES.get(facts.family or "", "")
        self.heading.setText(tr("Set as {family} models want it:", family=family))
        self.kept_heading.setText(tr("Left as you set it, though {family} models usually want:", family=family))
        for widgets, changes in (
            ((self.heading, self.taken, self.undo), taken),
            ((self.kept_heading, self.kept, self.take), kept),
        ):
            for widget in widgets:
                widget.setVisible(bool(changes))
        self.taken.show_changes(taken)
        self.kept.show_changes(kept)


class _Table(QWidget):
    """Settings with their old and their new value."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme.px(16))
        self._grid.setVerticalSpacing(theme.px(3))
        self._grid.setColumnStretch(1, 2)
        self._grid.setColumnStretch(2, 3)
        self.texts: list[str] = []

    def show_changes(self, changes: Sequence[Change]) -> None:
        clear(self._grid)
        self.texts = []
        said = ""
        for number, change in enumerate(changes):
            name, old, new = change_words(change)
            self.texts.append(f"{name}: {old} → {new}")
            reason = translate_message(change.why)
            why = label(reason if reason != said else "", "small", wrap=True)
            said = reason
            self._grid.addWidget(label(name), number, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(label(f"{old} → {new}", "accent", wrap=True), number, 1, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(why, number, 2, Qt.AlignmentFlag.AlignTop)


def change_words(change: Change) -> tuple[str, str, str]:
    """The setting's label, its old value and its new one, as the form shows them."""
    found = setting_at(change.place, sections())
    assert found is not None, f"no setting at {change.place}"
    info = found[1]

    def words(value: Any) -> str:
        chosen = next((choice.label for choice in info.choices if choice.value == value), None)
        return translate_trainer(chosen) if chosen is not None else shown_value(value)

    name = translate_trainer(info.label)
    if change.place.startswith(PROMPTS):
        number = int(parts_of(change.place)[2]) + 1
        name = tr("Preview {number}: {setting}", number=number, setting=name)
    return name, words(change.old), words(change.new)
