"""The form of a tool, made from its declarative description: file fields say what their file is, lists grow, rows that
mean nothing with the other values are hidden, and a name for the output is offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.editors import Editor, LongTextEditor, NumberEditor
from app.form import LABEL_WIDTH, editor_for, problem_text, tooltip_of
from app.i18n import joined, tr, translate_message, translate_trainer
from app.path_editor import PathEditor, choose_path
from app.preferences import Preferences
from app.slices import Pieces
from app.widgets.basics import Fold, accept_paths, button, dropped_paths, label, row, set_flag, tool_button
from app.widgets.model_card import FactsLine
from app.work import Latest
from trainer.config.fields import Info, Section, info_of, item_section, plain_type, settings_of
from trainer.config.problems import read_section
from trainer.errors import Problem
from trainer.messages import Message, say
from trainer.models.header import ModelFacts
from trainer.tools.catalog import Tool

MODELS = " (*.safetensors *.sft *.ckpt *.pt *.pth *.bin)"
Values = Mapping[str, Any]
_NEEDLESS: Mapping[tuple[str, str], Callable[[Values], bool]] = {  # what means nothing with the other values
    ("merge", "amount_c"): lambda values: values["mode"] != "sum" or not values["model_c"],
    ("extract", "amount"): lambda values: values["rule"] == "rank",
    ("resize", "amount"): lambda values: values["rule"] == "rank",
    ("metadata", "overwrite"): lambda values: not values["output"],
}
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
        folders = _KINDS.get(key) in _MAY_BE_FOLDER
        hint = tr("Drop a file or folder here") if folders else tr("Drop a file here")
        self.path = PathEditor(files=True, folders=folders, pattern=tr("Model files") + MODELS, placeholder=hint)
        self.path.field().setAccessibleName(name)
        self.facts = FactsLine(judge_for(key))
        self.facts.found.connect(self.recognised)
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
        self.facts.look(str(self.path.value()))

    def field(self) -> QWidget:
        return self.path.field()

    def take(self, path: str) -> None:
        """Put a dropped file here, as if it had been typed."""
        self.set_value(path)
        self.edited.emit(self.value())

    def _on_edited(self, value: Any) -> None:
        self.facts.look(str(value))
        self.edited.emit(value)


class OutputEditor(PathEditor):
    """A file that is written."""

    def __init__(self, pattern: str) -> None:
        super().__init__(placeholder=tr("Where to write"), pattern=pattern)

    def choose(self, folder: bool | None = None) -> None:
        choose_path(self, self._take, pattern=self._pattern, start=self.value(), save=True, suffix="safetensors")


class LinesEditor(LongTextEditor):
    """Texts, one a line."""

    def __init__(self) -> None:
        super().__init__(lines=3, mono=True)

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
            line = labelled(info, editor, narrow=True)
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

    def take(self, paths: Sequence[str]) -> None:
        """Add files, as if they had been chosen one by one."""
        for path in paths:
            self._add().set_value(path)
        self.edited.emit(self.value())

    def _choose(self) -> None:
        start = str(self.rows[-1].file.value()) if self.rows else ""
        choose_path(self, lambda path: self.take([path]), pattern=tr("Model files") + MODELS, start=start)

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


class Line(QWidget):
    """A setting of a tool: its label, its editor, and what is wrong with it beneath."""

    def __init__(self, key: str, info: Info, editor: Editor) -> None:
        super().__init__()
        self.key, self.editor = key, editor
        self.message = label("", "problem", wrap=True)
        self.message.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(4))
        column.addWidget(labelled(info, editor))
        inset = QHBoxLayout()
        inset.addSpacing(theme.px(LABEL_WIDTH + theme.SPACE))
        inset.addWidget(self.message, 1)
        column.addLayout(inset)

    def show_problem(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.editor.set_state("problem" if text else "")


def labelled(info: Info, editor: Editor, *, narrow: bool = False) -> QWidget:
    """A label and its editor side by side."""
    made = QWidget()
    line = QHBoxLayout(made)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(theme.px(theme.SPACE))
    name = translate_trainer(info.label)
    text = label(name, "small" if narrow else "", wrap=True)
    text.setFixedWidth(theme.px(LABEL_WIDTH))
    text.setContentsMargins(0, theme.px(6), 0, 0)
    text.setBuddy(editor.field())
    for widget in (text, editor.field()):
        widget.setToolTip(tooltip_of(info))
    if not editor.field().accessibleName():
        editor.field().setAccessibleName(name)
    editor.field().setAccessibleDescription(translate_trainer(info.help))
    line.addWidget(text, 0, Qt.AlignmentFlag.AlignTop)
    line.addWidget(editor, 1)
    return made


class ToolForm(QWidget):
    """See the module; `build` makes the rows.

    Signals:
        changed(): something was typed or chosen.
    """

    changed = Signal()

    def __init__(self, tool: Tool, preferences: Preferences, values: Values) -> None:
        """`values`: what was typed before, as `values` gave it."""
        super().__init__()
        self.tool, self._preferences, self._before = tool, preferences, dict(values)
        self.lines: dict[str, Line] = {}
        self.fold: Fold | None = None
        self._offered = str(values.get("output") or "")  # a name that nobody typed
        self._output_is_ours = "output" not in values or values.get("output.offered") == values.get("output")
        self._offers = Latest(self, self._take_offer)
        self._has_tried = False  # what is missing is said after the first try
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(theme.px(1.5 * theme.SPACE))

    def build(self) -> Pieces:
        more = [key for key, _, info in settings_of(self.tool.settings) if info.level == "advanced"]
        for key, field, info in settings_of(self.tool.settings):
            editor = self._editor(key, field, info)
            editor.set_value(self._before.get(key, field.get_default()))
            editor.edited.connect(lambda _, key=key: self._on_edited(key))
            line = Line(key, info, editor)
            self.lines[key] = line
            if key not in more:
                self._column.addWidget(line)
            else:
                self._fold(more).body.addWidget(line)
            yield
        if self.fold is not None:
            self._column.addWidget(self.fold)
        self._show_needed()

    def _fold(self, more: Sequence[str]) -> Fold:
        if self.fold is None:
            title = tr("More settings ({count})", count=len(more))
            self.fold = Fold(title, f"more.tool.{self.tool.name}", self._preferences)
        return self.fold

    def _editor(self, key: str, field: Any, info: Info) -> Editor:
        name = translate_trainer(info.label)
        item = item_section(field)
        if item is not None:
            return EntriesEditor(item, translate_trainer(info_of(item.model_fields["path"]).label), tr("Add a LoRA…"))
        if plain_type(field) is tuple:
            return EntriesEditor(None, name, tr("Add a file…")) if key == "files" else LinesEditor()
        if key == "output":
            return OutputEditor(tr("Model files") + MODELS)
        if info.widget == "file":
            return FileEditor(key, name)
        return editor_for(key, field, info)

    # ---- values ----

    def values(self) -> dict[str, Any]:
        """What is typed now; may not be valid yet."""
        return {key: line.editor.value() for key, line in self.lines.items()}

    def remembered(self) -> dict[str, Any]:
        """What a form that is built anew needs to look like this one."""
        return {**self.values(), **({"output.offered": self._offered} if self._output_is_ours else {})}

    def settings(self) -> Section | None:
        """The settings; None if something is missing or wrong, which is then said under its field, the first focused."""
        self._has_tried = True
        settings, problems = self._problems()
        self._show_problems(problems)
        if problems:
            self._reveal(problems[0].place)
            return None
        return settings

    def _problems(self) -> tuple[Section, list[Problem]]:
        values = {key: value for key, value in self.values().items() if not self._is_needless(key)}
        settings, problems = read_section(self.tool.settings, values, "")
        problems = [
            Problem(problem.place.lstrip("."), problem.what, problem.todo, problem.value) for problem in problems
        ]
        wrong = {problem.place for problem in problems}
        return settings, problems + [lack for lack in self.tool.missing(settings) if lack.place not in wrong]

    def _is_needless(self, key: str) -> bool:
        rule = _NEEDLESS.get((self.tool.name, key))
        return rule is not None and rule(self.values())

    # ---- what the form shows ----

    def _on_edited(self, key: str) -> None:
        if key == "output":
            self._output_is_ours = not self.lines["output"].editor.value()
        self._show_needed()
        if self._has_tried:
            self._show_problems(self._problems()[1])
        self._offer_output()
        self.changed.emit()

    def _show_needed(self) -> None:
        for key, line in self.lines.items():
            if (self.tool.name, key) in _NEEDLESS:
                line.setVisible(not self._is_needless(key))

    def _show_problems(self, problems: Sequence[Problem]) -> None:
        for key, line in self.lines.items():
            mine = [problem for problem in problems if problem.place.partition("[")[0].partition(".")[0] == key]
            line.show_problem("\n".join(problem_text(problem) for problem in mine[:2]))

    def _reveal(self, place: str) -> None:
        key = place.partition("[")[0].partition(".")[0]
        line = self.lines.get(key)
        if line is None:
            return
        if self.fold is not None and self.fold.isAncestorOf(line):
            self.fold.set_open(True)
        QTimer.singleShot(0, line, lambda: line.editor.field().setFocus(Qt.FocusReason.OtherFocusReason))

    def take_files(self, paths: Sequence[str]) -> None:
        """Files dropped on the page: into the first fields that are empty, or into the list."""
        left = [str(Path(path)) for path in paths]
        for line in self.lines.values():
            editor = line.editor
            if isinstance(editor, EntriesEditor) and left:
                editor.take(left)
                return
            if left and isinstance(editor, FileEditor) and not editor.value() and line.isVisibleTo(self):
                editor.take(left.pop(0))

    # ---- a name for the output ----

    def _offer_output(self) -> None:
        if "output" not in self.tool.needed or not self._output_is_ours:
            return
        wanted = suggested_output(self.tool.name, self.values())
        if wanted is not None:
            self._offers.ask(lambda: free_name(wanted))

    def _take_offer(self, path: Path) -> None:
        if self._output_is_ours:
            self._offered = str(path)
            self.lines["output"].editor.set_value(self._offered)


def suggested_output(tool: str, values: Values) -> Path | None:
    """A name for what a tool makes, beside what it is made of; None while that is not chosen."""
    loras = [Path(str(entry.get("path"))) for entry in values.get("loras", ()) if entry.get("path")]
    sources = [values.get(key) for key in ("model", "model_a", "tuned", "lora") if values.get(key)]
    source = Path(str(sources[0])) if sources else loras[0] if loras else None
    if source is None or (tool == "join" and len(loras) < 2) or (tool == "bake" and not loras):
        return None
    stem = (
        source.stem
        if source.suffix.lower() in (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")
        else source.name
    )
    endings: Mapping[str, Callable[[], str]] = {
        "convert": lambda: "" if values.get("precision") in ("keep", None) else f"-{values['precision']}",
        "merge": lambda: f"+{Path(str(values.get('model_b') or '')).stem}",
        "bake": lambda: "".join(f"+{lora.stem}" for lora in loras),
        "join": lambda: "".join(f"+{lora.stem}" for lora in loras[1:]),
        "extract": lambda: "-lora",
        "resize": lambda: f"-r{values.get('rank')}" if values.get("rule") == "rank" else "-resized",
    }
    return source.with_name(f"{stem}{endings[tool]()}.safetensors") if tool in endings else None


def free_name(path: Path) -> Path:
    """The path, or one with a number behind its stem if something lies there. Asks the disk: not on the window's thread."""
    number, found = 2, path
    try:
        while found.exists() and number < 1000:
            found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    except OSError:
        return path
    return found


def tool_words(tool: Tool) -> tuple[str, str]:
    """A tool's title and what it does, in the window's language."""
    return translate_message(tool.title), translate_message(tool.summary)


def job_subject(values: Values) -> str:
    """The files that a job is about, by their names."""
    keys = ("model", "model_a", "base", "lora", "file")
    names = [Path(str(values[key])).name for key in keys if values.get(key)]
    names += [Path(str(path)).name for path in values.get("files", ())]
    names += [Path(str(entry.get("path"))).name for entry in values.get("loras", ()) if entry.get("path")]
    target = Path(str(values["output"])).name if values.get("output") else ""
    return joined(", ".join(names[:3]), f"→ {target}" if target else "")
