"""The editor of a file or folder: typed, chosen or dropped on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QUrl
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from app import theme
from app.editors import Editor
from app.i18n import tr
from app.widgets.basics import accept_paths, button, dropped_paths, set_flag
from app.widgets.line_edit import ClearableEdit

BROWSE_WIDTH = 104  # with the arrow of a menu or without, so that fields end in one line


def model_files() -> str:
    """The filter of a dialog for model files; one may look past it."""
    endings = "*.safetensors *.sft *.ckpt *.pt *.pth *.bin"
    return f"{tr('Model files')} ({endings});;{tr('All files')} (*)"


class _DropLine(ClearableEdit):
    """A line that takes a dropped file or folder in place of its text."""

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", accept_paths(event))
        if not event.isAccepted():
            super().dragEnterEvent(event)  # text

    def dragMoveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if not accept_paths(event):
            super().dragMoveEvent(event)

    def dragLeaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)
        super().dragLeaveEvent(event)

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        set_flag(self, "drop", False)
        if paths := dropped_paths(event):
            self.setText(str(Path(paths[0])))
            self.textEdited.emit(self.text())
            event.acceptProposedAction()
        else:
            super().dropEvent(event)


class PathEditor(Editor):
    """A path. `files` and `folders` say what may be chosen; the field takes either by dropping."""

    def __init__(self, *, files: bool = True, folders: bool = False, pattern: str = "", placeholder: str = "") -> None:
        super().__init__()
        self._files, self._folders, self._pattern = files, folders, pattern
        self.edit = _DropLine(hint=placeholder)
        self.edit.setAcceptDrops(True)
        self.edit.setMinimumWidth(theme.px(100))
        self.edit.textEdited.connect(lambda _: self.edited.emit(self.value()))
        self.line.addWidget(self.edit, 1)
        self.browse = button(tr("Choose…"), None if files and folders else self.choose)
        if files and folders:
            menu = QMenu(self.browse)
            menu.addAction(tr("A file…"), lambda: self.choose(folder=False))
            menu.addAction(tr("A folder…"), lambda: self.choose(folder=True))
            self.browse.setMenu(menu)
        self.browse.setMinimumWidth(theme.px(BROWSE_WIDTH))
        self.line.addWidget(self.browse)

    def value(self) -> Any:
        return clean_path(self.edit.text())

    def set_value(self, value: Any) -> None:
        text = "" if value is None else str(value)
        if text != self.value():
            self.edit.setText(text)

    def field(self) -> QWidget:
        return self.edit

    def choose(self, folder: bool | None = None) -> None:
        """Open a dialog; what is chosen there is edited in."""
        is_folder = self._folders if folder is None else folder
        choose_path(self, self._take, folder=is_folder, pattern=self._pattern, start=self.value())

    def _take(self, path: str) -> None:
        self.edit.setText(path)
        self.edited.emit(self.value())


def clean_path(text: str) -> str:
    """A path as pasted: without the quotes that Windows puts around it and without file://, the home folder filled in."""
    text = text.strip()
    if text.startswith("file://"):
        return str(Path(QUrl(text).toLocalFile()))
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return os.path.expanduser(text) if text.startswith(("~/", "~\\")) else text


def choose_path(
    parent: QWidget,
    chosen: Callable[[str], object],
    *,
    folder: bool = False,
    pattern: str = "",
    start: str = "",
    save: bool = False,
    suffix: str = "toml",
) -> QFileDialog:
    """Open the system's dialog without blocking; `chosen(path)` is called with what the user takes.

    `suffix` is added to a name to save under that has none.
    """
    dialog = QFileDialog(parent)
    if folder:
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
    else:
        dialog.setFileMode(QFileDialog.FileMode.AnyFile if save else QFileDialog.FileMode.ExistingFile)
        if pattern:
            dialog.setNameFilter(pattern)
    if save:
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix)
    place = Path(start) if start else None
    if place is not None and (place.is_dir() or place.parent.is_dir()):
        dialog.setDirectory(str(place if place.is_dir() else place.parent))
        if save and not place.is_dir():
            dialog.selectFile(place.name)
    dialog.fileSelected.connect(lambda path: chosen(str(Path(path))))
    dialog.finished.connect(dialog.deleteLater)
    dialog.open()
    return dialog
