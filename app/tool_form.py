"""The form of a tool, made from its declarative description: file fields say what their file is, lists grow, rows that
mean nothing with the other values are hidden, and a name for the output is offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.editors import Editor
from app.form import editor_for, problem_text
from app.i18n import tr, translate_message, translate_trainer
from app.path_editor import model_files
from app.preferences import Preferences
from app.slices import Pieces
from app.tool_editors import EntriesEditor, FileEditor, LinesEditor, OutputEditor, label_of
from app.widgets.basics import Fold, label
from app.widgets.named import Named
from app.work import Latest, run
from trainer.config.fields import Info, Section, info_of, item_section, plain_type, settings_of
from trainer.config.problems import read_section
from trainer.errors import Problem
from trainer.models.header import ModelFacts, inspect_file
from trainer.tools.catalog import Tool

Values = Mapping[str, Any]
_NEEDLESS: Mapping[tuple[str, str], Callable[[Values], bool]] = {  # what means nothing with the other values
    ("merge", "amount_c"): lambda values: values["mode"] != "sum" or not values["model_c"],
    ("extract", "amount"): lambda values: values["rule"] == "rank",
    ("resize", "amount"): lambda values: values["rule"] == "rank",
    ("metadata", "overwrite"): lambda values: not values["output"],
}


class Line(Named):
    """A setting of a tool: its label, its editor, and what is wrong with it beneath."""

    def __init__(self, key: str, info: Info, editor: Editor) -> None:
        super().__init__()
        self.key, self.editor = key, editor
        self.message = label("", "problem", wrap=True)
        self.message.hide()
        column = QVBoxLayout()
        column.setSpacing(theme.px(4))
        column.addWidget(editor)
        column.addWidget(self.message)
        self.put(label_of(info, editor), column)

    def show_problem(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.editor.set_state("problem" if text else "")


class ToolForm(QWidget):
    """See the module; `build` makes the rows.

    Signals:
        changed(): something was typed or chosen.
    """

    changed = Signal()

    def __init__(
        self, tool: Tool, preferences: Preferences, values: Values, to_come: Callable[[], frozenset[Path]]
    ) -> None:
        """`values`: what was typed before, as `values` gave it; `to_come()`: files that will be there soon."""
        super().__init__()
        self._to_come = to_come
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
        name, hint = translate_trainer(info.label), translate_trainer(info.help)
        item = item_section(field)
        if item is not None:
            return EntriesEditor(item, translate_trainer(info_of(item.model_fields["path"]).label), tr("Add a LoRA…"))
        if plain_type(field) is tuple:
            return EntriesEditor(None, name, tr("Add a file…")) if key == "files" else LinesEditor(hint)
        if key == "output":
            return OutputEditor(model_files())
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
        self.offer_output()
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
        """Files dropped on the page: each goes where its kind is wanted, as soon as it is known what it is."""
        given = [str(Path(path)) for path in paths]
        run(self, lambda: [(path, inspect_file(path)) for path in given], self._place_files)

    def _place_files(self, files: Sequence[tuple[str, ModelFacts]]) -> None:
        for path, facts in files:
            editor = self._place_for(facts)
            if editor is not None:
                editor.take(path)

    def _place_for(self, facts: ModelFacts) -> FileEditor | EntriesEditor | None:
        """The field for a file: one that wants its kind before others, an empty one before a list, a full one last."""
        found = [line.editor for line in self.lines.values() if line.isVisibleTo(self)]
        editors = [editor for editor in found if isinstance(editor, FileEditor | EntriesEditor)]

        def rank(editor: FileEditor | EntriesEditor) -> tuple[bool, bool, int]:
            is_full = isinstance(editor, FileEditor) and bool(editor.value())
            order = 2 if is_full else 1 if isinstance(editor, EntriesEditor) else 0
            return editor.kind not in ("", facts.kind), not editor.fits(facts), order

        return min(editors, key=rank, default=None)

    # ---- a name for the output ----

    def offer_output(self) -> None:
        """Write a free name for the output into its field, unless somebody has typed one."""
        if "output" not in self.tool.needed or not self._output_is_ours:
            return
        wanted = suggested_output(self.tool.name, self.values())
        if wanted is not None:
            to_come = self._to_come()
            self._offers.ask(lambda: free_name(wanted, to_come))

    def _take_offer(self, path: Path) -> None:
        if self._output_is_ours:
            self._offered = str(path)
            self.lines["output"].editor.set_value(self._offered)
            if self._has_tried:
                self._show_problems(self._problems()[1])


def suggested_output(tool: str, values: Values) -> Path | None:
    """A name for what a tool makes, beside what it is made of; None while that is not chosen."""
    loras = [Path(str(entry.get("path"))) for entry in values.get("loras", ()) if entry.get("path")]
    sources = [values.get(key) for key in ("model", "model_a", "tuned", "lora") if values.get(key)]
    source = Path(str(sources[0])) if sources else loras[0] if loras else None
    if source is None or not source.name or (tool == "join" and len(loras) < 2) or (tool == "bake" and not loras):
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


def free_name(path: Path, to_come: frozenset[Path] = frozenset()) -> Path:
    """The path, or one with a number behind its stem if something lies there or will soon. Asks the disk: not on the
    window's thread."""
    number, found = 2, path
    try:
        while (found in to_come or found.exists()) and number < 1000:
            found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    except (OSError, ValueError):  # a name that no file can have
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
    return " ".join(filter(None, (", ".join(names[:3]), f"→ {target}" if target else "")))
