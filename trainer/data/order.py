"""Which picture is trained when: the order of every epoch as a function of (seed, epoch), with no history."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from trainer.data.buckets import Bucket, Bucketing, Size


class ItemLike(Protocol):
    """What the order must know of a picture (`trainer.data.index.Item` is one)."""

    @property
    def id(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def is_reg(self) -> bool: ...
    @property
    def size(self) -> Size: ...
    @property
    def folder(self) -> str: ...


@dataclass(frozen=True)
class Sample:
    """A picture as the order sees it: its item's number, how often an epoch shows it, and at which size."""

    item: int
    repeats: int
    is_reg: bool
    bucket: Bucket
    folder: str = ""


class SampleRef(NamedTuple):
    """One showing of one picture. `key` names it for everything drawn at random: noise, timestep, dropout, flip."""

    epoch: int
    item: int
    repeat: int
    bucket: Bucket
    is_reg: bool = False
    flip: bool = False

    @property
    def key(self) -> tuple[int, int, int]:
        """(epoch, item, repeat): unique in a run, independent of batch size and of what came before."""
        return self.epoch, self.item, self.repeat


MicroBatch = tuple[SampleRef, ...]
Step = tuple[MicroBatch, ...]


def keyed_random(*key: int | str) -> random.Random:
    """A generator that depends on nothing but `key`; for order and choices, never for tensors."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode("utf-8")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def place(items: Iterable[ItemLike], rules: Bucketing) -> tuple[Sample, ...]:
    """Give every item its bucket."""
    return tuple(Sample(i.id, i.repeats, i.is_reg, rules.choose(i.size), i.folder) for i in items)


def class_turn(samples: Sequence[Sample]) -> list[Sample]:
    """The class pictures in the order in which epochs draw them: each `repeats` times, folders evenly mixed."""
    folders: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.is_reg:
            folders.setdefault(sample.folder, []).append(sample)
    placed = []
    for name, members in sorted(folders.items()):
        rounds = max(member.repeats for member in members)
        turn = [member for done in range(rounds) for member in members if member.repeats > done]
        placed += [((2 * n + 1) / (2 * len(turn)), name, n, sample) for n, sample in enumerate(turn)]
    return [sample for *_, sample in sorted(placed, key=itemgetter(0, 1, 2))]


def class_start(epoch: int, num_train: int, turn_length: int) -> int:
    """Where in the turn an epoch begins: each goes on where the last one ended."""
    return epoch * num_train % turn_length


class EpochOrder:
    """The batches of every epoch: one bucket a batch, short last batches kept, class pictures evenly beside training ones.

    Per epoch every training picture is shown `repeats` times, and as many class pictures (if there are any) are drawn
    in turn. The order of a single bucket does not depend on `batch_size`, so that two batches of 1 accumulated hold
    what one batch of 2 holds.
    """

    def __init__(
        self, samples: Sequence[Sample], *, batch_size: int = 1, accumulation: int = 1, seed: int = 0, flip: bool = False
    ) -> None:
        if batch_size < 1 or accumulation < 1:
            raise ValueError(f"batch size {batch_size} and accumulation {accumulation} must be at least 1")
        self.samples = tuple(samples)
        self.batch_size, self.accumulation, self.seed, self.flip = batch_size, accumulation, seed, flip
        self._train = [sample for sample in self.samples if not sample.is_reg]
        self._turn = class_turn(self.samples)
        self.num_train = sum(sample.repeats for sample in self._train)

    def steps(self, epoch: int) -> list[Step]:
        """The optimiser steps of an epoch, each a group of micro-batches; the last group may be shorter."""
        batches = self.batches(epoch)
        return [tuple(batches[at : at + self.accumulation]) for at in range(0, len(batches), self.accumulation)]

    def batches(self, epoch: int) -> list[MicroBatch]:
        """The micro-batches of an epoch in the order in which they are trained."""
        timed = []
        for bucket, (train, reg) in sorted(self._by_bucket(epoch).items()):
            draw = keyed_random(self.seed, "order", epoch, bucket.width, bucket.height)
            sequence = _mix(train, reg, draw)
            chunks = [tuple(sequence[at : at + self.batch_size]) for at in range(0, len(sequence), self.batch_size)]
            phase = draw.random()  # small buckets come at any time of the epoch, not always first
            timed += [((number + phase) / len(chunks), bucket, chunk) for number, chunk in enumerate(chunks)]
        return [chunk for _, _, chunk in sorted(timed, key=itemgetter(0, 1))]

    def refs(self, epoch: int) -> list[SampleRef]:
        """Every showing of an epoch, not yet shuffled."""
        shown = [self._ref(epoch, sample, repeat) for sample in self._train for repeat in range(sample.repeats)]
        return shown + self._class_refs(epoch)

    def _class_refs(self, epoch: int) -> list[SampleRef]:
        if not self._turn:
            return []
        start = class_start(epoch, self.num_train, len(self._turn))
        seen: dict[int, int] = {}
        refs = []
        for offset in range(self.num_train):
            sample = self._turn[(start + offset) % len(self._turn)]
            repeat = seen.get(sample.item, 0)
            seen[sample.item] = repeat + 1
            refs.append(self._ref(epoch, sample, repeat))
        return refs

    def _ref(self, epoch: int, sample: Sample, repeat: int) -> SampleRef:
        flipped = self.flip and keyed_random(self.seed, "flip", epoch, sample.item, repeat).random() < 0.5
        return SampleRef(epoch, sample.item, repeat, sample.bucket, sample.is_reg, flipped)

    def _by_bucket(self, epoch: int) -> dict[Bucket, tuple[list[SampleRef], list[SampleRef]]]:
        found: dict[Bucket, tuple[list[SampleRef], list[SampleRef]]] = {}
        for ref in self.refs(epoch):
            found.setdefault(ref.bucket, ([], []))[ref.is_reg].append(ref)
        return found


def _mix(train: list[SampleRef], reg: list[SampleRef], draw: random.Random) -> list[SampleRef]:
    """Shuffle both kinds and merge them at an even rate, so that batches hold their share of class pictures."""
    timed: list[tuple[float, bool, SampleRef]] = []
    for kind in (train, reg):
        shuffled: list[Any] = list(kind)
        draw.shuffle(shuffled)
        phase = draw.random()
        timed += [((number + phase) / len(kind), ref.is_reg, ref) for number, ref in enumerate(shuffled)]
    return [ref for _, _, ref in sorted(timed, key=itemgetter(0, 1))]
