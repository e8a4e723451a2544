"""The curves of a run: loss (raw faint, smoothed strong) or learning rates over the steps, with what the pointer is at."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QButtonGroup, QLayout, QSlider, QVBoxLayout, QWidget

from app import theme
from app.editors import Switch
from app.i18n import tr
from app.journal import LOSS, MAX_RATES, ROW_COLUMNS, STEP, Floats, History, epoch_at, smoothed
from app.preferences import Preferences
from app.widgets.basics import button, label, set_role
from app.widgets.flow import FlowLayout
from app.widgets.plot import Curve, Plot
from app.words import part_words

SMOOTHING = "plot_smoothing"  # preference: 0 to 100


class LossPlot(QWidget):
    """See the module. `show_history` draws; the log switch and the smoothing are remembered."""

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        self._preferences = preferences
        self._history = History()
        self._smoothed_state: tuple[int, int, float] = (0, -1, 0.0)
        self._smoothed_values: Floats = np.empty(0)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(theme.SPACE))
        self.plot = Plot(tr("Loss over the steps"))
        self.readout = label("", "small", wrap=True)
        column.addLayout(self._build_controls())
        column.addWidget(self.plot, 1)
        column.addWidget(self.readout)
        self.plot.pointed.connect(self._on_pointed)
        self.plot.set_log_scale(self.log_switch.isChecked())
        self._on_pointed(math.nan)

    def _build_controls(self) -> QLayout:
        self.loss_button = button(tr("Loss"), self.refresh, role="flat")
        self.rate_button = button(tr("Learning rate"), self.refresh, role="flat")
        self._which = QButtonGroup(self, exclusive=True)
        for made in (self.loss_button, self.rate_button):
            made.setCheckable(True)
            self._which.addButton(made)
        self.loss_button.setChecked(True)
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.smoothing.setAccessibleName(tr("Smoothing"))
        self.smoothing.setRange(0, 100)
        self.smoothing.setValue(int(self._preferences.get(SMOOTHING, 60)))
        self.smoothing.setFixedWidth(theme.px(110))
        self.smoothing.valueChanged.connect(self._on_smoothing)
        self.log_switch = Switch(tr("Log scale"))
        self.log_switch.setChecked(bool(self._preferences.get("plot_log", False)))
        self.log_switch.toggled.connect(self._on_log)
        self.smoothing_name = label(tr("Smoothing"), "small")
        flow = FlowLayout(None, theme.px(theme.SPACE))
        for widget in (self.loss_button, self.rate_button, self.smoothing_name, self.smoothing, self.log_switch):
            flow.addWidget(widget)
        return flow

    @property
    def weight(self) -> float:
        """Of the running mean: 0 (slider at 0) to 0.999 (at 100)."""
        value = self.smoothing.value()
        return 0.0 if value == 0 else 1 - 10 ** (-3 * value / 100)

    @property
    def last_smoothed(self) -> float | None:
        """The loss at the end of the smoothed curve, None before the first step."""
        values = self._smoothed()
        return float(values[-1]) if len(values) and math.isfinite(values[-1]) else None

    def show_history(self, history: History) -> None:
        """Draw the run as it stands."""
        self._history = history
        self.refresh()

    def refresh(self) -> None:
        history = self._history
        is_loss = self.loss_button.isChecked()
        for made in (self.loss_button, self.rate_button):
            set_role(made, "" if made.isChecked() else "flat")
        self.smoothing.setVisible(is_loss)
        self.smoothing_name.setVisible(is_loss)
        curves = self._loss_curves() if is_loss else self._rate_curves()
        saves = [saved.step for saved in history.files if saved.what != "export"]
        end = max(history.total_steps, history.step)
        self.plot.show_curves(curves, end=end, lines=history.epoch_ends, marks=saves)

    def _loss_curves(self) -> list[Curve]:
        steps, loss = self._history.column(STEP), self._history.column(LOSS)
        strong = Curve(tr("smoothed"), steps, self._smoothed(), "accent", 2.0)
        if self.weight == 0:
            return [strong]
        return [Curve(tr("loss"), steps, loss, "accent", 1.0, 0.3), strong]

    def _smoothed(self) -> Floats:
        """The smoothed loss, computed once for each state of the run."""
        state = (id(self._history), self._history.last_number, self.weight)
        if state != self._smoothed_state:
            self._smoothed_values = smoothed(self._history.column(LOSS), self.weight)
            self._smoothed_state = state
        return self._smoothed_values

    def _rate_curves(self) -> list[Curve]:
        names = self._history.rate_names
        curves = []
        for index, role in zip(range(MAX_RATES), ("accent", "info", "good", "warning"), strict=True):
            rate = self._history.column(len(ROW_COLUMNS) + index)
            if np.isfinite(rate).any():
                name = part_words(names[index]) if index < len(names) else tr("rate {number}", number=index + 1)
                curves.append(Curve(name, self._history.column(STEP), rate, role, 2.0))
        return curves

    def _on_pointed(self, step: float) -> None:
        """Say what is under the pointer, else how to use the plot."""
        found = [] if math.isnan(step) else self.plot.values_at(step)
        if not found:
            hint = tr("Drag to look closer, double-click for all. Faint lines are epochs, triangles saved files.")
            self.readout.setText(hint)
            return
        at = found[0][1]
        parts = [tr("step {step}, epoch {epoch}", step=f"{at:,.0f}", epoch=epoch_at(at, self._history.epoch_ends))]
        parts += [f"{curve.name} {value:.4g}" for curve, _, value in found]
        self.readout.setText("  ·  ".join(parts))

    def _on_smoothing(self, value: int) -> None:
        self._preferences.set(SMOOTHING, value)
        self.refresh()

    def _on_log(self, on: bool) -> None:
        self._preferences.set("plot_log", on)
        self.plot.set_log_scale(on)
