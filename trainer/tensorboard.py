"""A listener that writes the curves for TensorBoard, beside the run's own journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from trainer.ipc import events
from trainer.ipc.journal import Record

FLUSH_S = 10.0


class TensorBoard:
    """Give it to a station; each step becomes a point of the curves.

    It writes in the caller's thread: the library's own writer passes events to a thread that dies of a full disk, and
    whoever reports the next ones then waits for ever. Here a log that can not be written ends, and the run goes on.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a file in `folder`. Raises ImportError if tensorboardX is not installed, OSError if none can be made."""
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._file: Any = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._is_open = True
        self._flushed = 0.0
        self._rates: tuple[str, ...] = ()

    def __call__(self, record: Record) -> None:
        match record.event:
            case events.Hello() as hello:
                self._begin(hello, record.time)
            case events.Plan() as plan:
                self._rates = plan.rates
            case events.Step() as step:
                rates = {f"rate/{name}": rate for name, rate in zip(self._rates, step.rates, strict=True)}
                self._points({"loss": step.loss, "seconds": step.seconds, **rates}, step.step, record.time)
            case events.Done() | events.Failed():
                self._try(self._file.close)
                self._is_open = False

    def _begin(self, hello: events.Hello, when: float) -> None:
        """A start mark: TensorBoard then leaves out what earlier files have from that step on."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=hello.from_step + 1, wall_time=when, session_log=start))

    def _points(self, values: dict[str, float], step: int, when: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, wall_time=when, summary=Summary(value=points)))

    def _write(self, event: Any) -> None:
        self._try(self._file.write_event, event)
        if time.monotonic() - self._flushed >= FLUSH_S:
            self._try(self._file.flush)
            self._flushed = time.monotonic()

    def _try(self, act: Any, *arguments: Any) -> None:
        if not self._is_open:
            return
        try:
            act(*arguments)
        except OSError as error:
            self._is_open = False
            print(f"TensorBoard's log ends here, it could not be written: {error}", flush=True)  # noqa: T201  (to log.txt)
