"""How long a run will be, exactly: the steps shown to the user are the steps trained."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.buckets import Bucket
from trainer.data.order import Sample, class_start, class_turn
from trainer.messages import Message, say


@dataclass(frozen=True)
class EpochLength:
    """What one epoch holds: pictures by bucket, micro-batches, optimiser steps."""

    buckets: tuple[tuple[Bucket, int], ...]
    num_batches: int
    num_steps: int


@dataclass(frozen=True)
class StepPlan:
    """A run's length. `epoch_ends[e]` is the number of optimiser steps done when epoch `e` (counted from 0) is over.

    Epochs differ by a step or so where class pictures rotate through several buckets. A limit in steps cuts the last
    epoch short.
    """

    batch_size: int
    accumulation: int
    num_train: int  # training pictures × repeats, an epoch
    num_class: int  # class pictures an epoch
    first_epoch: EpochLength
    epoch_ends: tuple[int, ...]
    is_even: bool = True  # whether every whole epoch has the same number of steps

    @property
    def num_epochs(self) -> int:
        return len(self.epoch_ends)

    @property
    def total_steps(self) -> int:
        return self.epoch_ends[-1]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch (of the first, where they differ)."""
        return self.first_epoch.num_steps

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, step within it) of the step with number `step`, all counted from 0. Raises IndexError outside the run."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} lies outside the run of {self.total_steps}")
        epoch = bisect_right(self.epoch_ends, step)
        return epoch, step - (self.epoch_ends[epoch - 1] if epoch else 0)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends (whole or cut short) with the step of number `step`."""
        return self.epoch_ends[self.position(step)[0]] == step + 1

    def sentence(self) -> Message:
        """The arithmetic in words, for the window and the log."""
        values = {
            "train": self.num_train,
            "classes": self.num_class,
            "buckets": len(self.first_epoch.buckets),
            "batch": self.batch_size,
            "batches": self.first_epoch.num_batches,
            "accumulation": self.accumulation,
            "steps": self.steps_per_epoch,
            "epochs": self.num_epochs,
            "total": self.total_steps,
        }
        if not self.is_even:
            return say(
                "{train} training and {classes} class pictures in the first epoch (repeats counted; sizes: {buckets}) "
                "÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps. Class pictures "
                "take turns, so other epochs can differ a little. Epochs: {epochs}; steps in all: {total}.",
                **values,
            )
        if self.total_steps < self.steps_per_epoch * self.num_epochs:
            return say(
                "{train} training and {classes} class pictures an epoch (repeats counted; sizes: {buckets}) "
                "÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps an epoch. "
                "The run ends after {total} steps, in epoch {epochs}.",
                **values,
            )
        return say(
            "{train} training and {classes} class pictures an epoch (repeats counted; sizes: {buckets}) "
            "÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps × epochs {epochs} "
            "= {total} steps.",
            **values,
        )


def plan_steps(
    samples: Sequence[Sample],
    *,
    batch_size: int = 1,
    accumulation: int = 1,
    epochs: int | None = None,
    steps: int | None = None,
) -> StepPlan:
    """The length of a run: per epoch ceil(Σ over buckets of ceil(n ÷ batch) ÷ accumulation).

    n counts repeats and class pictures. A number of `steps` decides whatever the epochs; without it `epochs` do.
    Raises ValueError if there is no training picture, or no limit of at least 1.
    """
    if (steps if steps is not None else epochs or 0) < 1:
        raise ValueError("a run needs a number of epochs or of steps")
    counter = _EpochCounter(samples, batch_size, accumulation)
    first = counter.length(0)
    ends: list[int] = []
    done, is_even = 0, True
    while done < steps if steps is not None else len(ends) < (epochs or 0):
        num_steps = counter.length(len(ends)).num_steps
        is_even &= num_steps == first.num_steps
        done += num_steps
        ends.append(done if steps is None else min(done, steps))
    return StepPlan(batch_size, accumulation, counter.num_train, counter.num_class, first, tuple(ends), is_even)


def bucket_histogram(samples: Sequence[Sample]) -> dict[Bucket, int]:
    """Training and class pictures by bucket, repeats counted: what the Images page draws and the file's metadata says."""
    counts: Counter[Bucket] = Counter()
    for sample in samples:
        counts[sample.bucket] += sample.repeats
    return dict(sorted(counts.items()))


class _EpochCounter:
    """Counts an epoch without building it: class pictures are looked up by their place in the turn."""

    def __init__(self, samples: Sequence[Sample], batch_size: int, accumulation: int) -> None:
        if batch_size < 1 or accumulation < 1:
            raise ValueError(f"batch size {batch_size} and accumulation {accumulation} must be at least 1")
        self.batch_size, self.accumulation = batch_size, accumulation
        self.train: Counter[Bucket] = Counter()
        for sample in samples:
            if not sample.is_reg:
                self.train[sample.bucket] += sample.repeats
        self.num_train = self.train.total()
        if self.num_train == 0:
            raise ValueError("there is no training picture to plan for")
        turn = class_turn(samples)
        self.turn_length = len(turn)
        self.num_class = self.num_train if turn else 0
        self.places: dict[Bucket, list[int]] = {}
        for place, sample in enumerate(turn):
            self.places.setdefault(sample.bucket, []).append(place)
        self.known: dict[int, EpochLength] = {}

    def length(self, epoch: int) -> EpochLength:
        start = class_start(epoch, self.num_train, self.turn_length) if self.turn_length else 0
        if start not in self.known:
            self.known[start] = self._length(start)
        return self.known[start]

    def _length(self, start: int) -> EpochLength:
        counts = self.train.copy()
        for bucket, places in self.places.items():
            counts[bucket] += self._drawn(places, start)
        present = tuple(sorted((bucket, count) for bucket, count in counts.items() if count))
        num_batches = sum(-(-count // self.batch_size) for _, count in present)
        return EpochLength(present, num_batches, -(-num_batches // self.accumulation))

    def _drawn(self, places: list[int], start: int) -> int:
        """How many of `places` an epoch meets that goes round the turn from `start`, `num_train` pictures long."""
        rounds, rest = divmod(self.num_train, self.turn_length)
        end = start + rest
        count = rounds * len(places) + bisect_left(places, end) - bisect_left(places, start)
        return count + (bisect_left(places, end - self.turn_length) if end > self.turn_length else 0)


