"""Editors of the tools' forms: files that say what they are, files to write, lists of files with their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.editors import Editor, LongTextEditor, NumberEditor
from app.form import editor_for, tooltip_of
from app.i18n import tr, translate_trainer
from app.path_editor import PathEditor, choose_path, model_files
from app.widgets.basics import accept_paths, button, dropped_paths, label, row, set_flag, tool_button
from app.widgets.model_card import FactsLine
from app.widgets.named import Named
from trainer.config.fields import Info, Section, settings_of
from trainer.messages import Message, say
from trainer.models.header import ModelFacts

NARROW_WIDTH = 112  # of labels within a list
_KINDS: Mapping[str, str] = {  # what sort of file a setting wants, where the tool has not any file in mind
    "model": "base", "model_a": "base", "model_b": "base", "model_c": "base", "base": "base", "tuned": "base",
    "lora": "lora", "path": "lora", "vae": "vae",
}  # fmt: skip
_MAY_BE_FOLDER = ("base", "vae")


def judge_for(key: str) -> Callable[[ModelFacts], Message | None]:
    """Why a file is not what a setting wants, as a function of its facts."""
    wanted = _KINDS.get(key, "")

    def judge(facts: ModelFacts) -> Message | None:
        if facts.kind in ("missing", "broken"):
            return facts.problem or facts.summary
        if wanted == "base" and facts.kind != "base":
            return say("{summary} A base model (checkpoint) is needed here.", summary=facts.summary)
        if wanted == "lora" and facts.kind != "lora":
            return say("A LoRA is needed here. {summary}", summary=facts.summary)
        if wanted == "vae" and "vae" not in facts.parts:
            return say("A VAE is needed here. {summary}", summary=facts.summary)
        return None

    return judge


class FileEditor(Editor):
    """A file that is read: a path, and beneath it what lies there.

    Signals:
        recognised(facts): what lies at the path, as soon as it is known.
    """

    recognised = Signal(object)

    def __init__(self, key: str, name: str) -> None:
        super().__init__()
        self.kind = _KINDS.get(key, "")  # of the files that are wanted; "" for any
        self._judge = judge_for(key)
        self._state, self._found_state = "", ""
        folders = self.kind in _MAY_BE_FOLDER
        hint = tr("Drop a file or folder here") if folders else tr("Drop a file here")
        self.path = PathEditor(files=True, folders=folders, pattern=model_files(), placeholder=hint)
        self.path.field().setAccessibleName(name)
        self.facts = FactsLine(self._judge)
        self.facts.found.connect(self._on_found)
        self.path.edited.connect(self._on_edited)
        column = QVBoxLayout()
        column.setSpacing(theme.px(4))
        column.addWidget(self.path)
        column.addWidget(self.facts)
        self.line.addLayout(column, 1)

    def value(self) -> Any:
        return self.path.value()

    def set_value(self, value: Any) -> None:
        self.path.set_value(value)
        self._look()

    def field(self) -> QWidget:
        return self.path.field()

    def set_state(self, state: str) -> None:
        """What is typed may be wrong, or what lies there."""
        self._state = state
        super().set_state(state or self._found_state)

    def _on_found(self, facts: ModelFacts) -> None:
        self._found_state = "good" if self.fits(facts) else "problem"
        self.set_state(self._state)
        self.recognised.emit(facts)

    def fits(self, facts: ModelFacts) -> bool:
        """Whether such a file is wanted here."""
        return self._judge(facts) is None

    def take(self, path: str) -> None:
        """Put a dropped file here, as if it had been typed."""
        self.set_value(path)
        self.edited.emit(self.value())

    def _on_edited(self, value: Any) -> None:
        self._look()
        self.edited.emit(value)

    def _look(self) -> None:
        path = str(self.path.value())
        self.facts.look(path)
        if not path:
            self._found_state = ""
            self.set_state(self._state)


class OutputEditor(PathEditor):
    """A file that is written."""

    def __init__(self, pattern: str) -> None:
        super().__init__(placeholder=tr("Where to write"), pattern=pattern)

    def choose(self, folder: bool | None = None) -> None:
        choose_path(self, self._take, pattern=self._pattern, start=self.value(), save=True, suffix="safetensors")


class LinesEditor(LongTextEditor):
    """Texts, one a line."""

    def __init__(self, hint: str) -> None:
        super().__init__(lines=3, mono=True)
        self.edit.setPlaceholderText(hint)

    def value(self) -> Any:
        return [line.strip() for line in self.edit.toPlainText().splitlines() if line.strip()]

    def set_value(self, value: Any) -> None:
        super().set_value("\n".join(map(str, value or ())))


class EntryRow(QWidget):
    """An entry of a list of files: the file, its numbers (the first at once, the others unfolded), and its way out.

    Signals:
        edited(), removed()
    """

    edited = Signal()
    removed = Signal()

    def __init__(self, section: type[Section] | None, key: str, name: str) -> None:
        """`section`: of an entry with more than its path."""
        super().__init__()
        self._path_key = key
        self.file = FileEditor(key, name)
        self.numbers: dict[str, NumberEditor] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(4))
        away = tool_button("x", tr("Take out"), self.removed.emit, role="muted")
        first = QHBoxLayout()
        first.addWidget(self.file, 1)
        first.addWidget(away, 0, Qt.AlignmentFlag.AlignTop)
        column.addLayout(first)
        self.file.edited.connect(lambda _: self.edited.emit())
        if section is not None:
            self._add_numbers(column, section)

    def _add_numbers(self, column: QVBoxLayout, section: type[Section]) -> None:
        keys = [key for key, _, _ in settings_of(section)][1:]
        self._rest = QWidget()
        rest = QVBoxLayout(self._rest)
        rest.setContentsMargins(0, 0, 0, 0)
        rest.setSpacing(theme.px(4))
        for key, field, info in settings_of(section):
            if key not in keys:
                continue
            editor = editor_for(key, field, info)
            assert isinstance(editor, NumberEditor)
            editor.set_value(field.get_default())
            editor.edited.connect(lambda _: self.edited.emit())
            self.numbers[key] = editor
            line = Named()
            line.put(label_of(info, editor, "small"), editor, NARROW_WIDTH)
            (column if key == keys[0] else rest).addWidget(line)
        self._unfold = button(tr("Own weights for the parts"), self._show_rest, role="link")
        column.addWidget(self._unfold, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self._rest)
        self._rest.hide()

    def _show_rest(self) -> None:
        self._unfold.hide()
        self._rest.show()

    def value(self) -> Any:
        path = self.file.value()
        if not self.numbers:
            return path
        return {self._path_key: path, **{key: editor.value() for key, editor in self.numbers.items()}}

    def set_value(self, value: Any) -> None:
        table = value if isinstance(value, dict) else {self._path_key: value}
        self.file.set_value(table.get(self._path_key, ""))
        for key, editor in self.numbers.items():
            if key in table:
                editor.set_value(table[key])
        if self.numbers and any(table.get(key) is not None for key in list(self.numbers)[1:]):
            self._show_rest()


class EntriesEditor(Editor):
    """A list of files, with their numbers if they have any; several may be dropped at once."""

    def __init__(self, section: type[Section] | None, name: str, add_text: str) -> None:
        super().__init__()
        self._section, self._name = section, name
        self._key = next(iter(settings_of(section)))[0] if section is not None else "files"
        self.kind = _KINDS.get(self._key, "")
        self.rows: list[EntryRow] = []
        column = QVBoxLayout()
        column.setSpacing(theme.px(theme.SPACE))
        self._column = QVBoxLayout()
        self._column.setSpacing(theme.px(theme.SPACE))
        column.addLayout(self._column)
        self.add_button = button(add_text, self._choose, icon="plus")
        column.addLayout(row(self.add_button, None))
        self.line.addLayout(column, 1)
        self.setAcceptDrops(True)

    def value(self) -> Any:
        return [made.value() for made in self.rows]

    def set_value(self, value: Any) -> None:
        entries = [_plain_entry(entry) for entry in value or ()]
        if entries == self.value():
            return
        for made in list(self.rows):
            self._drop(made)
        for entry in entries:
            self._add().set_value(entry)

    def field(self) -> QWidget:
        return self.rows[0].file.field() if self.rows else self.add_button

    def fits(self, facts: ModelFacts) -> bool:
        """Whether such a file is wanted here."""
        return judge_for(self._key)(facts) is None

    def take(self, paths: Sequence[str] | str) -> None:
        """Add files, as if they had been chosen one by one."""
        for path in [paths] if isinstance(paths, str) else paths:
            self._add().set_value(path)
        self.edited.emit(self.value())

    def _choose(self) -> None:
        start = str(self.rows[-1].file.value()) if self.rows else ""
        choose_path(self, lambda path: self.take([path]), pattern=model_files(), start=start)

    def _add(self) -> EntryRow:
        name = f"{self._name} {len(self.rows) + 1}"
        made = EntryRow(self._section, self._key, name)
        made.edited.connect(lambda: self.edited.emit(self.value()))
        made.removed.connect(lambda: self._remove(made))
        self.rows.append(made)
        self._column.addWidget(made)
        return made

    def _remove(self, made: EntryRow) -> None:
        self._drop(made)
        self.edited.emit(self.value())

    def _drop(self, made: EntryRow) -> None:
        self.rows.remove(made)
        made.hide()
        made.deleteLater()

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", accept_paths(event))

    def dragLeaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)
        self.take([str(Path(path)) for path in dropped_paths(event)])
        event.acceptProposedAction()


def _plain_entry(entry: Any) -> Any:
    return entry.model_dump() if isinstance(entry, Section) else entry


def label_of(info: Info, editor: Editor, role: str = "") -> QLabel:
    """A setting's label, which belongs to its editor."""
    name = translate_trainer(info.label)
    text = label(name, role, wrap=True)
    text.setBuddy(editor.field())
    for widget in (text, editor.field()):
        widget.setToolTip(tooltip_of(info))
    if not editor.field().accessibleName():
        editor.field().setAccessibleName(name)
    editor.field().setAccessibleDescription(translate_trainer(info.help))
    return text
