"""Steps of batches for the loop: the order comes from the seed, the tensors from the cache, a thread reads ahead.

    batches = Batches(samples, latents=..., captions=..., text=..., seed=42, batch_size=2, accumulation=1)
    plan = batches.plan(epochs=10)
    for step in batches.steps(plan, start=done):        # `done` optimiser steps behind us; nothing is replayed
        for batch in step.batches:                      # one micro-step each
            eps = stack of generator(seed, "latents", *ref.key) draws for ref in batch.refs
            latents = batch.latents(eps)                # (B, C, h, w)
            loss_sum = (batch.weight * per_sample_loss).sum() / step.num_samples
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from trainer.ahead import ahead
from trainer.data.buckets import Size, size_conditions
from trainer.data.captions import CaptionRules, shape_caption
from trainer.data.order import EpochOrder, MicroBatch, Sample, SampleRef, keyed_random
from trainer.data.order import Step as StepRefs
from trainer.estimate import StepPlan, plan_steps
from trainer.models.protocol import Cond

READ_AHEAD_STEPS = 3


class LatentSource(Protocol):
    """Where a sample's encoded picture comes from (`trainer.data.cache.Latents` is one); called from one thread."""

    def moments(self, item: int, *, flip: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (C, h, w)."""
        ...

    def masked(self, item: int, variant: int, *, flip: bool) -> Tensor:
        """For an inpainting model: a mask and the latents of the picture hidden under it, (1 + C, h, w)."""
        ...


class TextSource(Protocol):
    """Where a caption's text states come from (`trainer.data.cache.TextStates` is one); called from one thread."""

    def cond(self, caption: str) -> Cond:
        """One sample."""
        ...


@dataclass(frozen=True)
class Batch:
    """One micro-step's samples, all of one bucket, on the CPU.

    `mean` and `std` (B, C, h, w) float32 are the VAE's distribution as it was cached; `cond` the cached answers of the
    text encoders, None where the text encoder must read `captions` (which are as trained: prefix, shuffle and dropout done);
    `weight` (B,) float32: 1 for training pictures, the prior loss weight for class pictures; `sizes` and `concat` as in
    `Cond`.
    """

    refs: tuple[SampleRef, ...]
    mean: Tensor
    std: Tensor
    captions: tuple[str, ...]
    cond: Cond | None
    weight: Tensor
    sizes: Tensor
    concat: Tensor | None = None

    def __len__(self) -> int:
        return len(self.refs)

    def latents(self, eps: Tensor) -> Tensor:
        """A draw from the pictures' distributions with standard normal noise `eps` (B, C, h, w)."""
        return self.mean + self.std * eps

    def under(self, text: Cond) -> Cond:
        """All that the prediction is made under: what the text encoders say, and what is known of the pictures."""
        return replace(text, sizes=self.sizes, concat=self.concat)


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number and epoch (both from 0), and its micro-batches in order."""

    number: int
    epoch: int
    batches: tuple[Batch, ...]
    ends_epoch: bool

    @property
    def num_samples(self) -> int:
        """N in Σ wᵢ·lᵢ ÷ N: all samples of the step, accumulation included."""
        return sum(len(batch) for batch in self.batches)


class Batches:
    """The run's batches. Everything about a step follows from its number; any step can be asked for at any time.

    `captions` maps an item's number to its caption as read from disk, `sizes` to its picture's size. With `text` the
    captions are constant and their states cached: caption dropout is then the states of the empty caption. With `masks`
    (for an inpainting model) each showing draws one of so many masks of its picture. Raises ValueError if `text` is given
    with captions that are shuffled.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        latents: LatentSource,
        captions: Mapping[int, str],
        sizes: Mapping[int, Size],
        text: TextSource | None = None,
        rules: CaptionRules | None = None,
        seed: int = 0,
        batch_size: int = 1,
        accumulation: int = 1,
        flip: bool = False,
        prior_loss_weight: float = 1.0,
        masks: int = 0,
    ) -> None:
        self.rules = rules or CaptionRules()
        if text is not None and not self.rules.cacheable:
            raise ValueError("shuffled captions have no cached text states")
        self.order = EpochOrder(samples, batch_size=batch_size, accumulation=accumulation, seed=seed, flip=flip)
        self._latents, self._text, self._captions, self._sizes = latents, text, captions, sizes
        self._seed, self._prior_loss_weight, self._masks = seed, prior_loss_weight, masks
        self._epoch_cache: tuple[int, list[StepRefs]] = (-1, [])

    def plan(self, *, epochs: int | None = None, steps: int | None = None) -> StepPlan:
        """The run's exact length."""
        order = self.order
        return plan_steps(
            order.samples, batch_size=order.batch_size, accumulation=order.accumulation, epochs=epochs, steps=steps
        )

    def steps(self, plan: StepPlan, start: int = 0) -> Iterator[Step]:
        """The steps from number `start` to the plan's end, read ahead by a thread that ends with the iterator."""
        numbers = range(start, plan.total_steps)
        with closing(ahead(partial(self.step, plan), numbers, READ_AHEAD_STEPS, name="batches")) as ready:
            for _, step in ready:
                yield step

    def step(self, plan: StepPlan, number: int) -> Step:
        """The step of that number (from 0). Raises IndexError outside the plan."""
        epoch, at = plan.position(number)
        batches = tuple(self.batch(refs) for refs in self._epoch(epoch)[at])
        return Step(number, epoch, batches, plan.ends_epoch(number))

    def batch(self, refs: MicroBatch) -> Batch:
        """Load one micro-batch."""
        moments = [self._latents.moments(ref.item, flip=ref.flip) for ref in refs]
        captions = tuple(self._caption(ref) for ref in refs)
        return Batch(
            refs=refs,
            mean=torch.stack([mean for mean, _ in moments]).float(),
            std=torch.stack([std for _, std in moments]).float(),
            captions=captions,
            cond=None if self._text is None else Cond.stack([self._text.cond(text) for text in captions]),
            weight=torch.tensor([self._prior_loss_weight if ref.is_reg else 1.0 for ref in refs]),
            sizes=torch.tensor([size_conditions(self._sizes[ref.item], ref.bucket, ref.flip) for ref in refs]).float(),
            concat=torch.stack([self._masked(ref) for ref in refs]).float() if self._masks else None,
        )

    def _masked(self, ref: SampleRef) -> Tensor:
        variant = keyed_random(self._seed, "mask", *ref.key).randrange(self._masks)
        return self._latents.masked(ref.item, variant, flip=ref.flip)

    def _caption(self, ref: SampleRef) -> str:
        return shape_caption(self._captions[ref.item], self.rules, (self._seed, *ref.key))

    def _epoch(self, epoch: int) -> list[StepRefs]:
        if self._epoch_cache[0] != epoch:
            self._epoch_cache = (epoch, self.order.steps(epoch))
        return self._epoch_cache[1]
