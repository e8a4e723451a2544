"""Place a LoRA of a run into one program or several: which file, where to, its name, picture and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QCompleter,
    QDialog,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from app import theme, work
from app.editors import ComboBox, Editor, NumberEditor, Switch
from app.errors import describe
from app.i18n import joined, tr, translate_message
from app.pages.base import BannerPlace
from app.path_editor import PathEditor
from app.preferences import Preferences
from app.refresh_choice import RefreshChoice
from app.widgets.basics import button, fitted, label, row, set_flag, set_role, tool_button
from app.widgets.named import Named
from app.widgets.picture_view import PictureView
from app.widgets.room import Room
from trainer.errors import AthanorError
from trainer.export_targets import Conflict, Target, export_to_all, find_target, known_installs, name_problem
from trainer.messages import Message
from trainer.targets.refresh import refresh

TARGETS = "export_targets"  # preference: folders, the last used first
ALSO = "export_also"  # preference: which of them were taken along the last time
MOST_OTHERS = 6
HIGHEST_WEIGHT = 2.0
NAME_WIDTH = 120
BESIDE_FROM = 560  # design pixels of width from which the picture is beside the fields


@dataclass(frozen=True)
class Offer:
    """What can be exported: the files (the one to begin with first), their pictures, and words for the prompt."""

    files: Sequence[Path]
    pictures: Sequence[Path] = ()
    activation_text: str = ""
    target: str = ""  # the run file's own


class ExportDialog(QDialog):
    """See the module. Everything slow happens in the pool.

    Signals:
        exported(Path): the LoRA lies there now; once for each program.
    """

    exported = Signal(object)

    def __init__(self, parent: QWidget, preferences: Preferences, offer: Offer) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Export the LoRA"))
        self.setMinimumWidth(fitted(self, 720, 0).width())
        self._preferences, self._offer = preferences, offer
        self._is_busy = False
        self._target: Target | None = None
        self._others: list[tuple[Switch, Target, RefreshChoice]] = []
        self._picture = len(offer.pictures) - 1
        self._latest = work.Latest(self, self._show_target)
        self._build()
        known = preferences.get(TARGETS)
        self.target.set_value(offer.target or (known[0] if known else ""))
        self._look_at_target()
        self._suggest_name()
        self._show_picture()
        work.run(self, lambda: _known_targets(known), self._show_others)

    def _build(self) -> None:
        self.file = ComboBox()
        self.file.setAccessibleName(tr("File"))
        self.file.addItems([path.name for path in self._offer.files])
        self.file.currentIndexChanged.connect(lambda _: self._suggest_name())
        where = tr("The folder of your WebUI, ComfyUI, or any other")
        self.target = PathEditor(files=False, folders=True, placeholder=where)
        self.target.edit.setAccessibleName(tr("Folder of the program"))
        self.target.edit.setCompleter(QCompleter(self._preferences.get(TARGETS), self))
        self.target.edited.connect(lambda _: self._look_at_target())
        self.found = label("", "small", wrap=True)
        self.name = QLineEdit()
        self.name.setAccessibleName(tr("Name"))
        self.name.textChanged.connect(lambda _: self._check_fields())
        self.name_remark = label("", "problem", wrap=True)
        self.words = QLineEdit(self._offer.activation_text)
        self.words.setAccessibleName(tr("Activation text"))
        self.words.setToolTip(tr("What a click on the LoRA adds to the prompt: its trigger words."))
        bounds = {"ge": 0.0, "le": HIGHEST_WEIGHT}
        self.weight = NumberEditor(float, step=0.05, bounds=bounds, empty=tr("the program's own"))
        self.weight.edit.setFixedWidth(theme.px(160))
        self.weight.edit.setAccessibleName(tr("Preferred weight"))
        self.weight.edit.setToolTip(tr("How strongly the WebUI applies the LoRA when you click it; 0.7 to 1 is usual."))
        self.weight.edit.textChanged.connect(lambda _: self._check_fields())
        self.refresh = RefreshChoice()
        self.banner = BannerPlace()
        content = QWidget()
        self._across = QBoxLayout(QBoxLayout.Direction.LeftToRight, content)
        self._across.setContentsMargins(0, 0, 0, 0)
        self._across.setSpacing(theme.px(16))
        self._across.addLayout(self._form(), 1)
        self._across.addLayout(self._picture_chooser())
        self.export = button(tr("Export"), lambda: self.start(False), role="primary", icon="upload")
        self.export.setDefault(True)
        column = QVBoxLayout(self)
        column.setSpacing(theme.px(12))
        column.addWidget(self.banner)
        column.addWidget(Room(content), 1)
        column.addLayout(row(None, button(tr("Close"), self.reject), self.export))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = self.width() < theme.px(BESIDE_FROM)
        self._across.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)

    def _form(self) -> QVBoxLayout:
        self.also, self._also_column = _named(tr("Also into"))
        form = QVBoxLayout()
        form.setSpacing(theme.px(10))
        for made in (
            _named(tr("File"), self.file)[0],
            _named(tr("Into"), self.target, self.found, self.refresh)[0],
            self.also,
            _named(tr("Name"), self.name, self.name_remark)[0],
            _named(tr("Activation text"), self.words)[0],
            _named(tr("Preferred weight"), self.weight)[0],
        ):
            form.addWidget(made)
        form.addStretch(1)
        return form

    def _picture_chooser(self) -> QVBoxLayout:
        column = QVBoxLayout()
        self.picture = PictureView(tr("no picture"))
        self.picture.setFixedSize(theme.px(180), theme.px(180))
        earlier = tool_button("chevron-left", tr("Earlier picture"), lambda: self._turn(-1))
        later = tool_button("chevron-right", tr("Later picture"), lambda: self._turn(1))
        without = tool_button("image-off", tr("No picture"), lambda: self._choose_picture(-1))
        column.addWidget(label(tr("Preview"), "small"))
        column.addWidget(self.picture)
        column.addLayout(row(earlier, later, without, None))
        column.addStretch(1)
        for made in (earlier, later, without):
            made.setEnabled(bool(self._offer.pictures))
        return column

    def start(self, overwrite: bool) -> None:
        """Export; files of that name are replaced only with `overwrite`."""
        target = self._target
        if target is None or not self._offer.files or self._is_busy:
            return
        source = self._offer.files[self.file.currentIndex()]
        picture = self._offer.pictures[self._picture] if self._picture >= 0 else None
        name, words, weight = self.name.text(), self.words.text().strip(), self.weight.value() or 0.0
        others = [(other, choice) for box, other, choice in self._others if box.isChecked() and not box.isHidden()]
        targets = [target, *(other for other, _ in others)]
        asked = [(each, choice.wish()) for each, choice in ((target, self.refresh), *others)]
        asked = [(each, wish) for each, wish in asked if each.api and wish.refresh]
        self._is_busy = True
        self.export.setEnabled(False)
        self.banner.show_banner(tr("Copying…"))

        def place() -> tuple[tuple[Path, ...], list[Message]]:
            paths = export_to_all(targets, source, name, picture, words, weight, overwrite)
            answers = [refresh(each.api, wish.address, "lora") for each, wish in asked if each.api]
            return paths, [note for note in answers if note is not None]

        work.run(self, place, lambda answer: self._done(targets, len(asked) == len(targets), *answer), self._failed)

    def _done(self, targets: Sequence[Target], all_asked: bool, paths: Sequence[Path], notes: Sequence[Message]) -> None:
        for target in reversed(targets):
            self._preferences.remember(TARGETS, str(target.root))
        self._preferences.set(ALSO, [str(target.root) for target in targets[1:]])
        self._is_busy = False
        self._check_fields()
        self.banner.show_banner(self._result(paths, all_asked, notes), "warning" if notes else "good")
        for path in paths:
            self.exported.emit(path)

    def _result(self, paths: Sequence[Path], all_asked: bool, notes: Sequence[Message]) -> str:
        """What has happened, in a sentence or two."""
        files = ", ".join(map(str, paths))
        there = tr("{file} is there.", file=files)
        if notes:
            return joined(there, *dict.fromkeys(translate_message(note) for note in notes))
        return there if all_asked else tr("{file} is there. Refresh the program's list of LoRAs.", file=files)

    def reject(self) -> None:
        """Close, though not before what was begun has ended well or not: nobody would be told."""
        if not self._is_busy:
            super().reject()

    def _failed(self, error: Exception) -> None:
        self._is_busy = False
        self._check_fields()
        what, todo = describe(error)
        actions = [(tr("Replace"), lambda: self.start(True))] if isinstance(error, Conflict) else []
        severity = "warning" if isinstance(error, Conflict) else "problem"
        self.banner.show_banner(joined(what, todo), severity, actions)
        if not isinstance(error, AthanorError | OSError):
            raise error

    # ---- what is chosen ----

    def _look_at_target(self) -> None:
        folder = str(self.target.value() or "")
        self._latest.ask(lambda: (folder, find_target(Path(folder)) if folder else None))

    def _show_others(self, known: Sequence[Target]) -> None:
        """A box for each other program that was used before or found on this machine."""
        chosen = self._preferences.get(ALSO, [])
        for target in known[: MOST_OTHERS + 1]:
            name = target.root.name
            text = f"{target.program} ({name})" if target.program not in ("", name) else name
            box = Switch(text, toolTip=str(target.lora_folder))
            box.setChecked(str(target.root) in chosen)
            choice = RefreshChoice(indent=theme.px(26))
            box.toggled.connect(lambda _: self._show_which_others())
            self._also_column.addWidget(box)
            self._also_column.addWidget(choice)
            self._others.append((box, target, choice))
        self._show_which_others()

    def _show_which_others(self) -> None:
        """All but the one that is the target already."""
        for box, target, choice in self._others:
            is_other = self._target is None or target.lora_folder != self._target.lora_folder
            box.setVisible(is_other)
            choice.set_target(target if is_other and box.isChecked() else None)
        any_other = any(not box.isHidden() for box, _, _ in self._others)
        self.also.setVisible(any_other)

    def _show_target(self, answer: tuple[str, Target | None]) -> None:
        folder, self._target = answer
        if self._target is not None:
            place = str(self._target.lora_folder)
            text = tr("{program}: the file goes to {folder}.", program=self._target.program, folder=place)
            if not self._target.program:
                text = tr("A plain folder: the file goes right into it.")
            set_role(self.found, "good")
        elif folder:
            text = tr("There is no such folder.")
            set_role(self.found, "problem")
        else:
            text = tr("Choose the folder that the program was installed in.")
            set_role(self.found, "small")
        self.found.setText(text)
        self.refresh.set_target(self._target)
        self._show_which_others()
        self._check_fields()

    def _suggest_name(self) -> None:
        if self._offer.files:
            self.name.setText(self._offer.files[self.file.currentIndex()].stem)

    def _check_fields(self) -> None:
        """The button works where all that was typed can be used."""
        problem = name_problem(self.name.text())
        self.name_remark.setText(translate_message(problem))
        self.name_remark.setVisible(problem is not None)
        set_flag(self.name, "state", "problem" if problem is not None else "")
        weight = self.weight.value()
        is_weight = weight is None or (isinstance(weight, int | float) and 0 <= weight <= HIGHEST_WEIGHT)
        self.weight.set_state("" if is_weight else "problem")
        usable = problem is None and is_weight and not self._is_busy
        self.export.setEnabled(usable and self._target is not None and bool(self._offer.files))

    def _turn(self, direction: int) -> None:
        count = len(self._offer.pictures)
        self._choose_picture((self._picture + direction) % count if self._picture >= 0 else count - 1)

    def _choose_picture(self, place: int) -> None:
        self._picture = place
        self._show_picture()

    def _show_picture(self) -> None:
        path = self._offer.pictures[self._picture] if self._picture >= 0 else None
        self.picture.show_file(path, path.name if path else tr("no picture"))


def _named(name: str, *widgets: QWidget) -> tuple[Named, QVBoxLayout]:
    """A line with widgets one below the other, and their layout."""
    made, column = Named(), QVBoxLayout()
    column.setSpacing(theme.px(6))
    for widget in widgets:
        column.addWidget(widget)
    text = label(name, wrap=True)
    if widgets:
        text.setBuddy(widgets[0].field() if isinstance(widgets[0], Editor) else widgets[0])
    made.put(text, column, NAME_WIDTH)
    return made, column


def _known_targets(used: Sequence[str]) -> list[Target]:
    """The targets used before and those found on this machine, each folder once. Pool thread."""
    before = [target for folder in used if (target := find_target(folder)) is not None]
    return list({target.lora_folder: target for target in (*before, *known_installs(used))}.values())
