"""A form for a section of the schema that is no part of the draft, such as a captioner's settings."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.editors import Editor, TextEditor
from app.form import editor_for, tooltip_of
from app.i18n import tr, translate_trainer
from app.preferences import Preferences
from app.widgets.basics import Fold, label
from app.widgets.named import Named
from trainer.config.fields import Section, settings_of
from trainer.config.problems import read_section
from trainer.errors import Problem


class WordsEditor(TextEditor):
    """Words separated by commas."""

    def value(self) -> Any:
        return [part.strip() for part in self.edit.text().split(",") if part.strip()]

    def set_value(self, value: Any) -> None:
        if list(value or ()) != self.value():
            self.edit.setText(", ".join(value or ()))


class SectionForm(QWidget):
    """See the module.

    Signals:
        changed()
    """

    changed = Signal()

    def __init__(self, section: type[Section], name: str, preferences: Preferences) -> None:
        super().__init__()
        self._section = section
        self._editors: dict[str, Editor] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(1.5 * theme.SPACE))
        more = [key for key, _, info in settings_of(section) if info.level == "advanced"]
        fold = Fold(tr("More settings ({count})", count=len(more)), f"more.{name}", preferences) if more else None
        for key, field, info in settings_of(section):
            editor = WordsEditor() if info.widget == "list" else editor_for(key, field, info)
            editor.set_value(field.get_default())
            editor.edited.connect(lambda _: self.changed.emit())
            self._editors[key] = editor
            line = _line(translate_trainer(info.label), editor, tooltip_of(info))
            (fold.body if fold is not None and key in more else column).addWidget(line)
        if fold is not None:
            column.addWidget(fold)

    def editor(self, key: str) -> Editor:
        return self._editors[key]

    def values(self) -> dict[str, Any]:
        """What is typed now; may not be valid yet."""
        return {key: editor.value() for key, editor in self._editors.items()}

    def settings(self) -> tuple[Section, list[Problem]]:
        """The settings, with defaults in place of what is wrong, and what that is."""
        return read_section(self._section, self.values(), "")

    def name_of(self, problem: Problem) -> str:
        """What the setting of a problem is called."""
        key = problem.place.rpartition(".")[2]
        return next((translate_trainer(info.label) for name, _, info in settings_of(self._section) if name == key), key)


def _line(name: str, editor: Editor, tip: str) -> QWidget:
    made = Named()
    text = label(name, wrap=True)
    text.setBuddy(editor.field())
    for widget in (text, editor.field()):
        widget.setToolTip(tip)
    editor.field().setAccessibleName(name)
    made.put(text, editor)
    return made
