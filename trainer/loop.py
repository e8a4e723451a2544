"""Training, on one screen: take the steps of the plan, obey, draw, save, end.

The loop knows no model, no method and no option. `Parts` are what it turns; `trainer.build` makes them from a run file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.diffusion.noise import seed_libraries
from trainer.errors import RunFailed
from trainer.ipc import events
from trainer.messages import Message, say
from trainer.optim.stepper import NotFinite
from trainer.orders import Ending, Orders


class Reporter(Protocol):
    """Where the run tells its story; `trainer.ipc.station.Station` is one. Called from the training thread."""

    def report(self, event: events.Event, picture: bytes = b"") -> None: ...


class Step(Protocol):
    """One optimiser step's micro-batches; `number` and `epoch` count from 0."""

    @property
    def number(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def batches(self) -> Sequence[Any]: ...
    @property
    def num_samples(self) -> int: ...


class Stepper(Protocol):
    """Gathers gradients and changes weights; raises NotFinite instead of harming them."""

    def backward(self, loss: Tensor) -> None: ...
    def step(self, number: int) -> None: ...
    def rates(self) -> tuple[float, ...]: ...


class Checkpoints(Protocol):
    """All that survives a stop. `position` is how many steps are done."""

    def after(self, position: int) -> None:
        """Save what is due after that many steps, and a snapshot when its time has come."""
        ...

    def save(self, position: int) -> str:
        """Save now, with a snapshot; returns the file, relative to the run folder."""
        ...

    def finish(self) -> str:
        """Write the final file; returns it, relative to the run folder."""
        ...


class Previews(Protocol):
    """Pictures on the way. Drawing changes nothing that training sees; `look` is called often and may raise Ending."""

    def after(self, position: int, look: Callable[[], None]) -> None: ...
    def draw(self, position: int, look: Callable[[], None]) -> None: ...
    def replace(self, prompts: Sequence[dict[str, Any]]) -> None: ...


@dataclass
class Parts:
    """What the loop turns."""

    seed: int
    start: int  # steps already done
    total_steps: int
    steps: Callable[[int], Iterator[Step]]  # from that number on; closing the iterator ends its reader
    loss: Callable[[Any], Tensor]  # a micro-batch -> Σ wᵢ·lᵢ, 0-dim
    stepper: Stepper
    after_step: Callable[[], object]  # what the method does to its weights
    memory: Callable[[], int]  # bytes in use
    checkpoints: Checkpoints
    previews: Previews
    memory_advice: Message  # what to lower when it runs out


def train(parts: Parts, reporter: Reporter, orders: Orders) -> events.Done:
    """Train to the end of the plan, or until told to stop, and say how it ended.

    Raises RunFailed with a sentence when memory or the numbers give out; what was saved before is whole.
    """
    began, position = time.monotonic(), parts.start
    with memory_sentence(parts.memory_advice), _closing(parts.steps(position)) as steps:
        try:
            parts.previews.after(position, orders.leave_if_ending)
            reporter.report(events.Stage("training"))
            while position < parts.total_steps and not _obey(parts, reporter, orders, position):
                step_began, step = time.monotonic(), next(steps)
                loss = take_step(parts, step, orders)
                position = step.number + 1
                seconds = time.monotonic() - step_began
                rates, memory = parts.stepper.rates(), parts.memory()
                reporter.report(events.Step(position, step.epoch + 1, loss, rates, seconds, memory))
                parts.checkpoints.after(position)
                parts.previews.after(position, orders.leave_if_ending)
        except Ending:
            pass  # out of a picture or a step that was not finished; position says what is done
        if orders.abort:
            outcome, file = "aborted", ""
        elif position < parts.total_steps:
            outcome, file = "stopped", parts.checkpoints.save(position) if position else ""
        else:
            outcome, file = "finished", parts.checkpoints.finish()
    return events.Done(position, outcome, file, time.monotonic() - began)


def take_step(parts: Parts, step: Step, orders: Orders) -> float:
    """One optimiser step: Σ wᵢ·lᵢ ÷ N over all its samples, accumulation included. Returns that loss.

    Raises RunFailed if it is not a number (the weights are then as before), Ending if the user aborts meanwhile.
    """
    total = 0.0
    for number, batch in enumerate(step.batches):
        orders.leave_if_aborting()
        seed_libraries(parts.seed, step.number, number)
        loss = parts.loss(batch) / step.num_samples
        value = loss.item()
        if not math.isfinite(value):
            raise not_finite(step.number + 1)
        parts.stepper.backward(loss)
        total += value
    try:
        parts.stepper.step(step.number)
    except NotFinite as error:
        raise not_finite(step.number + 1) from error
    parts.after_step()
    return total


def _obey(parts: Parts, reporter: Reporter, orders: Orders, position: int) -> bool:
    """Do what was asked between two steps, and stay in it while paused. True when the run is to end."""
    was_paused = False
    while True:
        orders.look()
        if orders.paused != was_paused:
            was_paused = orders.paused
            reporter.report(events.Paused(was_paused, position))
        if (prompts := orders.take_prompts()) is not None:
            parts.previews.replace(prompts)  # before an end, so that its snapshot has them
        if orders.ending:
            return True
        if orders.take_save() and position:
            parts.checkpoints.save(position)
        if orders.take_sample():
            parts.previews.draw(position, orders.leave_if_ending)
        if not orders.paused:
            return False
        orders.wait()


@contextmanager
def _closing(steps: Iterator[Step]) -> Iterator[Iterator[Step]]:
    """End the reader ahead of the steps in any case."""
    try:
        yield steps
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()


@contextmanager
def memory_sentence(advice: Message) -> Iterator[None]:
    """Turn running out of memory, of the card or the computer, into a sentence with `advice`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(say("There is not enough memory for this run."), advice) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory; torch's CPU allocator has no class of its own for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def not_finite(step: int) -> RunFailed:
    """The sentence for a loss that is not a number any more."""
    return RunFailed(
        say("The loss is no longer a number at step {step}; the training has come apart.", step=step),
        say("Lower the learning rate, or use bf16 or fp32 instead of fp16. The last snapshot and the saved files are good."),
    )
