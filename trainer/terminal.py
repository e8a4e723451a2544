"""The same events as the window's, in a terminal: sentences, and one line of progress that renews itself."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from trainer.ipc import events
from trainer.ipc.journal import Record

STAGES = {
    "downloading": "Downloading the model (MB)",
    "checking": "Checking the pictures",
    "loading": "Loading the base model",
    "caching": "Encoding the pictures",
    "training": "Training",
    "sampling": "Drawing previews",
    "saving": "Saving",
    "exporting": "Copying the LoRA",
}
REDRAW_S = 0.1
PLAIN_S = 10.0  # without a terminal: a line of progress this often
BAR_WIDTH = 24


@dataclass
class Pace:
    """How quick the steps are lately, and how long the rest takes: a running mean that forgets slow beginnings."""

    seconds: float = math.nan
    num_steps: int = 0

    def add(self, seconds: float) -> None:
        self.num_steps += 1
        weight = max(0.05, 1 / self.num_steps)
        self.seconds = seconds if self.num_steps == 1 else self.seconds + weight * (seconds - self.seconds)

    def left(self, num_steps: int) -> float:
        """Seconds that `num_steps` more will take; nan while unknown."""
        return self.seconds * num_steps


def write_quietly(stream: TextIO, text: str) -> bool:
    """Write and flush. False when the terminal was closed or the reader has gone: the work goes on in silence."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        if stream is sys.stdout:  # Python would flush it once more at its end, and exit with 120
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (for the rest of the process)
        return False
    return True


@dataclass
class Screen:
    """Lines on `stream`, and a last one that renews itself where the stream is a terminal (`is_live`).

    A line is renewed by going back to its start and overwriting it with blanks: every console knows that, while older ones
    of Windows show the usual escape sequences as they are.
    """

    stream: TextIO
    is_live: bool
    _shown: int = 0  # characters of the line that stands there

    def say(self, text: str) -> None:
        """Write a line of its own, in place of the one that renews itself."""
        self._write(f"\r{' ' * self._shown}\r{text}\n" if self._shown else f"{text}\n")
        self._shown = 0

    def renew(self, text: str, *, final: bool = False) -> None:
        """Show `text` as the last line, as much of it as there is room for; `final` leaves it standing."""
        line = text[: self.room()]
        self._write(f"\r{line.ljust(self._shown)}" + ("\n" if final else ""))
        self._shown = 0 if final else len(line)

    def room(self) -> int:
        """How many characters fit in a line. The stream is asked, since stdout may be the log by now."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns - 1
        except (OSError, ValueError, AttributeError):
            return shutil.get_terminal_size().columns - 1

    def _write(self, text: str) -> None:
        if not write_quietly(self.stream, text):
            self.is_live = False


@dataclass
class Terminal:
    """A listener of the station that shows every event on a screen."""

    screen: Screen
    total_steps: int = 0
    pace: Pace = field(default_factory=Pace)
    _loss: float = math.nan
    _stage: str = ""
    _drawn: float = 0.0

    def __call__(self, record: Record) -> None:
        match record.event:
            case events.Step() as step:
                self._on_step(step)
            case events.Stage() as stage:
                self._on_stage(stage)
            case events.Plan() as plan:
                self.total_steps = plan.total_steps
            case events.Hello() as hello:
                self.total_steps = hello.total_steps or self.total_steps
                for change in hello.changes:
                    self.say(f"Changed since the run began: {change}")
            case events.Saved() as saved if saved.what != "state":
                self.say(f"Saved {saved.file}")
            case events.Warning_() as warning:
                self.say(_sentence("Note:", warning.what, warning.todo))
            case events.Paused() as paused:
                self.say("Paused." if paused.paused else "Going on.")

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self.screen.say(text)

    def progress(self, done: int, total: int, text: str, *, final: bool = False) -> None:
        """Renew the line of progress, its bar as wide as there is room; `final` leaves it standing."""
        now, live = time.monotonic(), self.screen.is_live
        if not final and now - self._drawn < (REDRAW_S if live else PLAIN_S):
            return
        self._drawn = now
        if not live:
            self.say(f"{bar(done, total)}  {text}")
            return
        width = min(BAR_WIDTH, max(4, self.screen.room() - len(text) - 9))
        self.screen.renew(f"{bar(done, total, width)}  {text}", final=final)

    def _on_step(self, step: events.Step) -> None:
        self.pace.add(step.seconds)
        self._loss = step.loss if math.isnan(self._loss) else self._loss + 0.05 * (step.loss - self._loss)
        left = self.pace.left(max(0, self.total_steps - step.step))
        self.progress(
            step.step,
            self.total_steps,
            f"step {step.step}/{self.total_steps or '?'}  epoch {step.epoch}  loss {self._loss:.4f}"
            f"  {self.pace.seconds:.2f} s/step  {duration(left)} left",
            final=step.step == self.total_steps,
        )

    def _on_stage(self, stage: events.Stage) -> None:
        words = STAGES.get(stage.name, stage.name.capitalize())
        if stage.name != self._stage:
            self._stage, self._drawn = stage.name, 0.0
            if stage.name not in ("sampling", "saving") or not self.screen.is_live:
                self.say(f"{words} …")
        if stage.total:
            self.progress(stage.done, stage.total, f"{words}  {stage.done}/{stage.total}")


def bar(done: int, total: int, width: int = BAR_WIDTH) -> str:
    """A bar in plain characters with a percentage."""
    share = min(1.0, done / total) if total else 0.0
    full = round(share * width)
    return f"[{'#' * full}{'.' * (width - full)}] {share:4.0%}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12:05 min, 3:20 h."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _sentence(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part)
