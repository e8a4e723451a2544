"""The one hierarchy of errors. Each says what happened, where, and what to do; a command ends with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.messages import Message, say

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 1, 2, 130


class AthanorError(Exception):
    """Something that a user can read and act on: `what` happened (and where), `todo` what to do about it."""

    exit_code = EXIT_FAILED

    def __init__(self, what: Message, todo: Message | None = None) -> None:
        super().__init__(str(what) if todo is None else f"{what} {todo}")
        self.what = what
        self.todo = todo


class BadInput(AthanorError):
    """The user's file, folder or value cannot be used as it is (exit code 2)."""

    exit_code = EXIT_BAD_INPUT


class RunFailed(AthanorError):
    """A run that had begun could not go on: memory, disk, a loss that is not a number (exit code 1)."""


class Stopped(AthanorError):
    """The user asked to stop; everything was saved (exit code 130)."""

    exit_code = EXIT_STOPPED


@dataclass(frozen=True)
class Problem:
    """One thing wrong (or doubtful) in a run file: its place ("scheduler.warmup_ratio"), what, and the way out."""

    place: str
    what: Message
    todo: Message | None = None
    value: Any = None
    severity: str = "error"  # or "warning": trains all the same

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f" {self.todo}" if self.todo else "")


class BadRunFile(BadInput):
    """A run file with problems: all of them, not the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = "\n".join(f"- {problem}" for problem in problems)
        super().__init__(
            say("The run file cannot be used ({count} problems):\n{lines}", count=len(problems), lines=lines)
        )
        self.problems = tuple(problems)
