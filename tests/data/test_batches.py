"""Batches as the loop gets them: their tensors, their number, and any of them again at any time."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.data.test_order import BUCKETS, datasets
from trainer.data.batches import Batch, Batches, Step
from trainer.data.buckets import size_conditions
from trainer.data.captions import CaptionRules
from trainer.data.order import Sample
from trainer.errors import RunFailed
from trainer.messages import say
from trainer.models.protocol import Cond


class Encoded:
    """Latents whose values tell item and mirroring; text states whose values tell the caption's length."""

    def moments(self, item: int, *, flip: bool) -> tuple[Tensor, Tensor]:
        return torch.full((4, 8, 8), item + 0.5 * flip, dtype=torch.float16), torch.full((4, 8, 8), 0.25)

    def cond(self, caption: str) -> Cond:
        return Cond(torch.full((1, 5, 3), float(len(caption))))


    def masked(self, item: int, variant: int, *, flip: bool) -> Tensor:
        return torch.full((5, 8, 8), 100 * variant + item + 0.5 * flip)


CAPTIONS = dict.fromkeys(range(99), "a, b, c")
SIZES = {number: (500 + number, 900) for number in range(99)}
SAMPLES = [Sample(n, 2, n > 4, BUCKETS[n % 2]) for n in range(8)]


def batches(samples: list[Sample] = SAMPLES, **options: object) -> Batches:
    return Batches(samples, latents=Encoded(), captions=CAPTIONS, sizes=SIZES, **options)  # type: ignore[arg-type]


def same(one: Step, other: Step) -> bool:
    def facts(batch: Batch) -> tuple[object, ...]:
        cond = None if batch.cond is None else batch.cond.states.tolist()
        masks = None if batch.concat is None else batch.concat.tolist()
        values = batch.mean.tolist(), cond, batch.weight.tolist(), batch.sizes.tolist(), masks
        return batch.refs, batch.captions, *values

    return (one.number, one.epoch, one.ends_epoch) == (other.number, other.epoch, other.ends_epoch) and [
        facts(batch) for batch in one.batches
    ] == [facts(batch) for batch in other.batches]


@settings(max_examples=30)
@given(datasets(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_steps_yielded_are_steps_planned(samples: list[Sample], batch_size: int, accumulation: int, epochs: int) -> None:
    made = batches(samples, batch_size=batch_size, accumulation=accumulation)
    plan = made.plan(epochs=epochs)
    steps = list(made.steps(plan))
    assert [step.number for step in steps] == list(range(plan.total_steps))
    assert sum(step.ends_epoch for step in steps) == epochs
    assert sum(step.num_samples for step in steps) == epochs * (plan.num_train + plan.num_class)


def test_any_step_can_be_had_at_any_time_without_a_past() -> None:
    options = {"batch_size": 2, "accumulation": 2, "seed": 5, "flip": True, "masks": 4,
               "rules": CaptionRules(shuffle=True, dropout=0.3)}  # fmt: skip
    whole = batches(**options)
    plan = whole.plan(epochs=4)
    steps = list(whole.steps(plan))
    for start in (0, 1, 7, plan.total_steps - 1):
        resumed = batches(**options)
        assert all(same(a, b) for a, b in zip(resumed.steps(plan, start), steps[start:], strict=True))


def test_a_batch_holds_what_the_order_says() -> None:
    rules = CaptionRules(prefix="xy", dropout=0.5)
    made = batches(batch_size=4, text=Encoded(), prior_loss_weight=0.3, flip=True, rules=rules)
    captions = set()
    for step in made.steps(made.plan(epochs=2)):
        for batch in step.batches:
            assert batch.mean.shape == (len(batch), 4, 8, 8) and batch.mean.dtype == torch.float32
            assert batch.cond is not None and batch.cond.states.shape == (len(batch), 5, 3)
            for n, ref in enumerate(batch.refs):
                assert batch.mean[n, 0, 0, 0] == ref.item + 0.5 * ref.flip
                assert batch.weight[n] == pytest.approx(0.3 if ref.is_reg else 1.0)
                assert batch.cond.states[n, 0, 0] == len(batch.captions[n])
            captions |= set(batch.captions)
            assert torch.equal(batch.latents(torch.ones_like(batch.mean)), batch.mean + 0.25)
    assert captions == {"", "xy a, b, c"}


def test_without_cached_text_the_captions_are_given() -> None:
    step = next(batches(rules=CaptionRules(shuffle=True, keep_tokens=1)).steps(batches().plan(epochs=1)))
    assert step.batches[0].cond is None and step.batches[0].captions[0].startswith("a, ")


def test_sizes_are_those_of_each_showing() -> None:
    made = batches(flip=True, batch_size=4)
    for step in made.steps(made.plan(epochs=1)):
        (batch,) = step.batches
        expected = [size_conditions(SIZES[ref.item], ref.bucket, ref.flip) for ref in batch.refs]
        assert batch.sizes.dtype == torch.float32 and batch.sizes.tolist() == [list(map(float, row)) for row in expected]
        assert batch.concat is None and batch.under(Cond(torch.zeros(len(batch), 5, 3))).sizes is batch.sizes


def test_each_showing_draws_one_of_its_pictures_masks() -> None:
    made = batches(flip=True, masks=3, batch_size=2)
    drawn = []
    for step in made.steps(made.plan(epochs=40)):
        (batch,) = step.batches
        assert batch.concat is not None and batch.concat.shape == (len(batch), 5, 8, 8)
        for ref, value in zip(batch.refs, batch.concat[:, 0, 0, 0].tolist(), strict=True):
            variant, rest = divmod(value, 100)
            assert rest == ref.item + 0.5 * ref.flip
            drawn.append(variant)
    assert all(0.25 < drawn.count(variant) / len(drawn) < 0.42 for variant in (0, 1, 2))


def test_shuffled_captions_have_no_cached_states() -> None:
    with pytest.raises(ValueError, match="no cached text states"):
        batches(text=Encoded(), rules=CaptionRules(shuffle=True))


def test_the_reader_goes_when_the_loop_goes() -> None:
    made = batches()
    steps = made.steps(made.plan(epochs=50))
    next(steps)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    steps.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_what_fails_in_the_reader_reaches_the_loop() -> None:
    class Lost(Encoded):
        def moments(self, item: int, *, flip: bool) -> tuple[Tensor, Tensor]:
            raise RunFailed(say("It is lost."))

    made = Batches(SAMPLES, latents=Lost(), captions=CAPTIONS, sizes=SIZES)
    with pytest.raises(RunFailed, match="It is lost"):
        list(made.steps(made.plan(epochs=1)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
