"""The loop with little stand-ins for its parts: arithmetic, obedience, and how it ends when things go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.runs import AfterStep, Recorder, Script
from trainer.errors import RunFailed
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.loop import Parts, train
from trainer.messages import say
from trainer.optim.stepper import Stepper
from trainer.orders import Orders


@dataclass(frozen=True)
class FakeStep:
    number: int
    epoch: int
    batches: Sequence[Any]

    @property
    def num_samples(self) -> int:
        return sum(len(batch) for batch in self.batches)


@dataclass
class FakeCheckpoints:
    done: list[tuple[str, int]] = field(default_factory=list)

    def after(self, position: int) -> None:
        self.done.append(("after", position))

    def save(self, position: int) -> str:
        self.done.append(("save", position))
        return f"step{position}"

    def finish(self) -> str:
        return "final"


@dataclass
class FakePreviews:
    drawn: list[int] = field(default_factory=list)
    prompts: Sequence[Any] = ()
    on_draw: Callable[[], None] = lambda: None

    def after(self, position: int, look: Callable[[], None]) -> None:
        pass

    def draw(self, position: int, look: Callable[[], None]) -> None:
        self.on_draw()
        self.drawn.append(position)

    def replace(self, prompts: Sequence[Any]) -> None:
        self.prompts = prompts


def sgd(weight: torch.nn.Parameter, rate: float = 0.1) -> Stepper:
    return Stepper(torch.optim.SGD([{"params": [weight], "lr": rate}]), lambda step: 1.0)


def make_parts(
    batches: Sequence[Sequence[Sequence[float]]], loss: Callable[[Any], torch.Tensor], stepper: Stepper
) -> Parts:
    """A run of one step for each entry of `batches`, which holds that step's micro-batches."""

    def steps(start: int) -> Iterator[FakeStep]:
        yield from (FakeStep(number, 0, batches[number]) for number in range(start, len(batches)))

    return Parts(
        seed=1, start=0, total_steps=len(batches), steps=steps, loss=loss, stepper=stepper, after_step=lambda: None,
        memory=lambda: 7, checkpoints=FakeCheckpoints(), previews=FakePreviews(), memory_advice=say("Lower the batch size."),
    )  # fmt: skip


def pull(weight: torch.nn.Parameter) -> Callable[[Any], torch.Tensor]:
    """Σ xᵢ · weight over a batch: the gradient is Σ xᵢ."""
    return lambda batch: weight * sum(batch)


def run(parts: Parts, commands: Any = None, recorder: Recorder | None = None) -> tuple[events.Done, Recorder]:
    recorder = recorder or Recorder()
    return train(parts, recorder, Orders(commands or Script())), recorder


def test_a_step_is_the_sum_over_all_samples_by_their_number() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    parts = make_parts([[[1.0, 2.0], [6.0]], [[3.0]]], pull(weight), sgd(weight))
    done, recorder = run(parts)
    after_first = 1.0 - 0.1 * (1 + 2 + 6) / 3
    assert recorder.losses == pytest.approx([3.0, after_first * 3.0])
    assert weight.item() == pytest.approx(after_first - 0.1 * 3.0)
    assert (done.step, done.outcome, done.file) == (2, "finished", "final")


def test_every_step_is_told_with_rate_and_memory() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    _, recorder = run(make_parts([[[1.0]]] * 3, pull(weight), sgd(weight)))
    steps = recorder.of(events.Step)
    assert [(step.step, step.epoch, step.rates, step.memory) for step in steps] == [(n, 1, (0.1,), 7) for n in (1, 2, 3)]


