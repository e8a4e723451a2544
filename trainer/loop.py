"""The training loop. It knows no model family, no method and no option: `trainer.build` hands it parts that do."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.diffusion.noise import keyed_seed
from trainer.ipc import events
from trainer.ipc.events import Command, Event
from trainer.optim.build import not_finite

PAUSE_POLL_S = 0.05


class Desk(Protocol):
    """Where the run reports and is told what to do (`trainer.ipc.station.Station` is one)."""

    def report(self, event: Event, picture: bytes = b"") -> None: ...
    def poll(self) -> list[Command]: ...


class Batch(Protocol):
    """A micro-batch; only the objective looks inside."""


class Step(Protocol):
    """One optimiser step's micro-batches; number and epoch count from 0."""

    @property
    def number(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def batches(self) -> Sequence[Batch]: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def ends_epoch(self) -> bool: ...


class Updater(Protocol):
    """Gradients in, optimiser steps out."""

    def backward(self, loss: torch.Tensor) -> None: ...
    def step(self, number: int) -> None: ...
    def rates(self) -> dict[str, float]: ...


class Keeper(Protocol):
    """What survives the process. Each call reports what it wrote."""

    def after(self, step: int, epoch: int, ends_epoch: bool) -> None:
        """Save and snapshot as the run file says, when `step` steps are done."""
        ...

    def save(self, step: int, epoch: int) -> str:
        """Save and snapshot now; returns the file, relative to the run folder."""
        ...

    def finish(self, step: int, epoch: int) -> str:
        """Write the final file, and a snapshot to go on from; returns the file as `save` does."""
        ...


class Previews(Protocol):
    """Pictures while training. `should_stop` is asked now and then, so that a stop need not wait for them."""

    def start(self, should_stop: Callable[[], bool]) -> None: ...
    def after(self, step: int, epoch: int, ends_epoch: bool, should_stop: Callable[[], bool]) -> None: ...
    def draw(self, step: int, should_stop: Callable[[], bool]) -> None: ...
    def finish(self, step: int, should_stop: Callable[[], bool]) -> None: ...
    def replace(self, command: Command) -> None: ...


@dataclass
class Parts:
    """All that a run is made of. `done` optimiser steps are behind it already (a resumed run)."""

    steps: Callable[[int], Iterator[Step]]  # from the step of that number on
    objective: Callable[[Batch], torch.Tensor]  # weighted losses (B,)
    updater: Updater
    keeper: Keeper
    previews: Previews
    after_step: Callable[[], object]  # what the method does to its weights
    memory: Callable[[], int]  # bytes in use
    seed: int
    done: int = 0


def train(parts: Parts, desk: Desk) -> events.Done:
    """Train to the end, or until told to stop; returns how it ended, and leaves reporting that to the caller.

    Raises RunFailed if the loss is no longer a number, and whatever a part raises; what was saved before stays whole.
    """
    began = time.monotonic()
    run = _Commanded(parts, desk)
    if parts.done == 0:
        parts.previews.start(run.should_end)
    desk.report(events.Stage("training"))
    for step in parts.steps(parts.done):
        if run.obey() is not None:
            break
        started = time.monotonic()
        loss = train_step(parts, step)
        run.done, run.epoch = step.number + 1, step.epoch + 1
        rates = tuple(parts.updater.rates().values())
        seconds = round(time.monotonic() - started, 4)
        desk.report(events.Step(run.done, run.epoch, loss, rates, seconds, parts.memory()))
        parts.keeper.after(run.done, run.epoch, step.ends_epoch)
        parts.previews.after(run.done, run.epoch, step.ends_epoch, run.should_end)
    return run.end(time.monotonic() - began)


def train_step(parts: Parts, step: Step) -> float:
    """One optimiser step: Σ wᵢ·lᵢ ÷ N over all of its samples, whatever the accumulation. Returns that loss.

    Library randomness (dropout, 8-bit rounding) is seeded by the micro-step, so it does not depend on the past.
    """
    total = 0.0
    for number, batch in enumerate(step.batches):
        _seed_libraries(parts.seed, step.number, number)
        loss = parts.objective(batch).sum() / step.num_samples
        parts.updater.backward(loss)
        total += loss.item()
    if not math.isfinite(total):
        raise not_finite(step.number + 1)
    parts.updater.step(step.number)
    parts.after_step()
    return total


def _seed_libraries(seed: int, step: int, micro_step: int) -> None:
    key = keyed_seed(seed, "libraries", step, micro_step)
    torch.manual_seed(key)  # the CPU's and every card's
    random.seed(key)


class _Commanded:
    """What the run has been told, and how it ends."""

    def __init__(self, parts: Parts, desk: Desk) -> None:
        self.parts, self.desk = parts, desk
        self.done, self.epoch = parts.done, 0
        self._waiting: list[Command] = []

    def should_end(self) -> bool:
        """Whether a stop or abort is waiting; the command stays for `obey`."""
        self._waiting += self.desk.poll()
        return self._ending() is not None

    def _ending(self) -> str | None:
        names = [command.name for command in self._waiting if command.name in ("stop", "abort")]
        return "abort" if "abort" in names else names[0] if names else None

    def obey(self) -> str | None:
        """Do what was asked since the last step; stays here while paused. Returns "stop" or "abort" when told to end."""
        paused = False
        while not self.should_end():
            waiting, self._waiting = self._waiting, []
            for command in waiting:
                paused = self._do(command, paused)
            if not paused:
                return None
            time.sleep(PAUSE_POLL_S)
        return self._ending()

    def _do(self, command: Command, paused: bool) -> bool:
        """Obey one command; returns whether the run is paused after it."""
        match command.name:
            case "pause" | "resume":
                wanted = command.name == "pause"
                if wanted != paused:
                    self.desk.report(events.Paused(wanted, self.done))
                return wanted
            case "save" if self.done:
                self.parts.keeper.save(self.done, self.epoch)
            case "sample":
                self.parts.previews.draw(self.done, self.should_end)
            case "prompts":
                self.parts.previews.replace(command)
        return paused

    def end(self, seconds: float) -> events.Done:
        """Save as the way of ending wants it."""
        ending = self._ending()
        if ending == "abort":
            return events.Done(self.done, "aborted", "", round(seconds, 3))
        if ending == "stop":
            file = self.parts.keeper.save(self.done, self.epoch) if self.done else ""
            return events.Done(self.done, "stopped", file, round(seconds, 3))
        file = self.parts.keeper.finish(self.done, self.epoch)
        self.parts.previews.finish(self.done, self.should_end)
        return events.Done(self.done, "finished", file, round(seconds, 3))
