"""Place a LoRA of a run into a WebUI: which file, where to, under which name, with which picture and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QComboBox,
    QCompleter,
    QDialog,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from app import theme, work
from app.editors import ignore_wheel
from app.errors import describe
from app.i18n import tr, translate_message
from app.pages.base import BannerPlace
from app.path_editor import PathEditor
from app.preferences import Preferences
from app.widgets.basics import button, label, row, set_role, tool_button
from app.widgets.picture_view import PictureView
from trainer.errors import AthanorError
from trainer.export_targets import Conflict, Target, export_to, find_target, name_problem

TARGETS = "export_targets"  # preference: folders, the last used first


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
        exported(Path): the LoRA lies there now.
    """

    exported = Signal(object)

    def __init__(self, parent: QWidget, preferences: Preferences, offer: Offer) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Export the LoRA"))
        self.setMinimumWidth(theme.px(620))
        self._preferences, self._offer = preferences, offer
        self._target: Target | None = None
        self._picture = len(offer.pictures) - 1
        self._latest = work.Latest(self, self._show_target)
        self._build()
        known = preferences.get(TARGETS)
        self.target.set_value(offer.target or (known[0] if known else ""))
        self._look_at_target()
        self._suggest_name()
        self._show_picture()

    def _build(self) -> None:
        self.file = QComboBox()
        self.file.setAccessibleName(tr("File"))
        self.file.addItems([path.name for path in self._offer.files])
        self.file.currentIndexChanged.connect(lambda _: self._suggest_name())
        self.target = PathEditor(files=False, folders=True, placeholder=tr("The folder of your WebUI or ComfyUI"))
        self.target.edit.setAccessibleName(tr("Folder of the program"))
        self.target.edit.setCompleter(QCompleter(self._preferences.get(TARGETS), self))
        self.target.edited.connect(lambda _: self._look_at_target())
        self.found = label("", "small", wrap=True)
        self.name = QLineEdit()
        self.name.setAccessibleName(tr("Name"))
        self.name.textChanged.connect(lambda _: self._check_name())
        self.name_remark = label("", "problem", wrap=True)
        self.words = QLineEdit(self._offer.activation_text)
        self.words.setAccessibleName(tr("Activation text"))
        self.words.setToolTip(tr("What a click on the LoRA adds to the prompt: its trigger words."))
        self.weight = QDoubleSpinBox(minimum=0, maximum=2, singleStep=0.05)
        self.weight.setAccessibleName(tr("Preferred weight"))
        self.weight.setSpecialValueText(tr("the program's own"))
        self.weight.setToolTip(tr("How strongly the WebUI applies the LoRA when you click it; 0.7 to 1 is usual."))
        self.weight.setValue(0)
        for box in (self.file, self.weight):
            ignore_wheel(box)
        self.banner = BannerPlace()
        across = QHBoxLayout()
        across.addLayout(self._form(), 1)
        across.addLayout(self._picture_chooser())
        self.export = button(tr("Export"), lambda: self.start(False), role="primary", icon="upload")
        self.export.setDefault(True)
        column = QVBoxLayout(self)
        column.setSpacing(theme.px(12))
        column.addWidget(self.banner)
        column.addLayout(across)
        column.addLayout(row(None, button(tr("Close"), self.reject), self.export))

    def _form(self) -> QFormLayout:
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow(label(tr("File")), self.file)
        form.addRow(label(tr("Into")), self.target)
        form.addRow("", self.found)
        form.addRow(label(tr("Name")), self.name)
        form.addRow("", self.name_remark)
        form.addRow(label(tr("Activation text")), self.words)
        form.addRow(label(tr("Preferred weight")), self.weight)
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
        if target is None or not self._offer.files:
            return
        source = self._offer.files[self.file.currentIndex()]
        picture = self._offer.pictures[self._picture] if self._picture >= 0 else None
        name, words, weight = self.name.text(), self.words.text().strip(), self.weight.value()
        self.export.setEnabled(False)
        self.banner.show_banner("")
        work.run(
            self,
            lambda: export_to(target, source, name, picture, words, weight, overwrite),
            self._done,
            self._failed,
        )

    def _done(self, path: Path) -> None:
        assert self._target is not None
        self._preferences.remember(TARGETS, str(self._target.root))
        self.export.setEnabled(True)
        self.banner.show_banner(tr("{file} is there. Refresh the program's list of LoRAs.", file=str(path)), "good")
        self.exported.emit(path)

    def _failed(self, error: Exception) -> None:
        self.export.setEnabled(True)
        what, todo = describe(error)
        actions = [(tr("Replace"), lambda: self.start(True))] if isinstance(error, Conflict) else []
        severity = "warning" if isinstance(error, Conflict) else "problem"
        if not isinstance(error, AthanorError | OSError):
            raise error
        self.banner.show_banner(f"{what} {todo}".strip(), severity, actions)

    # ---- what is chosen ----

    def _look_at_target(self) -> None:
        folder = str(self.target.value() or "")
        self._latest.ask(lambda: (folder, find_target(Path(folder)) if folder else None))

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
        self._check_name()

    def _suggest_name(self) -> None:
        if self._offer.files:
            self.name.setText(self._offer.files[self.file.currentIndex()].stem)

    def _check_name(self) -> None:
        problem = name_problem(self.name.text())
        self.name_remark.setText(translate_message(problem))
        self.name_remark.setVisible(problem is not None)
        self.export.setEnabled(problem is None and self._target is not None and bool(self._offer.files))

    def _turn(self, direction: int) -> None:
        count = len(self._offer.pictures)
        self._choose_picture((self._picture + direction) % count if self._picture >= 0 else count - 1)

    def _choose_picture(self, place: int) -> None:
        self._picture = place
        self._show_picture()

    def _show_picture(self) -> None:
        path = self._offer.pictures[self._picture] if self._picture >= 0 else None
        self.picture.show_file(path, path.name if path else tr("no picture"))
