"""What a worker says (events) and what it is told (commands): typed, versioned, and JSON both ways.

An event is one line of `events.jsonl` and one frame on the pipe; `number` counts from 1 without a gap in a run folder.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trainer.messages import Message

VERSION = 1


@dataclass(frozen=True)
class Event:
    """Base of all events. `kind` is the word in the journal; `number` and `time` are set when it is written."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Hello(Event):
    """A worker begins (or goes on): what supersedes every step row after `from_step`."""

    kind: ClassVar[str] = "hello"
    version: int
    pid: int
    started: float  # of the process, as psutil's create_time
    from_step: int  # optimiser steps already done; 0 for a new run
    total_steps: int  # 0 while not yet known
    epochs: int
    steps_per_epoch: int
    device: str
    changes: tuple[Message, ...] = ()  # settings that differ from the run file as it was, on resume


@dataclass(frozen=True)
class Stage(Event):
    """What the worker is doing: "downloading" (done and total in MB), "loading", "checking", "caching", "training",
    "sampling", "saving", "exporting"."""

    kind: ClassVar[str] = "stage"
    name: str
    done: int = 0
    total: int = 0  # 0: unknown


@dataclass(frozen=True)
class Plan(Event):
    """The arithmetic of the run, once it is exact."""

    kind: ClassVar[str] = "plan"
    total_steps: int
    steps_per_epoch: int
    epochs: int
    images: int
    reg_images: int
    batch_size: int
    accumulation: int
    rates: tuple[str, ...] = ()  # what the learning rates of the steps belong to, in their order: "unet", …


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step. In the journal it is a compact row."""

    kind: ClassVar[str] = "step"
    step: int  # from 1
    epoch: int  # from 1
    loss: float
    rates: tuple[float, ...]  # effective learning rates; `Plan.rates` names them
    seconds: float
    memory: int = 0  # bytes in use: of the card, else of the process


@dataclass(frozen=True)
class Sample(Event):
    """A preview picture was made. `file` is relative to the run folder; a thumbnail may follow on the pipe."""

    kind: ClassVar[str] = "sample"
    step: int
    index: int  # which prompt
    prompt: str
    seed: int
    file: str


@dataclass(frozen=True)
class Saved(Event):
    """A file is complete on the disk: what = "checkpoint", "final", "state" or "export"."""

    kind: ClassVar[str] = "saved"
    what: str
    step: int
    epoch: int
    file: str
    num_bytes: int = 0


@dataclass(frozen=True)
class Warning_(Event):
    """Something the user should know; the run goes on. `is_note`: nothing is wrong."""

    kind: ClassVar[str] = "warning"
    what: Message
    todo: Message | None = None
    is_note: bool = False


@dataclass(frozen=True)
class Failed(Event):
    """The run ended with an error; `details` is the traceback for a report."""

    kind: ClassVar[str] = "failed"
    what: Message
    todo: Message | None = None
    exit_code: int = 1
    details: str = ""


@dataclass(frozen=True)
class Paused(Event):
    """The run was paused (the model stays loaded) or goes on again."""

    kind: ClassVar[str] = "paused"
    paused: bool
    step: int


@dataclass(frozen=True)
class Done(Event):
    """The run ended as it should: finished, or stopped by the user and saved (stopped) or not (aborted)."""

    kind: ClassVar[str] = "done"
    step: int
    outcome: str  # "finished", "stopped", "aborted"
    file: str = ""  # the final LoRA, relative to the run folder
    seconds: float = 0.0


EVENTS: dict[str, type[Event]] = {
    kind.kind: kind for kind in (Hello, Stage, Plan, Step, Sample, Saved, Warning_, Failed, Paused, Done)
}


@dataclass(frozen=True)
class Command:
    """What a window or terminal asks of a worker. `prompts` carries the new list of [samples] prompts."""

    name: str  # stop, abort, pause, resume, save, sample, prompts
    prompts: tuple[dict[str, Any], ...] = field(default=())


COMMANDS = ("stop", "abort", "pause", "resume", "save", "sample", "prompts")


def to_json(event: Event) -> dict[str, Any]:
    """An event as JSON data, its kind under "event"."""
    data: dict[str, Any] = {"event": event.kind}
    for part in dataclasses.fields(event):
        data[part.name] = _plain(getattr(event, part.name))
    return data


def from_json(data: dict[str, Any], kinds: Mapping[str, type[Event]] = EVENTS) -> Event:
    """Rebuild an event of one of the `kinds`. Unknown keys (of a newer version) are dropped.

    Raises:
        ValueError: for an unknown kind or a missing value.
    """
    kind = kinds.get(data.get("event", ""))
    if kind is None:
        raise ValueError(f"unknown event {data.get('event')!r}")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for part in dataclasses.fields(kind):
        if part.name in data:
            values[part.name] = _restored(hints[part.name], data[part.name])
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"event {kind.kind!r}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.to_json() if isinstance(value, Message) else value


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise ValueError(f"no message: {value!r}")
    return Message.from_json(value)


def _restored(hint: Any, value: Any) -> Any:
    if hint in (Message, Message | None):
        return None if value is None else _message(value)
    if hint == tuple[Message, ...]:
        return tuple(_message(entry) for entry in value)
    return tuple(value) if isinstance(value, list) else value