def test_libraries_draw_by_the_micro_step() -> None:
    """What dropout and 8-bit rounding would draw depends on (seed, step, micro-step) and nothing that came before."""
    weight = torch.nn.Parameter(torch.tensor(1.0))
    drawn: list[float] = []

    def noisy(batch: Any) -> torch.Tensor:
        drawn.append(torch.rand(()).item())
        return weight * 0

    run(make_parts([[[1.0], [1.0]], [[1.0]]], noisy, sgd(weight)))
    whole = list(drawn)
    drawn.clear()
    torch.rand(17)
    parts = make_parts([[[1.0], [1.0]], [[1.0]]], noisy, sgd(weight))
    parts.start = 1
    run(parts)
    assert drawn == whole[2:] and len(set(whole)) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_harm(bad: float) -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))

    def loss(batch: Any) -> torch.Tensor:
        return weight * (bad if batch[0] == 2.0 else 1.0)

    parts = make_parts([[[1.0]], [[1.0], [2.0]], [[1.0]]], loss, sgd(weight))
    with pytest.raises(RunFailed, match="no longer a number at step 2"):
        run(parts)
    assert weight.item() == pytest.approx(0.9), "only the first step was taken"
    assert parts.checkpoints.done == [("after", 1)]  # type: ignore[attr-defined]


def test_a_gradient_that_is_no_number_stops_before_harm() -> None:
    weight = torch.nn.Parameter(torch.tensor(0.0))
    with pytest.raises(RunFailed, match="at step 1"):
        run(make_parts([[[1.0]]], lambda batch: weight.abs().sqrt(), sgd(weight)))
    assert weight.item() == 0.0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:126] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_says_what_to_lower(error: Exception) -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))

    def loss(batch: Any) -> torch.Tensor:
        raise error

    with pytest.raises(RunFailed) as caught:
        run(make_parts([[[1.0]]], loss, sgd(weight)))
    assert "not enough memory" in str(caught.value) and "Lower the batch size." in str(caught.value)


def test_other_errors_are_not_called_memory() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))

    def loss(batch: Any) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run(make_parts([[[1.0]]], loss, sgd(weight)))


def test_stop_saves_and_ends() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    parts, recorder = make_parts([[[1.0]]] * 5, pull(weight), sgd(weight)), Recorder()
    done, _ = run(parts, AfterStep(recorder, 2, Command("stop")), recorder)
    assert (done.step, done.outcome, done.file) == (2, "stopped", "step2")
    assert parts.checkpoints.done[-1] == ("save", 2)  # type: ignore[attr-defined]


def test_abort_ends_without_saving_even_within_a_step() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    parts = make_parts([[[1.0], [1.0], [1.0]]] * 2, pull(weight), sgd(weight))
    done, recorder = run(parts, Script({3: [Command("abort")]}))
    assert (done.step, done.outcome, done.file) == (0, "aborted", "")
    assert recorder.losses == [] and weight.item() == 1.0
    assert parts.checkpoints.done == []  # type: ignore[attr-defined]


def test_pause_waits_and_still_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.orders.PAUSE_LOOK_S", 0.001)
    weight = torch.nn.Parameter(torch.tensor(1.0))
    parts = make_parts([[[1.0]]] * 2, pull(weight), sgd(weight))
    prompts = ({"prompt": "new"},)
    script = Script({
        1: [Command("pause")], 3: [Command("save")], 5: [Command("prompts", prompts), Command("sample")],
        7: [Command("resume")],
    })  # fmt: skip
    done, recorder = run(parts, script)
    assert [event.paused for event in recorder.of(events.Paused)] == [True, False]
    assert ("save", 0) not in parts.checkpoints.done  # nothing is learnt yet
    assert parts.previews.drawn == [0]  # type: ignore[attr-defined]
    assert parts.previews.prompts == prompts  # type: ignore[attr-defined]
    assert done.outcome == "finished" and script.polls > 7


def test_stop_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.orders.PAUSE_LOOK_S", 0.001)
    weight = torch.nn.Parameter(torch.tensor(1.0))
    done, _ = run(make_parts([[[1.0]]] * 2, pull(weight), sgd(weight)),
                  Script({1: [Command("pause")], 4: [Command("stop")]}))  # fmt: skip
    assert (done.step, done.outcome) == (0, "stopped")


def test_the_reader_ahead_is_ended() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    closed: list[bool] = []
    parts = make_parts([[[1.0]]] * 3, pull(weight), sgd(weight))
    inner = parts.steps

    def steps(start: int) -> Iterator[Any]:
        try:
            yield from inner(start)
        finally:
            closed.append(True)

    parts.steps = steps
    recorder = Recorder()
    run(parts, AfterStep(recorder, 1, Command("stop")), recorder)
    assert closed == [True]
