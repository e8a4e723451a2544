"""The canvas of a run's curves: what it draws of many steps, of gaps, and what it calls its lines."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from app import theme
from app.journal import History, to_array
from app.preferences import Preferences
from app.widgets.loss_plot import LossPlot
from app.widgets.plot import Curve, Plot
from tests.app.test_journal import batch, rows
from trainer.ipc import events
from trainer.ipc.journal import Record, step_row


def drawn(plot: Plot) -> QImage:
    return plot.grab().toImage()


def has_colour(image: QImage, wanted: QColor, x: int) -> bool:
    """Whether a pixel of column `x` looks like `wanted`."""
    for y in range(image.height()):
        found = image.pixelColor(x, y)
        if max(abs(found.red() - wanted.red()), abs(found.green() - wanted.green()), abs(found.blue() - wanted.blue())) < 12:
            return True
    return False


@pytest.fixture
def plot(app: QApplication) -> Plot:
    made = Plot("test")
    made.resize(600, 300)
    made.show()
    return made


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("count", [1, 2, 300, 50_000])
def test_curves_of_any_length_are_drawn(plot: Plot, count: int, log_scale: bool) -> None:
    x = np.arange(1.0, count + 1)
    y = 1 / x + 0.1
    y[count // 2 :: 7] = np.nan
    plot.set_log_scale(log_scale)
    plot.show_curves([Curve("a", x, y, "accent", 1.0, 0.3), Curve("b", x, y, "info", 2.0)], end=count)
    image = drawn(plot)
    assert count < 3 or has_colour(image, theme.qcolour("info"), image.width() // 3)


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("change", [0.0, 1e-16, 1e-5, 0.01])
def test_the_axis_of_a_curve_that_hardly_changes_has_numbers_apart(plot: Plot, change: float, log_scale: bool) -> None:
    x = np.arange(100.0)
    plot.set_log_scale(log_scale)
    plot.show_curves([Curve("a", x, 0.1 * (1 + change * np.sin(x)), "accent", 1.0)], end=100)
    words = [text for _, text in plot._y_ticks(plot.view())]
    assert len(set(words)) == len(words) >= 2


def test_a_gap_is_not_bridged(plot: Plot) -> None:
    x = np.arange(100.0)
    y = np.ones(100)
    y[40:60] = np.nan
    plot.show_curves([Curve("a", x, y, "info", 2.0)], end=100)
    image = drawn(plot)
    middle = round(plot.view().area.left() + plot.view().area.width() / 2)
    assert not has_colour(image, theme.qcolour("info"), middle)
    assert has_colour(image, theme.qcolour("info"), middle // 2 + 20)


def test_a_peak_among_many_steps_stays(plot: Plot) -> None:
    y = np.full(80_000, 0.5)
    y[30_000] = 1.0
    plot.show_curves([Curve("raw", np.arange(80_000.0), y, "accent", 1.0, 0.3)], end=80_000)
    view = plot.view()
    assert view.high >= 0.5
    plot.show_curves([Curve("strong", np.arange(80_000.0), y, "accent", 2.0)], end=80_000)
    assert plot.view().high >= 1.0


@pytest.mark.parametrize("opacity", [1.0, 0.3])
def test_a_thick_line_that_goes_up_and_down_is_drawn_in_time(plot: Plot, opacity: float) -> None:
    """As one polyline it took a second: Qt's time for one goes with the square of its parts."""
    count = 3 * plot.width()
    y = np.random.default_rng(1).random(count)
    plot.show_curves([Curve("a", np.arange(float(count)), y, "info", 2.0, opacity)], end=count)
    began = time.thread_time()
    image = drawn(plot)
    assert time.thread_time() - began < 0.25
    assert has_colour(image, theme.qcolour("info"), image.width() // 2) is (opacity == 1.0)


def test_a_file_saved_at_the_last_step_has_its_whole_mark(plot: Plot) -> None:
    x = np.arange(101.0)
    plot.show_curves([Curve("a", x, x, "info")], end=100, marks=[50, 100])
    image, view = drawn(plot), plot.view()
    for step in (50, 100):
        middle = view.area.left() + view.area.width() * step / 100
        for side in (-2, 2):
            assert has_colour(image, theme.qcolour("good"), round(middle + side)), step


def test_nothing_to_draw_is_drawn_too(plot: Plot) -> None:
    plot.show_curves([Curve("a", np.empty(0), np.empty(0), "accent")], end=0)
    drawn(plot)
    plot.show_curves([Curve("a", np.arange(9_000.0), np.full(9_000, np.nan), "accent", 1.0, 0.3)], end=9_000)
    drawn(plot)


def test_the_pointer_moves_over_a_kept_picture(plot: Plot) -> None:
    x = np.arange(100.0)
    plot.show_curves([Curve("a", x, x, "info")], end=100)
    drawn(plot)
    kept = plot._drawn
    plot._pointer = 300.0
    plot.grab()
    assert plot._drawn is kept
    plot.show_curves([Curve("a", x, 2 * x, "info")], end=100)
    assert plot._drawn is None


def test_the_plot_is_used_by_keys_too(plot: Plot) -> None:
    x = np.arange(1001.0)
    plot.show_curves([Curve("a", x, x, "info")], end=1000)
    seen: list[float] = []
    plot.pointed.connect(seen.append)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Left):
        QTest.keyClick(plot, key)
    assert len(seen) == 3 and seen[1] > seen[0] > 500 and abs(seen[2] - seen[0]) < 1
    QTest.keyClick(plot, Qt.Key.Key_Plus)
    view = plot.view()
    assert view.left > 200 and view.right < 800
    plot.grab()
    QTest.keyClick(plot, Qt.Key.Key_Escape)
    assert (plot.view().left, plot.view().right) == (0, 1000)


def rate_names(plan_rates: tuple[str, ...], rates: tuple[float, ...]) -> list[str]:
    """What the plot calls the rates of a run."""
    history = History()
    step = Record(2, 0.0, events.Step(1, 1, 0.5, rates, 0.5))
    history.apply(batch(Record(1, 0.0, events.Plan(10, 10, 1, 10, 0, 1, 1, plan_rates)), to_array([step_row(step)])))
    plot = LossPlot(Preferences())
    plot.rate_button.setChecked(True)
    plot.show_history(history)
    return [curve.name for curve, _, _ in plot.plot.values_at(1.0)]


def test_rates_are_called_by_the_parts_that_learn(app: QApplication) -> None:
    assert rate_names(("text_encoder",), (5e-5,)) == ["text encoder"]
    assert rate_names(("unet",), (1e-4,)) == ["UNet"]
    both = ("unet", "text_encoder", "text_encoder_2")
    assert rate_names(both, (1e-4, 5e-5, 5e-5)) == ["UNet", "text encoder", "second text encoder"]


def test_the_smoothed_loss_follows_the_slider(app: QApplication) -> None:
    history = History()
    history.apply(batch(rows(1, 50, 1), rows(51, 60, 51, loss=5.0)))
    plot = LossPlot(Preferences())
    plot.smoothing.setValue(0)
    plot.show_history(history)
    assert plot.last_smoothed == 5.0
    plot.smoothing.setValue(90)
    assert plot.last_smoothed is not None and 0.5 < plot.last_smoothed < 5.0
    assert not math.isnan(plot.last_smoothed)
