"""The order of training: nothing lost, nothing doubled, everything from (seed, epoch)."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.buckets import Bucket
from trainer.data.order import EpochOrder, Sample, class_turn

BUCKETS = (Bucket(512, 512), Bucket(640, 384), Bucket(384, 640))


@st.composite
def datasets(draw: st.DrawFn) -> list[Sample]:
    """At least one training picture, any number of class pictures, in up to three buckets and folders."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(1, 5), st.booleans(), st.sampled_from(BUCKETS), st.sampled_from("abc")), max_size=25
        )
    )
    first = Sample(0, draw(st.integers(1, 5)), False, BUCKETS[0], "a")
    return [first, *(Sample(n, *row) for n, row in enumerate(rows, 1))]


@given(datasets(), st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**32))
def test_every_epoch_shows_each_training_picture_as_often_as_its_repeats(
    samples: list[Sample], batch_size: int, accumulation: int, epoch: int, seed: int
) -> None:
    order = EpochOrder(samples, batch_size=batch_size, accumulation=accumulation, seed=seed, flip=True)
    batches = list(itertools.chain.from_iterable(order.steps(epoch)))
    refs = [ref for batch in batches for ref in batch]
    shown = Counter(ref.item for ref in refs if not ref.is_reg)
    assert shown == {sample.item: sample.repeats for sample in samples if not sample.is_reg}
    has_class = any(sample.is_reg for sample in samples)
    assert sum(ref.is_reg for ref in refs) == (shown.total() if has_class else 0)
    assert len({ref.key for ref in refs}) == len(refs)
    assert all(len({ref.bucket for ref in batch}) == 1 and len(batch) <= batch_size for batch in batches)


@given(datasets(), st.integers(1, 4), st.integers(0, 2**32))
def test_class_pictures_go_round_evenly_over_the_epochs(samples: list[Sample], epochs: int, seed: int) -> None:
    order = EpochOrder(samples, seed=seed)
    turn = class_turn(samples)
    drawn = Counter(ref.item for epoch in range(epochs) for ref in order.refs(epoch) if ref.is_reg)
    if not turn:
        assert not drawn
        return
    repeats = {sample.item: sample.repeats for sample in turn}
    rounds = [drawn[item] / repeats[item] for item in repeats]
    assert drawn.total() == epochs * order.num_train
    assert max(rounds) - min(rounds) <= 1  # nobody is a whole round ahead


def test_the_turn_mixes_class_folders() -> None:
    samples = [Sample(n, 1, True, BUCKETS[0], "many") for n in range(8)]
    samples += [Sample(n, 1, True, BUCKETS[0], "few") for n in (8, 9)]
    folders = [sample.folder for sample in class_turn(samples)]
    assert "few" in folders[:5] and "few" in folders[5:]


def test_class_pictures_stand_beside_training_pictures_in_every_batch() -> None:
    samples = [Sample(n, 1, False, BUCKETS[0]) for n in range(32)] + [Sample(n, 1, True, BUCKETS[0]) for n in range(32, 99)]
    for batch in EpochOrder(samples, batch_size=8, seed=3).batches(0):
        assert 3 <= sum(ref.is_reg for ref in batch) <= 5


def test_two_batches_of_one_hold_what_one_batch_of_two_holds() -> None:
    samples = [Sample(n, 2, n > 3, BUCKETS[0]) for n in range(9)]
    twos = EpochOrder(samples, batch_size=2, accumulation=1, seed=7).steps(1)
    ones = EpochOrder(samples, batch_size=1, accumulation=2, seed=7).steps(1)
    assert [list(itertools.chain(*step)) for step in twos] == [list(itertools.chain(*step)) for step in ones]


def test_epochs_and_seeds_differ_and_nothing_depends_on_history() -> None:
    samples = [Sample(n, 1, False, BUCKETS[n % 3]) for n in range(12)]
    order = EpochOrder(samples, batch_size=2, seed=1, flip=True)
    later = order.batches(5)
    assert EpochOrder(samples, batch_size=2, seed=1, flip=True).batches(5) == later
    assert [[ref.item for ref in batch] for batch in order.batches(4)] != [[r.item for r in batch] for batch in later]
    assert EpochOrder(samples, batch_size=2, seed=2, flip=True).batches(5) != later


def test_half_of_the_showings_are_mirrored_only_if_asked() -> None:
    samples = [Sample(n, 10, False, BUCKETS[0]) for n in range(100)]
    flipped = [ref.flip for ref in EpochOrder(samples, flip=True).refs(0)]
    assert 400 < sum(flipped) < 600
    assert not any(ref.flip for ref in EpochOrder(samples).refs(0))


def test_small_buckets_come_at_any_time_of_the_epoch() -> None:
    samples = [Sample(n, 1, False, BUCKETS[0]) for n in range(99)] + [Sample(99, 1, False, BUCKETS[1])]
    order = EpochOrder(samples, seed=5)
    places = [next(at for at, batch in enumerate(order.batches(e)) if batch[0].item == 99) for e in range(40)]
    assert min(places) < 25 and max(places) > 75


def test_the_order_is_the_same_on_every_machine() -> None:
    samples = [Sample(n, 1, n > 2, BUCKETS[n % 2]) for n in range(6)]
    order = [[ref.item for ref in batch] for batch in EpochOrder(samples, batch_size=2, seed=42).batches(3)]
    assert order == [[5, 3], [0, 4], [1], [2]], "the order for a seed has changed: runs can no longer be resumed or repeated"


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EpochOrder([], batch_size=0)
