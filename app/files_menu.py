"""Run files: new, open, save, the last used ones, and the embedded example, which is a run file like any other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMenu, QMessageBox, QWidget

from app import errors, theme
from app.i18n import tr
from app.path_editor import choose_path
from trainer.errors import AthanorError
from trainer.paths import RESOURCES

if TYPE_CHECKING:
    from app.pages.base import Context

EXAMPLE = RESOURCES / "demo" / "demo.toml"


class RunFiles:
    """What can be done with run files."""

    def __init__(self, window: QWidget, context: Context) -> None:
        self._window, self._context = window, context
        self._draft, self._preferences = context.draft, context.preferences

    def fill_menu(self, menu: QMenu) -> None:
        """The menu of the header's file button."""
        menu.clear()
        menu.addAction(theme.icon("plus"), tr("New run") + "\tCtrl+N", self.new)
        menu.addAction(theme.icon("folder-open"), tr("Open…") + "\tCtrl+O", self.open)
        menu.addAction(theme.icon("save"), tr("Save") + "\tCtrl+S", self.save)
        menu.addAction(tr("Save as…") + "\tCtrl+Shift+S", self.save_as)
        menu.addSeparator()
        menu.addAction(theme.icon("flame"), tr("Try the example"), self.try_example)
        recent = [Path(name) for name in self._preferences.get("recent")]
        if recent:
            menu.addSeparator()
        for path in recent:
            menu.addAction(f"{path.name}   {path.parent}", partial(self.open_path, path))

    def new(self) -> None:
        """Begin anew; Ctrl+Z brings the old run back."""
        self._draft.new()
        self._context.open_page("model")

    def open(self) -> None:
        """Ask for a run file and open it."""
        start = str(self._draft.file or "")
        choose_path(self._window, lambda path: self.open_path(Path(path)), pattern=_pattern(), start=start)

    def open_path(self, path: Path) -> bool:
        """Open a run file; says why if it is none."""
        try:
            self._draft.open(path)
        except AthanorError as error:
            self._say(tr("Open a run file"), error)
            return False
        self._preferences.remember("recent", str(path))
        return True

    def _say(self, title: str, error: Exception) -> None:
        what, todo = errors.describe(error)
        box = QMessageBox(QMessageBox.Icon.Warning, title, what, parent=self._window)
        box.setInformativeText(todo)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()

    def try_example(self) -> None:
        """Load the embedded example, ready to start."""
        if self.open_path(EXAMPLE):
            self._context.open_page("review")

    def save(self) -> None:
        """Save to the file that is open; asks for one where there is none (or only the example)."""
        file = self._draft.file
        if file is None or EXAMPLE.parent in file.parents:
            self.save_as()
        else:
            self.save_path(file)

    def save_as(self) -> None:
        name = f"{self._draft.get('output.name') or 'run'}.toml"
        file = self._draft.file
        folder = Path.home() if file is None or EXAMPLE.parent in file.parents else file.parent
        choose_path(
            self._window,
            lambda path: self.save_path(Path(path)),
            pattern=_pattern(),
            start=str(folder / name),
            save=True,
        )

    def save_path(self, path: Path) -> None:
        """Write the run file; what is in it is then absolute, so that it may lie anywhere."""
        try:
            self._draft.save(path)
        except OSError as error:
            self._say(tr("Save"), error)
            return
        self._preferences.remember("recent", str(path))


def _pattern() -> str:
    return tr("Run files") + " (*.toml)"
