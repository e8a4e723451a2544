"""What the tools have to do: jobs in a row, one running at a time, kept while pages are built anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, QTimer, Signal

from app.processes import Command, Event, complaint, last_words, number_in, sentence
from trainer.config.fields import Section, item_section, plain_type, settings_of
from trainer.messages import Message

State = Literal["waiting", "running", "stopping", "done", "failed", "stopped"]


@dataclass
class Job:
    """One use of a tool.

    Attributes:
        title: the tool's, for translation.
        subject: the names of the files it is about.
        arguments: of `python -m trainer`.
        writes: the file that it is to make, "" for none.
        done, total: progress, in units of the tool's own; total 0: not known.
        text: what it is doing, what came out, or what went wrong, in the window's language of that moment.
        outputs: files and folders written.
        facts: numbers and names of the result.
        report: everything that it printed, for whoever helps.
    """

    title: Message
    subject: str
    arguments: tuple[str, ...]
    writes: str = ""
    state: State = "waiting"
    done: int = 0
    total: int = 0
    text: str = ""
    notes: tuple[str, ...] = ()
    outputs: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    report: str = ""
    makes_model: bool = False  # its output can be trained on

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    @property
    def whole_report(self) -> str:
        """What went wrong and what was printed."""
        return "\n".join(filter(None, (self.text, self.report)))


class Jobs(QObject):
    """See the module. Lives on the window's thread.

    Signals:
        listed(): a job was added or taken out.
        changed(job): a job's state or progress is new.
        ended(job): it is over, well or not.
    """

    listed = Signal()
    changed = Signal(object)
    ended = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.jobs: list[Job] = []
        self.typed: dict[str, dict[str, Any]] = {}  # what stands in the tools' forms
        self._command: Command | None = None
        self._running: Job | None = None
        self._outcome: State = "running"  # what the job that runs says of itself; it is over when its process is

    @property
    def running(self) -> Job | None:
        """The job that is at work now."""
        return self._running

    @property
    def to_come(self) -> frozenset[Path]:
        """The files that will be written by what is not over yet."""
        return frozenset(Path(job.writes) for job in self.jobs if job.writes and not job.is_over)

    def add(self, job: Job) -> None:
        """Do this as well, after those that wait."""
        self.jobs.append(job)
        self.listed.emit()
        self._next()

    def stop(self, job: Job) -> None:
        """End a job: one that waits never begins."""
        if job is self._running and self._command is not None:
            self._set_state(job, "stopping")
            self._command.stop()
        elif job.state == "waiting":
            self.remove(job)

    def again(self, job: Job) -> None:
        """Do what has failed once more."""
        self.remove(job)
        self.add(Job(job.title, job.subject, job.arguments, job.writes, makes_model=job.makes_model))

    def remove(self, job: Job) -> None:
        """Forget a job that does not run."""
        if job is not self._running and job in self.jobs:
            self.jobs.remove(job)
            self.listed.emit()

    def _next(self) -> None:
        job = next((job for job in self.jobs if job.state == "waiting"), None)
        if self._running is not None or job is None:
            return
        self._running, self._command, self._outcome = job, Command(self), "running"
        self._command.reported.connect(lambda event: self._on_event(job, event))
        self._command.ended.connect(lambda code, tail: self._on_ended(job, code, tail))
        self._set_state(job, "running")
        self._command.start(job.arguments, takes_stop_file=True)

    def _set_state(self, job: Job, state: State) -> None:
        job.state = state
        self.changed.emit(job)

    def _on_event(self, job: Job, event: Event) -> None:
        match event.get("event"):
            case "progress":
                job.done, job.total = number_in(event, "done"), number_in(event, "total")
                job.text = sentence(event, "text")
            case "result":
                job.text = sentence(event, "summary")
                job.notes = tuple(sentence(note, "text") for note in _tables(event, "notes"))
                job.outputs = tuple(Path(path) for path in event.get("outputs") or () if isinstance(path, str))
                facts = event.get("facts")
                job.facts = facts if isinstance(facts, dict) else {}
                self._outcome = "done"
            case "failed":
                job.text = complaint(event)
                self._outcome = "stopped" if event.get("stopped") is True else "failed"
        self.changed.emit(job)

    def _on_ended(self, job: Job, code: int, tail: str) -> None:
        job.report = tail
        if self._outcome == "running":
            self._outcome = "stopped" if code == 130 else "failed"
            job.text = "" if code == 130 else last_words(tail, code)
        job.state = self._outcome
        command, self._command, self._running = self._command, None, None
        if command is not None:
            command.deleteLater()
        self.changed.emit(job)
        self.ended.emit(job)
        QTimer.singleShot(0, self, self._next)


def _tables(event: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return [entry for entry in event.get(name) or () if isinstance(entry, dict)]


def command_line(name: str, given: Sequence[str], settings: Section) -> tuple[str, ...]:
    """The arguments of `python -m trainer` that give a tool these settings; what has its default is left out.

    Args:
        name: the tool's word.
        given: settings that stand without a name, in this order.
        settings: complete; relative paths are the window's, which the command shares.
    """
    fields = {key: kind for key, kind, _ in settings_of(type(settings))}
    line = ["tools", name]
    for key in given:
        value = getattr(settings, key)
        line += list(value) if isinstance(value, tuple) else [value] if value else []
    for key, kind in fields.items():
        value = getattr(settings, key)
        if key in given or value == kind.get_default():
            continue
        option = f"--{key.replace('_', '-')}"
        if item_section(kind) is not None:
            for entry in value:
                line += [option.removesuffix("s"), *_entry(entry)]
        elif plain_type(kind) is bool:
            line.append(option)
        else:
            line += [f"{option}={part}" for part in (value if isinstance(value, tuple) else [value])]
    return (*line, "--json")


def _entry(entry: Section) -> list[str]:
    """`FILE key=NUMBER …` for an item of a list."""
    values = [(key, getattr(entry, key)) for key, _, _ in settings_of(type(entry))]
    return [str(values[0][1]), *(f"{key}={value}" for key, value in values[1:] if value is not None)]
