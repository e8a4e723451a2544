"""Edit the preview prompts of a run that is at work; the worker takes the new list for its next pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.i18n import tr, translate_trainer
from app.pages.base import BannerPlace
from app.widgets.basics import button, label, row
from trainer.config.fields import plain_type, settings_of
from trainer.config.run import Prompt


class PromptsDialog(QDialog):
    """A table: a line for each prompt, a column for each setting of it.

    Signals:
        accepted_prompts(tuple of dict): the new list, checked.
    """

    accepted_prompts = Signal(object)

    def __init__(self, parent: QWidget, prompts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Preview prompts"))
        self.resize(theme.px(860), theme.px(360))
        self._settings = [(key, plain_type(field), info) for key, field, info in settings_of(Prompt)]
        self.table = QTableWidget(0, len(self._settings))
        self.table.setAccessibleName(tr("Preview prompts"))
        self.table.setHorizontalHeaderLabels([translate_trainer(info.label) for _, _, info in self._settings])
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        for stretched in (0, 1):
            header.setSectionResizeMode(stretched, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().setDefaultSectionSize(theme.px(32))
        self.banner = BannerPlace()
        add = button(tr("Add a prompt"), lambda: self.add({}), icon="plus")
        remove = button(tr("Remove"), self._remove, icon="trash-2")
        self.use = button(tr("Use from now on"), self.submit, role="primary")
        column = QVBoxLayout(self)
        column.addWidget(label(tr("The next previews are drawn with this list; pictures drawn before stay."), "muted"))
        column.addWidget(self.banner)
        column.addWidget(self.table, 1)
        column.addLayout(row(add, remove, None, button(tr("Cancel"), self.reject), self.use))
        for prompt in prompts:
            self.add(prompt)

    def add(self, prompt: Mapping[str, Any]) -> None:
        """Add a line; what `prompt` does not name gets its default."""
        defaults = Prompt().model_dump() | dict(prompt)
        line = self.table.rowCount()
        self.table.insertRow(line)
        for column, (key, _, _) in enumerate(self._settings):
            self.table.setItem(line, column, QTableWidgetItem(str(defaults[key])))

    def submit(self) -> None:
        """Check all lines; if they are right, give them away and close."""
        prompts: list[dict[str, Any]] = []
        for line in range(self.table.rowCount()):
            try:
                prompts.append(Prompt(**self._values(line)).model_dump())
            except (ValidationError, ValueError) as error:
                self.banner.show_banner(self._complaint(line, error), "problem")
                return
        self.accepted_prompts.emit(tuple(prompts))
        self.accept()

    def _values(self, line: int) -> dict[str, Any]:
        """The values of a line in their types. Raises ValueError for a number or choice that is none."""
        found: dict[str, Any] = {}
        for column, (key, kind, info) in enumerate(self._settings):
            item = self.table.item(line, column)
            text = item.text().strip() if item is not None else ""
            try:
                found[key] = kind(text)
            except ValueError:
                raise ValueError(text) from None
            if info.choices and found[key] not in [choice.value for choice in info.choices]:
                raise ValueError(text)
        return found

    def _complaint(self, line: int, error: ValueError) -> str:
        if not isinstance(error, ValidationError):
            return tr("Line {line}: {value} is not possible.", line=line + 1, value=str(error))
        first = error.errors()[0]
        names = {key: translate_trainer(info.label) for key, _, info in self._settings}
        name = names.get(str(first["loc"][0]), "") if first["loc"] else ""
        return tr("Line {line}, {setting}: {value} is not possible.", line=line + 1, setting=name, value=str(first["input"]))

    def _remove(self) -> None:
        lines = sorted({index.row() for index in self.table.selectedIndexes()}, reverse=True)
        for line in lines or [self.table.rowCount() - 1][: self.table.rowCount()]:
            self.table.removeRow(line)
