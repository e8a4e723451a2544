"""Where is my file: the LoRA files of a run, newest first, with a way to their folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.i18n import tr
from app.widgets.basics import Card, ElidedLabel, button, clear, flowing, label, row, tool_button
from app.words import size_words
from trainer.ipc.events import Saved

if TYPE_CHECKING:
    from app.runs import Run

SHOWN = 6


class RunFiles(Card):
    """See the module.

    Signals:
        export_asked(): the button to export was pressed.
    """

    export_asked = Signal()

    def __init__(self) -> None:
        super().__init__(tr("Your files"))
        self._run: Run | None = None
        self._known: tuple[str, ...] | None = None
        self._all = False
        self.open_folder = button(tr("Open the folder"), self._open, icon="folder-open")
        self.export = button(tr("Export to a WebUI…"), self.export_asked.emit, icon="upload")
        self.heading_row.addWidget(flowing((self.open_folder, self.export)))
        self.list = QWidget()
        self._lines = QVBoxLayout(self.list)
        self._lines.setContentsMargins(0, 0, 0, 0)
        self._lines.setSpacing(theme.px(4))
        self.add(self.list)

    def show_run(self, run: Run) -> None:
        """Renew the list if there is a new file."""
        files = run.history.files
        names = tuple(saved.file for saved in files)
        if run is self._run and names == self._known:
            return
        self._run, self._known = run, names
        self.export.setEnabled(any(saved.what != "export" for saved in files))
        clear(self._lines)
        newest = list(reversed(files))
        for saved in newest if self._all else newest[:SHOWN]:
            self._lines.addWidget(self._line(saved))
        if not files:
            self._lines.addWidget(label(tr("The first LoRA file appears here when it is saved."), "muted", wrap=True))
        if len(files) > SHOWN and not self._all:
            text = tr("Show {count} more", count=len(files) - SHOWN)
            self._lines.addWidget(button(text, self._show_all, role="link"), 0, Qt.AlignmentFlag.AlignLeft)

    def _line(self, saved: Saved) -> QWidget:
        made = QWidget()
        path = Path(saved.file)
        name = ElidedLabel(str(path) if saved.what == "export" else path.name)
        facts = [tr("step {step}", step=f"{saved.step:,}")]
        if saved.num_bytes:
            facts.append(size_words(saved.num_bytes))
        facts.insert(0, {"final": tr("final"), "export": tr("copied")}.get(saved.what, tr("saved")))
        where = tool_button("folder-open", tr("Show {file} in its folder", file=path.name), lambda: self._show(path))
        line = row(name, label("  ·  ".join(facts), "small"), where)
        line.setStretch(0, 1)
        made.setLayout(line)
        return made

    def _show_all(self) -> None:
        self._all, self._known = True, None
        if self._run is not None:
            self.show_run(self._run)

    def _show(self, path: Path) -> None:
        assert self._run is not None
        open_in_system((self._run.folder.path / path).parent)

    def _open(self) -> None:
        if self._run is not None:
            open_in_system(self._run.folder.checkpoints)


def open_in_system(path: Path) -> None:
    """Show a folder or file with the system's own program."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
