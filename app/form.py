"""Forms from the schema: a row a setting, with its label, editor, the dot and way back, and what is wrong beneath it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.editors import (
    ArgumentsEditor,
    ChoiceEditor,
    ColourEditor,
    DeviceEditor,
    Editor,
    NumberEditor,
    SeedEditor,
    SizeEditor,
    SwitchEditor,
    TextEditor,
)
from app.i18n import joined, tr, translate_message, translate_trainer
from app.path_editor import PathEditor, model_files
from app.preferences import Preferences
from app.slices import Pieces, Slices, Task
from app.widgets.basics import Fold, label, set_role, tool_button
from app.widgets.named import Named
from trainer.config.fields import Info, bounds_of, item_section, plain_type
from trainer.config.run import sections
from trainer.errors import Problem


def editor_for(place: str, field: Any, info: Info) -> Editor:
    """The editor that suits a setting's type, choices and widget."""
    if info.choices:
        return ChoiceEditor(info.choices)
    kind = plain_type(field)
    optional = (kind is not field.annotation and field.get_default() is None) or "None" in str(field.annotation)
    empty = tr("automatic") if optional else None
    bounds = bounds_of(field)
    if info.widget in ("file", "folder"):
        return path_editor_for(place, info)
    made: dict[str, Any] = {
        "rate": lambda: NumberEditor(float, empty=empty, arrows=False),
        "seed": lambda: SeedEditor(bounds),
        "size": SizeEditor,
        "arguments": ArgumentsEditor,
        "colour": ColourEditor,
        "device": DeviceEditor,
    }
    if info.widget in made:
        editor: Editor = made[info.widget]()
        return editor
    if kind is bool:
        return SwitchEditor()
    if kind in (int, float):
        step = info.step or (1 if kind is int else 0.1)
        return NumberEditor(kind, step=step, bounds=bounds, empty=empty)
    return TextEditor()


def path_editor_for(place: str, info: Info) -> PathEditor:
    """A path's editor: models may be a file or a diffusers folder, LoRAs only a file."""
    if info.widget == "folder":
        return PathEditor(files=False, folders=True, placeholder=tr("Drop a folder here"))
    folders = place.startswith("model.")
    hint = tr("Drop a file or folder here") if folders else tr("Drop a file here")
    return PathEditor(files=True, folders=folders, pattern=model_files(), placeholder=hint)


