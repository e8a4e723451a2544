"""Steps shown are steps trained: the plan against the order, for any dataset."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_order import BUCKETS, datasets
from trainer.data.order import EpochOrder, Sample
from trainer.estimate import bucket_histogram, plan_steps


@given(datasets(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_the_plan_counts_exactly_the_steps_of_every_epoch(
    samples: list[Sample], batch_size: int, accumulation: int, epochs: int
) -> None:
    order = EpochOrder(samples, batch_size=batch_size, accumulation=accumulation, seed=9)
    plan = plan_steps(samples, batch_size=batch_size, accumulation=accumulation, epochs=epochs)
    lengths = [len(order.steps(epoch)) for epoch in range(epochs)]
    assert plan.total_steps == sum(lengths)
    assert [plan.position(step)[0] for step in range(plan.total_steps)] == [
        epoch for epoch, length in enumerate(lengths) for _ in range(length)
    ]
    assert plan.is_even == (len(set(lengths)) == 1)
    assert plan.first_epoch.num_batches == len(order.batches(0))
    assert dict(plan.first_epoch.buckets) == {
        bucket: sum(ref.bucket == bucket for ref in order.refs(0)) for bucket in {ref.bucket for ref in order.refs(0)}
    }


@given(datasets(), st.integers(1, 3), st.integers(1, 60))
def test_a_limit_in_steps_is_met_exactly(samples: list[Sample], batch_size: int, steps: int) -> None:
    plan = plan_steps(samples, batch_size=batch_size, steps=steps)
    assert plan.total_steps == steps
    order = EpochOrder(samples, batch_size=batch_size)
    assert sum(len(order.steps(epoch)) for epoch in range(plan.num_epochs - 1)) < steps
    assert sum(len(order.steps(epoch)) for epoch in range(plan.num_epochs)) >= steps


def test_the_formula_of_the_manual() -> None:
    samples = [Sample(n, 10, False, BUCKETS[n % 2]) for n in range(15)]  # 80 in one bucket, 70 in the other
    plan = plan_steps(samples, batch_size=4, accumulation=3, epochs=7)
    assert plan.steps_per_epoch == ceil((ceil(80 / 4) + ceil(70 / 4)) / 3) == 13
    assert plan.total_steps == 91 and plan.num_train == 150 and plan.num_class == 0
    assert "÷ batch size 4 → 38 batches ÷ accumulation 3 → 13 steps × epochs 7 = 91 steps." in str(plan.sentence())


def test_class_pictures_double_the_epoch_however_many_there_are() -> None:
    train = [Sample(n, 3, False, BUCKETS[0]) for n in range(4)]
    for num_class in (1, 5, 100):
        samples = train + [Sample(4 + n, 1, True, BUCKETS[0]) for n in range(num_class)]
        assert plan_steps(samples, epochs=1).total_steps == 24


def test_epochs_may_differ_where_class_pictures_rotate_and_the_sentence_says_so() -> None:
    samples = [Sample(0, 3, False, BUCKETS[0])]
    samples += [Sample(n, 1, True, BUCKETS[n % 3]) for n in range(1, 6)]
    plan = plan_steps(samples, batch_size=3, epochs=5)
    assert not plan.is_even
    assert "other epochs can differ" in str(plan.sentence())


def test_where_epochs_end() -> None:
    plan = plan_steps([Sample(0, 3, False, BUCKETS[0])], steps=7)
    assert "3 steps an epoch. The run ends after 7 steps, in epoch 3." in str(plan.sentence())
    assert [step for step in range(7) if plan.ends_epoch(step)] == [2, 5, 6]
    with pytest.raises(IndexError):
        plan.position(7)


def test_a_plan_needs_pictures_and_an_end() -> None:
    with pytest.raises(ValueError, match="no training picture"):
        plan_steps([Sample(0, 1, True, BUCKETS[0])], epochs=1)
    with pytest.raises(ValueError, match="epochs or of steps"):
        plan_steps([Sample(0, 1, False, BUCKETS[0])])


def test_the_histogram_counts_repeats() -> None:
    samples = [Sample(0, 3, False, BUCKETS[0]), Sample(1, 2, True, BUCKETS[1]), Sample(2, 1, False, BUCKETS[0])]
    assert bucket_histogram(samples) == {BUCKETS[0]: 4, BUCKETS[1]: 2}
