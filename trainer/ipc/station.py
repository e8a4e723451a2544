"""The worker's desk: `report` takes each event to journal, windows, terminal and status; `poll` gives the commands.

The training thread calls both and waits for nobody but the journal's file.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from trainer.ipc import events
from trainer.ipc.events import Command, Event
from trainer.ipc.journal import Journal, Record, encode
from trainer.ipc.pipe import Server
from trainer.ipc.runfolder import RunFolder, Status, mine

HEARTBEAT_S = 1.0
PROGRESS_S = 0.25  # progress within a stage is reported at most this often

Listener = Callable[[Record], None]


class Station:
    """Joins the run folder's journal and status with the pipe. `report` and `command` may be called by any thread."""

    def __init__(self, folder: RunFolder, listeners: Sequence[Listener] = ()) -> None:
        """Begin to report in a folder that this process has locked.

        Raises:
            OSError: if the folder can not be written.
        """
        self.folder = folder
        self._listeners = list(listeners)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._reporting = threading.Lock()
        self._last_progress = 0.0
        self._status = mine(replace(folder.read_status(), state="starting"))
        folder.write_status(self._status)
        self._journal = Journal(folder.journal)
        self._server = _server(folder, self.command)
        self._ending = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    @property
    def status(self) -> Status:
        return self._status

    def add_listener(self, listener: Listener) -> None:
        """One more that gets every event from now on."""
        self._listeners.append(listener)

    def report(self, event: Event, picture: bytes = b"") -> None:
        """Write an event down and tell everyone. `picture`: a thumbnail (JPEG or PNG) for windows, of a sample."""
        with self._reporting:
            if self._is_too_soon(event):
                return
            record = self._journal.append(event)
            if isinstance(event, events.Saved | events.Done | events.Failed):
                self._journal.sync()
            self._status = status_after(self._status, event)
            if self._server is not None:
                self._server.publish(record.number, encode(record), picture)
            for listener in self._listeners:
                listener(record)

    def command(self, command: Command) -> None:
        """Ask the worker for something, as a window or a signal does."""
        self._commands.put(command)

    def poll(self) -> list[Command]:
        """The commands that have come since the last call, in order. Does not wait."""
        found = []
        while not self._commands.empty():
            found.append(self._commands.get())
        return found

    def close(self) -> None:
        """Write the last status, and let windows go when they have everything."""
        self._ending.set()
        self._heart.join()
        self._write_status()
        if self._server is not None:
            self._server.close()
        self._journal.close()

    def _is_too_soon(self, event: Event) -> bool:
        """Whether this is one more small progress within a stage; the first and the last of a stage always count."""
        if not isinstance(event, events.Stage) or event.name != self._status.stage or event.done >= event.total > 0:
            return False
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_S:
            return True
        self._last_progress = now
        return False

    def _beat(self) -> None:
        while not self._ending.wait(HEARTBEAT_S):
            self._write_status()

    def _write_status(self) -> None:
        try:
            self.folder.write_status(replace(self._status, heartbeat=time.time()))
        except OSError as error:
            print(f"status.json could not be written: {error}", flush=True)  # noqa: T201  (to log.txt)


def status_after(status: Status, event: Event) -> Status:
    """The status that follows from an event."""
    changes: dict[str, Any] = {}
    match event:
        case events.Hello():
            changes = {"state": "running", "step": event.from_step, "total_steps": event.total_steps}
        case events.Plan():
            changes = {"total_steps": event.total_steps}
        case events.Stage():
            changes = {"state": "running", "stage": event.name}
        case events.Step():
            changes = {"step": event.step}
        case events.Paused():
            changes = {"state": "paused" if event.paused else "running"}
        case events.Done():
            changes = {"state": event.outcome, "step": event.step, "stage": ""}
        case events.Failed():
            changes = {"state": "failed", "stage": ""}
    return replace(status, **changes)


def _server(folder: RunFolder, on_command: Callable[[Command], None]) -> Server | None:
    """The pipe; None where the system gives none: windows then follow the journal alone."""
    try:
        return Server(folder, on_command)
    except OSError as error:
        print(f"no pipe for windows: {error}", flush=True)  # noqa: T201  (to log.txt)
        return None
