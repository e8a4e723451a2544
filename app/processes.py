"""A command of the trainer or a captioner in a process of its own, followed by its lines of JSON; it never holds the
window up.

`Command` runs one `python -m …`. Stopping is a file that the command looks for, where it takes one: it then ends by
itself and cleans up behind it, on every system. Whoever is asked twice, or takes no such file, is ended.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, QProcess, QProcessEnvironment, QTimer, Signal

from app.i18n import joined, tr, translate_message
from trainer.messages import Message
from trainer.paths import ROOT
from trainer.temporary import TemporaryFolder

TAIL_LINES = 40
LONGEST_LINE = 4 << 20  # bytes; what is longer is no event of ours
GRACE_MS = 20_000  # from the wish to stop until the process is ended
LAST_MS = 3000  # the same when the window closes
Event = dict[str, Any]


class Command(QObject):
    """See the module. Lives on the window's thread.

    Signals:
        reported(event): a line of JSON (a table).
        ended(exit_code, tail): the process is gone; `tail` holds its last lines that were no events. 130: it was stopped,
            below 0: it crashed, or the system ended it.
    """

    reported = Signal(object)
    ended = Signal(int, str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._process = QProcess(self)
        self._folder = TemporaryFolder()
        self._stop_file = self._folder.path / "stop"
        self._takes_stop_file = False
        self._tail: list[str] = []
        self._rest = b""
        self._was_stopped = False
        self._has_ended = False
        self._process.setWorkingDirectory(str(ROOT))
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.readyReadStandardError.connect(self._read_errors)
        self._process.finished.connect(self._on_finished)
        self._process.errorOccurred.connect(self._on_error)
        self.destroyed.connect(lambda: self._leave())
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.end)

    def start(self, arguments: Sequence[str], *, takes_stop_file: bool = False, program: str = "trainer") -> None:
        """Run `python -m PROGRAM ARGUMENTS`; `--stop-file` is put among its options where the command takes one."""
        environment = QProcessEnvironment.systemEnvironment()  # as it is now: the mirror of the hub is in it
        environment.insert("PYTHONUTF8", "1")
        self._process.setProcessEnvironment(environment)
        self._takes_stop_file = takes_stop_file
        line = ["-m", program, *arguments]
        if takes_stop_file:
            end = line.index("--") if "--" in line else len(line)  # what follows "--" is no option
            line[end:end] = ["--stop-file", str(self._stop_file)]
        self._process.start(sys.executable, line)

    def stop(self) -> None:
        """Ask it to end, or end it; `ended` follows with 130."""
        if not self.is_running:
            return
        if self._was_stopped or not self._takes_stop_file:
            self._was_stopped = True
            self._process.kill()
            return
        self._was_stopped = True
        self._stop_file.touch()
        QTimer.singleShot(GRACE_MS, self, self._process.kill)

    def end(self) -> None:
        """The window closes: ask, wait a moment, end it."""
        if not self.is_running:
            return
        self._was_stopped = True
        if self._takes_stop_file:
            self._stop_file.touch()
            self._process.waitForFinished(LAST_MS)
        if self.is_running:
            self._process.kill()
            self._process.waitForFinished(LAST_MS)

    @property
    def is_running(self) -> bool:
        return self._process.state() != QProcess.ProcessState.NotRunning

    def _read(self) -> None:
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        event = read_event(line)
        if event is not None:
            self.reported.emit(event)
        elif line.strip():
            self._remember(line)

    def _read_errors(self) -> None:
        for line in bytes(self._process.readAllStandardError().data()).splitlines():
            self._remember(line)

    def _remember(self, line: bytes) -> None:
        self._tail.append(line.decode("utf-8", errors="replace").rstrip())
        del self._tail[:-TAIL_LINES]

    def _on_finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._finish(code if status == QProcess.ExitStatus.NormalExit else -abs(code or 1))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._remember(self._process.errorString().encode())
            self._finish(1)

    def _leave(self) -> None:
        """The window has gone before the process, which Qt ends now: there is nobody to tell."""
        self._has_ended = True
        self._folder.close()

    def _finish(self, code: int) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._read()
        self._take(self._rest)  # a last line without its end
        self._read_errors()
        self._folder.close()
        self.ended.emit(130 if self._was_stopped and code != 0 else code, "\n".join(self._tail))


def read_event(line: bytes) -> Event | None:
    """The table in a line of output, None if it is something else."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def number_in(event: Mapping[str, Any], name: str) -> int:
    """A number of an event, 0 if there is none."""
    value = event.get(name)
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def sentence(event: Mapping[str, Any], name: str) -> str:
    """A sentence of an event in the window's language: `NAME_message` if it is there, else the text `NAME`."""
    data = event.get(f"{name}_message")
    if isinstance(data, Mapping):
        try:
            return translate_message(Message.from_json(data))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            pass  # another version's: the text is there too
    text = event.get(name)
    return text if isinstance(text, str) else ""


def complaint(event: Mapping[str, Any]) -> str:
    """What a failed command says: what happened, and what to do."""
    problems = event.get("problems")
    lines = [sentence(problem, "what") for problem in problems if isinstance(problem, Mapping)] if problems else []
    return "\n".join(filter(None, lines)) or joined(sentence(event, "what"), sentence(event, "todo"))


def last_words(tail: str, code: int) -> str:
    """What to say of a command that ended without an event: how it ended, and its last line."""
    lines = [line for line in tail.splitlines() if line.strip()]
    if code < 0:
        ended = tr("It broke off or the system ended it, most often because the memory was full. Close other programs.")
    else:
        ended = tr("The command ended with code {code}.", code=code)
    return f"{ended}\n{lines[-1]}" if lines else ended
