"""The window's error hook: an error that nobody expected is shown as what, why and what to do, and kept in a file.

A traceback is never shown first; "Copy report" has it for whoever helps.
"""

from __future__ import annotations

import platform
import sys
import time
import traceback
from types import TracebackType

from PySide6.QtCore import QCoreApplication, QObject, Signal
from PySide6.QtWidgets import QMessageBox, QWidget

from app.i18n import tr, translate_message
from trainer import files
from trainer.errors import AthanorError
from trainer.paths import user_folder

LOG_NAME = "window-errors.txt"
LOG_LIMIT = 200_000  # characters kept


class ErrorHook(QObject):
    """Takes over `sys.excepthook`; `caught` is emitted for each error, from whichever thread."""

    caught = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: set[str] = set()
        self.caught.connect(self._show)

    def install(self) -> None:
        sys.excepthook = self._hook

    def _hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            QCoreApplication.quit()
            return
        print("".join(traceback.format_exception(kind, error, trace)), file=sys.stderr)  # noqa: T201
        self.caught.emit(error)

    def _show(self, error: BaseException) -> None:
        report = make_report(error)
        keep_report(report)
        what, todo = describe(error)
        if what in self._shown:  # the same error again and again (a timer) is said once at a time
            return
        self._shown.add(what)
        box = QMessageBox(QMessageBox.Icon.Warning, tr("Something went wrong"), what, parent=self._window())
        box.setInformativeText(todo)
        copy = box.addButton(tr("Copy report"), QMessageBox.ButtonRole.ActionRole)
        copy.clicked.connect(lambda: copy_text(report))
        box.finished.connect(lambda _: self._shown.discard(what))
        box.addButton(QMessageBox.StandardButton.Close)
        box.open()

    def _window(self) -> QWidget | None:
        parent = self.parent()
        return parent if isinstance(parent, QWidget) else None


def describe(error: BaseException) -> tuple[str, str]:
    """An error in the user's words: what happened, and what to do."""
    if isinstance(error, AthanorError):
        return translate_message(error.what), translate_message(error.todo)
    if isinstance(error, PermissionError):
        return (
            tr("Athanor may not read or write {file}.", file=str(error.filename)),
            tr("Choose another place, or change the rights of this one."),
        )
    if isinstance(error, OSError):
        return (
            tr("The system refused a file: {reason}.", reason=str(error)),
            tr("See whether the disk is full or the file is open elsewhere, and try again."),
        )
    reason = f"{type(error).__name__}: {error}"
    return (
        tr("A part of the window failed ({reason}).", reason=reason),
        tr(
            "Your settings are saved, and a running training goes on. If it happens again, copy the report and send it."
        ),
    )


def make_report(error: BaseException) -> str:
    """Everything that helps to find the cause: time, system, traceback."""
    trace = "".join(traceback.format_exception(error))
    system = f"{platform.platform()}, Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{system}\n{trace}"


def keep_report(report: str) -> None:
    """Put the report in front of those already in the user's folder."""
    target = user_folder() / LOG_NAME
    try:
        old = target.read_text(encoding="utf-8") if target.exists() else ""
        files.write_text(target, f"{report}\n{old}"[:LOG_LIMIT])
    except OSError as error:
        print(f"the error report could not be kept: {error}", file=sys.stderr)  # noqa: T201


def copy_text(text: str) -> None:
    from PySide6.QtGui import QGuiApplication

    QGuiApplication.clipboard().setText(text)