class Row(Named):
    """One setting of the draft."""

    def __init__(self, draft: Draft, place: str) -> None:
        super().__init__()
        self.draft, self.place = draft, place
        self.kind, self.info = _line_of(place)
        self._said_elsewhere, self._is_known = "", True
        self.editor = editor_for(place, self.kind, self.info)
        self.editor.edited.connect(lambda value: draft.set(place, value))
        self._build()
        self.refresh()
        self.show_problems()

    def _build(self) -> None:
        name = translate_trainer(self.info.label)
        self.name = label(name, wrap=True)
        self.name.setBuddy(self.editor.field())
        self.name.mousePressEvent = lambda _: self.editor.field().setFocus()  # type: ignore[method-assign]
        tip = tooltip_of(self.info)
        for widget in (self.name, self.editor.field()):
            widget.setToolTip(tip)
        self.editor.field().setAccessibleName(name)
        self.editor.field().setAccessibleDescription(translate_trainer(self.info.help))
        self.message = label("", "problem", wrap=True)
        self.message.hide()
        line = QHBoxLayout()
        line.setSpacing(theme.px(theme.SPACE))
        line.addWidget(self.editor, 1)
        if self.info.unit:
            self.editor.show_unit(translate_trainer(self.info.unit))
        self.back = self._back_button()
        holder = QWidget()  # keeps its place while the button is hidden, so that nothing jumps
        holder.setFixedWidth(theme.px(26))
        inside = QHBoxLayout(holder)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(self.back)
        line.addWidget(holder, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        column.setSpacing(theme.px(4))
        column.addLayout(line)
        column.addWidget(self.message)
        self.put(self.name, column)

    def _back_button(self) -> QToolButton:
        name = tr("Back to the preset's value")
        made = tool_button("rotate-ccw", name, lambda: self.draft.reset(self.place), role="accent")
        made.setAccessibleName(f"{translate_trainer(self.info.label)}: {name}")
        made.setIconSize(QSize(theme.px(14), theme.px(14)))
        made.hide()
        return made

    def refresh(self) -> None:
        """Show the draft's value, and the way back where it differs from the preset."""
        value = self.draft.get(self.place)
        self.editor.set_value(value)
        differs = not self.draft.is_default(self.place)
        self.back.setVisible(differs)
        if differs:
            shown = shown_value(self.draft.default(self.place))
            self.back.setToolTip(tr("Back to the preset's value: {value}", value=shown))
        set_role(self.name, "accent" if differs else "")

    def show_problems(self) -> None:
        """Write the place's problems under the editor and frame it."""
        problems = self.draft.problems_at(self.place)
        errors = [problem for problem in problems if problem.severity == "error"]
        state = "problem" if errors else ("warning" if problems else "")
        value = self.draft.get(self.place)
        is_path = self.info.widget in ("file", "folder")
        if not state and is_path and value and self._is_known and self.draft.is_checked:
            state = "good"
        if self.draft.is_missing(self.place):
            state = ""  # not filled in yet is no mistake
        self.editor.set_state(state)
        first = (errors or problems)[:2]
        set_role(self.message, {"problem": "problem", "": "small"}.get(state, "warning"))
        texts = [text for problem in first if (text := problem_text(problem)) != self._said_elsewhere]
        self.message.setText("\n".join(texts))
        self.message.setVisible(bool(texts))

    def set_said(self, problem: str, *, is_known: bool = True) -> None:
        """Leave out a problem that stands right above, on a card. What is not known to be there is not framed as good."""
        self._said_elsewhere, self._is_known = problem, is_known
        self.show_problems()


class Form(QWidget):
    """Rows of several places; advanced ones under "More settings", which stays as it was left."""

    def __init__(
        self, draft: Draft, preferences: Preferences, slices: Slices, keys: Sequence[str], *, name: str
    ) -> None:
        """`keys`: sections ("optimizer") or places ("training.epochs"); `name`: under which the fold is remembered."""
        super().__init__()
        self.draft, self._slices = draft, slices
        self.rows: dict[str, Row] = {}
        self._hidden: set[str] = set()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(theme.px(1.5 * theme.SPACE))
        found = list(places_of(keys))
        self._basic = [place for place in found if _line_of(place)[1].level == "basic"]
        self._more = [place for place in found if place not in self._basic]
        self._rest: Task | None = None  # makes the advanced rows
        self.fold: Fold | None = None
        if self._more:
            self.fold = Fold(tr("More settings"), f"more.{name}", preferences)
            self.fold.toggled.connect(self._on_folded)
            self._column.addWidget(self.fold)
        draft.changed.connect(self._on_changed)
        draft.checked.connect(self._on_checked)
        self._show_count()

    def build(self) -> Pieces:
        """The rows, one after the other: those under "More settings" only if they are unfolded."""
        for number, place in enumerate(self._basic):
            self._column.insertWidget(number, self._row(place))
            yield
        self._unfold_for_errors()
        if self.fold is not None:
            self._on_folded(self.fold.is_open)
        while self._rest is not None and not self._rest.is_done:
            self._rest.go_on()
            yield

    def _on_folded(self, is_open: bool) -> None:
        """The advanced rows are made when they are first looked at."""
        if is_open and self._rest is None:
            self._rest = self._slices.start(self._advanced_rows())

    def _advanced_rows(self) -> Pieces:
        assert self.fold is not None
        for place in self._more:
            self.fold.body.addWidget(self._row(place))
            yield

    def _row(self, place: str) -> Row:
        row = Row(self.draft, place)
        if place in self._hidden:
            row.hide()
        self.rows[place] = row
        return row

    def _on_changed(self, place: str) -> None:
        for key, row in self.rows.items():
            if not place or key == place:
                row.refresh()
        self._show_count()

    def _on_checked(self) -> None:
        for row in self.rows.values():
            row.show_problems()
        self._unfold_for_errors()

    def _unfold_for_errors(self) -> None:
        if self.fold and not self.fold.is_open and any(self._has_error(place) for place in self._more):
            self.fold.set_open(True, remember=False)

    def _has_error(self, place: str) -> bool:
        return any(problem.severity == "error" for problem in self.draft.problems_at(place))

    def _show_count(self) -> None:
        if self.fold is None:
            return
        changed = sum(not self.draft.is_default(place) for place in self._more)
        title = tr("More settings ({count})", count=len(self._more))
        self.fold.set_title(f"{title}  ·  {tr('{count} changed', count=changed)}" if changed else title)

    def reveal(self, place: str) -> bool:
        """Unfold and focus the row of a place, also of one that is hidden; False if it is not in this form."""
        if self.fold is not None and place in self._more:
            self.fold.set_open(True)
            assert self._rest is not None
            self._rest.finish()
        row = self.rows.get(place)
        if row is None:
            return False
        row.show()
        QTimer.singleShot(0, row, lambda: row.editor.field().setFocus(Qt.FocusReason.ShortcutFocusReason))
        return True

    def show_only_when(self, place: str, visible: bool) -> None:
        """Hide a row that means nothing with the other values."""
        self._hidden = (self._hidden - {place}) if visible else (self._hidden | {place})
        if place in self.rows:
            self.rows[place].setVisible(visible)


def _line_of(place: str) -> tuple[Any, Info]:
    from app.places import setting_at

    found = setting_at(place, sections())
    assert found is not None, f"no setting at {place}"
    return found


def places_of(keys: Sequence[str]) -> Iterable[str]:
    """The single settings of sections and places; lists of tables have widgets of their own."""
    for key in keys:
        if "." in key:
            yield key
            continue
        for name, field in sections()[key].model_fields.items():
            if item_section(field) is None:
                yield f"{key}.{name}"


def tooltip_of(info: Info) -> str:
    """Help and costs as a tooltip (rich text, so that Qt breaks its lines)."""
    from html import escape

    lines = [translate_trainer(info.help), translate_trainer(info.costs)]
    return "<p>" + "<br>".join(escape(line) for line in lines if line) + "</p>"


def shown_value(value: Any) -> str:
    """A value in the words of the form."""
    from app.editors import number_text, size_text

    if value is None or value == "":
        return tr("empty")
    if isinstance(value, bool):
        return tr("on") if value else tr("off")
    if isinstance(value, list):
        return size_text(value)
    return number_text(value) if isinstance(value, int | float) else str(value)


def problem_text(problem: Problem) -> str:
    """A problem as the form says it: what, and the way out."""
    if isinstance(problem.value, str) and problem.todo and problem.todo.template == "Write it without quotes.":
        return tr("A number is needed here.")  # the file's way out means nothing in a form
    return joined(translate_message(problem.what), translate_message(problem.todo))


def message_label(problems: Sequence[Problem]) -> QLabel:
    """A label with several problems, for widgets that are no rows."""
    errors = any(problem.severity == "error" for problem in problems)
    made = label(
        "\n".join(problem_text(problem) for problem in problems), "problem" if errors else "warning", wrap=True
    )
    made.setVisible(bool(problems))
    return made
