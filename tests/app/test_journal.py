"""A run's history in the window: superseded steps, order, smoothing, thinning, pace; without any widget."""

from __future__ import annotations

import numpy as np
import pytest

from app.journal import LOSS, STEP, Batch, History, band, smoothed, thinned, to_array
from trainer.ipc import events
from trainer.ipc.journal import Record, step_row
from trainer.ipc.pipe import Picture


def rows(first: int, last: int, number: int, loss: float = 0.5, start_time: float = 0.0) -> np.ndarray:
    """Steps first…last as rows, their events numbered from `number`, two seconds apart."""
    made = []
    for offset, step in enumerate(range(first, last + 1)):
        event = events.Step(step, (step - 1) // 10 + 1, loss, (1e-4,), 0.5, 1 << 30)
        made.append(step_row(Record(number + offset, start_time + 2.0 * offset, event)))
    return to_array(made)


def batch(*items: object) -> Batch:
    made = Batch()
    for item in items:
        made.add(item)  # type: ignore[arg-type]
    return made


def hello(number: int, from_step: int) -> Record:
    return Record(number, 0.0, events.Hello(1, 1, 0.0, from_step, 100, 10, 10, "cpu"))


def test_a_resumed_run_supersedes_the_steps_behind_its_snapshot() -> None:
    history = History()
    history.apply(batch(hello(1, 0), rows(1, 30, 2)))
    history.apply(batch(hello(32, 20), rows(21, 40, 33, loss=0.25)))
    assert history.column(STEP).tolist() == list(range(1, 41))
    assert history.column(LOSS)[[19, 20]].tolist() == [0.5, 0.25]
    assert history.step == 40 and history.epoch == 4 and history.epoch_ends == [10, 20, 30]


def test_what_is_known_already_is_left_out() -> None:
    history = History()
    for _ in range(2):
        history.apply(batch(hello(1, 0), rows(1, 30, 2)))
    history.apply(batch(rows(21, 40, 22)))
    assert history.column(STEP).tolist() == list(range(1, 41))


def test_a_new_worker_makes_a_run_that_had_ended_go_on() -> None:
    history = History()
    history.apply(batch(hello(1, 0), rows(1, 5, 2), Record(7, 0.0, events.Done(5, "stopped"))))
    assert history.done is not None
    history.apply(batch(Record(8, 0.0, events.Stage("loading"))))
    assert history.done is None and history.failed is None


def test_time_left_is_the_pace_of_late_and_a_pause_is_not_counted() -> None:
    history = History()
    history.apply(batch(hello(1, 0), rows(1, 50, 2)))
    assert history.seconds_left == pytest.approx(100)
    history.apply(batch(Record(52, 0.0, events.Paused(True, 50)), Record(53, 0.0, events.Paused(False, 50))))
    assert history.seconds_left is None
    history.apply(batch(rows(51, 52, 54, start_time=1e6)))
    assert history.seconds_left == pytest.approx(96)


def test_a_live_picture_belongs_to_its_sample() -> None:
    history = History()
    sample = Record(1, 0.0, events.Sample(10, 0, "a", 7, "samples/a.png"))
    history.apply(batch(sample, Picture(1, b"jpeg"), Picture(99, b"of nobody")))
    assert history.thumbnails == {"samples/a.png": b"jpeg"}


def test_rows_without_a_second_rate_or_with_a_loss_that_is_none_are_nan() -> None:
    made = to_array([[1, 0.0, 1, 1, None, 0.5, 0, 1e-4]])
    assert np.isnan(made[0, LOSS]) and np.isnan(made[0, -1])


@pytest.mark.parametrize("weight", [0.1, 0.9, 0.99, 0.9999])
def test_smoothing_is_the_running_mean_without_bias(weight: float) -> None:
    values = np.random.default_rng(0).random(3000)
    values[[5, 100]] = np.nan
    total = count = 0.0
    wanted = []
    for value in values:
        known = np.isfinite(value)
        total = weight * total + (value if known else 0.0)
        count = weight * count + known
        wanted.append(total / count)
    assert np.allclose(smoothed(values, weight), wanted, rtol=1e-9)


def test_smoothing_by_nothing_and_of_nothing() -> None:
    assert smoothed(np.array([1.0, 2.0]), 0).tolist() == [1, 2]
    assert len(smoothed(np.empty(0), 0.9)) == 0
    assert np.isnan(smoothed(np.array([np.nan]), 0.9)[0])


def test_a_band_holds_the_least_and_the_greatest_of_each_stretch() -> None:
    x, y = np.arange(1.0, 11.0), np.array([3.0, 1.0, 2.0, np.nan, 5.0, 4.0, np.nan, np.nan, 9.0, 8.0])
    least, greatest = band(x, y, np.array([0.0, 4.0, 6.5, 8.5, 8.6, 10.0, 30.0]))
    assert np.array_equal(least, [1, 4, np.nan, np.nan, 9, 8], equal_nan=True)
    assert np.array_equal(greatest, [3, 5, np.nan, np.nan, 9, 8], equal_nan=True)
    assert np.isnan(band(x[:0], y[:0], np.array([0.0, 1.0]))[0]).all()


def test_a_thinned_curve_keeps_its_peaks_and_ends() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 5000)
    y[[12_345, 67_890]] = [9, -9]
    y[500:700] = np.nan
    thin_x, thin_y = thinned(x, y, 1000)
    assert len(thin_x) < 1300 and np.all(np.diff(thin_x) >= 0)
    assert np.nanmax(thin_y) == 9 and np.nanmin(thin_y) == -9
    assert thinned(x[:50], y[:50], 1000)[0] is not None and len(thinned(x[:50], y[:50], 1000)[0]) == 50
