"""The download of a base model from the hub: a process that can be stopped and goes on from there the next time."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Literal
from urllib.parse import urlsplit

from PySide6.QtCore import QObject, Signal

from app.preferences import Preferences
from app.processes import Command, Event, complaint, last_words, number_in

MIRROR = "hub_address"  # preference: where the hub is asked, "" for the hub itself
VARIABLE = "HF_ENDPOINT"  # what the hub's own library and every program built on it read
SPEED_S = 8.0  # the time over which the speed is measured
State = Literal["idle", "asking", "asked", "running", "done", "failed", "stopped"]


class HubDownload(QObject):
    """See the module. Lives on the window's thread. The hub is asked only by `ask` and `start`, never by itself.

    Signals:
        changed(): state or progress are new.
        asked(id): how much the model is, is known now.
        arrived(id): the model is on this disk now.
        ended(state): a download is over: "done", "failed" or "stopped".
    """

    changed = Signal()
    asked = Signal(str)
    arrived = Signal(str)
    ended = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.id = ""  # of what is asked for or downloaded, or was the last time
        self.state: State = "idle"
        self.done, self.total, self.free = 0, 0, 0
        self.text = ""  # what went wrong
        self._outcome: State = "idle"  # what the process says of itself; it is over when the process is
        self._points: deque[tuple[float, int]] = deque()
        self._command: Command | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a process asks or downloads; it can be stopped."""
        return self.state in ("asking", "running")

    def ask(self, hub_id: str) -> None:
        """Ask the hub how much there is to download: one small answer, nothing else."""
        self._begin(hub_id, "asking", "--plan")

    def start(self, hub_id: str) -> None:
        """Download it, or go on with it."""
        self._begin(hub_id, "running")

    def _begin(self, hub_id: str, state: State, *options: str) -> None:
        if self.is_busy:
            return
        self.id, self.state, self._outcome, self.text = hub_id, state, state, ""
        self.done, self.total, self.free = 0, 0, 0
        self._points.clear()
        command = Command(self)
        self._command = command
        command.reported.connect(self._on_event)
        command.ended.connect(self._on_ended)
        command.start(["fetch", hub_id, "--json", *options])
        self.changed.emit()

    def stop(self) -> None:
        """What has come stays, and is not downloaded again."""
        if self._command is not None:
            self._command.stop()

    @property
    def speed(self) -> float:
        """Bytes a second over the last seconds, 0 while it is not known."""
        if len(self._points) < 2:
            return 0.0
        (begin, first), (end, last) = self._points[0], self._points[-1]
        return max(0.0, (last - first) / (end - begin)) if end > begin else 0.0

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.speed if self.speed > 0 else None

    def _on_event(self, event: Event) -> None:
        if event.get("event") in ("plan", "progress"):
            self.done, self.total = number_in(event, "done"), number_in(event, "total")
            self.free = number_in(event, "free") or self.free
            now = time.monotonic()
            self._points.append((now, self.done))
            while self._points[0][0] < now - SPEED_S:
                self._points.popleft()
        elif event.get("event") == "done":
            self.done = self.total
            self._outcome = "done"
        elif event.get("ok") is False or event.get("event") == "failed":
            self._outcome, self.text = "failed", complaint(event)
        self.changed.emit()

    def _on_ended(self, code: int, tail: str) -> None:
        was_asking = self.state == "asking"
        if self._outcome not in ("done", "failed"):
            self._outcome = "stopped" if code == 130 else "failed" if code != 0 or not was_asking else "asked"
            self.text = last_words(tail, code) if self._outcome == "failed" else ""
        self.state = "idle" if was_asking and self._outcome == "stopped" else self._outcome
        command, self._command = self._command, None
        if command is not None:
            command.deleteLater()
        self.changed.emit()
        if self.state == "done":
            self.arrived.emit(self.id)
        elif self.state == "asked":
            self.asked.emit(self.id)
        if not was_asking:
            self.ended.emit(self.state)


def use_mirror(preferences: Preferences) -> None:
    """Let every process that is started from now on ask the preferred address; without one, what the system says holds."""
    address = str(preferences.get(MIRROR, ""))
    if address and is_address(address):
        os.environ[VARIABLE] = address
    elif _given is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = _given


def is_address(text: str) -> bool:
    """Whether a text can be the address of a hub."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not any(letter.isspace() for letter in text)


_given = os.environ.get(VARIABLE)  # as the window found it
