"""How a tool tells where it is, learns that it should end, and says what came out of it. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import BadInput, RunFailed, Stopped
from trainer.messages import Message, say

Report = Callable[[int, int, Message], None]
"""Is called with how much is done, of how much, and what is being done."""


def _silent(done: int, total: int, text: Message) -> None: ...


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Watch:
    """What a tool is given beside its settings.

    Attributes:
        report: see `Report`; is called often, from the tool's thread.
        cancelled: whether to end; asked before each tensor and each few MB.
    """

    report: Report = _silent
    cancelled: Callable[[], bool] = _never

    def check(self) -> None:
        """Raise Stopped if the user wants no more of it."""
        if self.cancelled():
            raise Stopped(say("Stopped. Nothing was written."))

    def meter(self, text: Message, total: int) -> Meter:
        """A count towards `total` (bytes, layers), told at once and at every advance."""
        meter = Meter(self, text, total)
        meter.advance(0)
        return meter


@dataclass
class Meter:
    """A count on its way to `total`."""

    watch: Watch
    text: Message
    total: int
    done: int = 0

    def advance(self, amount: int) -> None:
        """Count on and report. Raises Stopped if the user asked for that."""
        self.watch.check()
        self.done += amount
        self.watch.report(self.done, self.total, self.text)


@dataclass(frozen=True)
class Result:
    """What a tool has done.

    Attributes:
        summary: one sentence, or the whole answer where a tool only reads.
        outputs: the files and folders written.
        notes: what the user should know besides.
        facts: numbers and names for programs, as JSON takes them.
    """

    summary: Message
    outputs: tuple[Path, ...] = ()
    notes: tuple[Message, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what files and memory do to a tool into sentences."""
    try:
        yield
    except EOFError as error:
        what = say("A file became shorter while it was read: {reason}.", reason=str(error))
        raise BadInput(what, say("Copy or download it again.")) from error
    except OSError as error:
        reason = error.strerror or str(error)
        what = say("{path}: {reason}.", path=str(error.filename or say("Reading or writing failed")), reason=reason)
        raise RunFailed(what, say("Is the disk full, write-protected or gone?")) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise RunFailed(say("There is not enough memory for this."), say("Close other programs.")) from error
