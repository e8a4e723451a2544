"""A captioner in a process of its own, followed line by line; stopping it is a file, which works on every system."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, Signal

from captioners.catalog import WriteSettings, arguments
from captioners.common.events import read_event
from trainer.config.fields import Section
from trainer.paths import ROOT

TAIL_LINES = 30


class TaggerProcess(QObject):
    """One run of a captioner.

    Signals:
        reported(event): one of captioners.common.events.
        ended(exit_code, tail): the process is gone; `tail` holds its last lines that were no events.
    """

    reported = Signal(object)
    ended = Signal(int, str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._process = QProcess(self)
        self._folder = tempfile.TemporaryDirectory(prefix="athanor-tagger-")
        self._stop_file = Path(self._folder.name) / "stop"
        self._tail: list[str] = []
        self._rest = b""
        self._has_ended = False
        self._process.setWorkingDirectory(str(ROOT))
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUTF8", "1")
        self._process.setProcessEnvironment(environment)
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.readyReadStandardError.connect(self._read_errors)
        self._process.finished.connect(lambda code, _: self._finish(code))
        self._process.errorOccurred.connect(self._on_error)

    def start(self, name: str, model: Path, folders: list[Path], settings: Section, writing: WriteSettings) -> None:
        line = arguments(name, model, folders, settings, writing, stop_file=self._stop_file)
        self._process.start(sys.executable, line)

    def stop(self) -> None:
        """Ask it to stop after the picture it is at; captions written stay."""
        self._stop_file.touch()

    @property
    def is_running(self) -> bool:
        return self._process.state() != QProcess.ProcessState.NotRunning

    def _read(self) -> None:
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        for line in lines:
            event: Any = read_event(line)
            if event is not None:
                self.reported.emit(event)
            elif line.strip():
                self._remember(line)

    def _read_errors(self) -> None:
        for line in bytes(self._process.readAllStandardError().data()).splitlines():
            self._remember(line)

    def _remember(self, line: bytes) -> None:
        self._tail.append(line.decode("utf-8", errors="replace"))
        del self._tail[:-TAIL_LINES]

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._remember(self._process.errorString().encode())
            self._finish(1)

    def _finish(self, code: int) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._read()
        self._folder.cleanup()
        self.ended.emit(code, "\n".join(self._tail))
