"""What a captioner process says: one event a line on its output, as JSON for the window or as text for a terminal."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TextIO

from trainer.ipc.events import Event, Failed, Stage, Warning_, from_json, to_json
from trainer.messages import Message
from trainer.terminal import REDRAW_S, Screen, bar, duration, write_quietly

VERSION = 1


@dataclass(frozen=True)
class Begun(Event):
    """Work begins on `total` pictures; `kept` more have a caption and are left alone."""

    kind: ClassVar[str] = "begun"
    captioner: str
    model: str
    total: int
    kept: int
    version: int = VERSION


@dataclass(frozen=True)
class Opened(Event):
    """The model is open, on what really computes. Does not come where stored scores answer for every picture."""

    kind: ClassVar[str] = "opened"
    device: str  # such as "CPUExecutionProvider"


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` pictures are dealt with; `seconds_left` is -1 while nothing can be said."""

    kind: ClassVar[str] = "progress"
    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class Captioned(Event):
    """A picture has its caption. `written` is false where nothing changed: a dry run, or no new tag to add."""

    kind: ClassVar[str] = "captioned"
    picture: str
    file: str
    caption: str  # the whole new text of the file
    written: bool


@dataclass(frozen=True)
class Skipped(Event):
    """A picture got no caption, and why."""

    kind: ClassVar[str] = "skipped"
    picture: str
    why: Message


@dataclass(frozen=True)
class Finished(Event):
    """The end of a run that was finished or stopped. Each picture is counted once, in one of the first four."""

    kind: ClassVar[str] = "finished"
    written: int
    unchanged: int
    kept: int
    skipped: int
    not_done: int
    from_scores: int  # of the written and unchanged: answered by stored scores, without the model
    stopped: bool
    seconds: float
    backups: tuple[str, ...]  # folders that hold the captions as they were
    message: Message


EVENTS: dict[str, type[Event]] = {
    kind.kind: kind for kind in (Begun, Stage, Opened, Progress, Captioned, Skipped, Warning_, Finished, Failed)
}


def read_event(line: str | bytes) -> Event | None:
    """The event of one line of a captioner's output; None for a line that is none (a library may print, too)."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return event_of(data) if isinstance(data, dict) else None


def event_of(data: dict[str, Any]) -> Event | None:
    """The event that a table of such a line is; None for another table."""
    try:
        return from_json(data, EVENTS)
    except (ValueError, KeyError):
        return None


class Reporter(Protocol):
    """Takes every event of a run, on the main thread."""

    def __call__(self, event: Event) -> None: ...


class JsonLines:
    """Events as JSON lines: pure ASCII, so that no console encoding can spoil a path."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        write_quietly(self._stream, json.dumps(to_json(event)) + "\n")


class Terminal:
    """Events as text: one progress line that renews itself, and a line for whatever is worth reading afterwards."""

    def __init__(self, stream: TextIO, show_captions: bool) -> None:
        self._screen = Screen(stream, is_live=stream.isatty())
        self._show_captions = show_captions
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Captioned):
            if self._show_captions:
                self._screen.say(f"{event.picture}: {event.caption}")
        elif not isinstance(event, Stage):
            self._screen.say(_text(event))

    def _progress(self, event: Progress) -> None:
        """Renew the progress line ten times a second at most; a file or pipe gets none."""
        now = time.monotonic()
        if not self._screen.is_live or (now - self._last < REDRAW_S and event.done < event.total):
            return
        self._last = now
        left = "" if event.seconds_left < 0 else f"  {duration(event.seconds_left)} left"
        self._screen.renew(f"{bar(event.done, event.total)}  {event.done}/{event.total}{left}")


def _text(event: Event) -> str:
    """What a terminal says of an event."""
    match event:
        case Begun():
            return f"{event.total} pictures to caption; {event.kept} have a caption and are left alone."
        case Opened():
            return f"The model is open ({event.device})."
        case Skipped():
            return f"{event.picture}: {event.why}"
        case Warning_() | Failed():
            return f"{event.what} {event.todo or ''}".rstrip()
        case Finished():
            return "\n".join([str(event.message), *event.backups])
    raise AssertionError(f"no text for {event.kind}")
