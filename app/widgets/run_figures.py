"""What stands beside the curves of a run: how far, what it is doing, how long it takes, how much memory."""

from __future__ import annotations

from PySide6.QtWidgets import QLabel, QVBoxLayout

from app import theme
from app.editors import number_text
from app.i18n import tr
from app.runs import Run
from app.widgets.basics import Card, ProgressBar, label
from app.words import count_words, size_words, time_words

WIDTH = 232  # beside the curves


class RunFigures(Card):
    """A card of figures; `show_run` renews them."""

    def __init__(self) -> None:
        super().__init__()
        self.percent = label("", "big")
        self.percent.setFont(theme.font("title", bold=True))
        self.state = label("", "heading", wrap=True)
        self.bar = ProgressBar()
        self.bar.setFixedHeight(theme.px(8))
        self._values: dict[str, tuple[QLabel, str]] = {}
        for widget in (self.percent, self.bar, self.state):
            self.add(widget)
        names = {
            "left": tr("Time left"),
            "step": tr("Step"),
            "epoch": tr("Epoch"),
            "pace": tr("Seconds a step"),
            "loss": tr("Loss, smoothed"),
            "rates": tr("Learning rate"),
            "memory": tr("Memory in use"),
            "device": tr("Device"),
        }
        for key, name in names.items():
            self._values[key] = self._line(name), name
        self.body.addStretch(1)

    def _line(self, name: str) -> QLabel:
        column = QVBoxLayout()
        column.setSpacing(0)
        value = label("–", "heading", wrap=True)
        column.addWidget(label(name, "small"))
        column.addWidget(value)
        self.body.addLayout(column)
        return value

    def show_run(self, run: Run, smooth_loss: float | None) -> None:
        """Renew all figures. `smooth_loss`: the end of the smoothed curve."""
        history = run.history
        total, step = history.total_steps, history.step
        share = step / total if total else 0.0
        self.percent.setText(f"{100 * share:.0f} %")
        stage = history.stage
        if stage is not None and stage.total and stage.name != "training" and run.is_active:
            self.bar.show_progress(stage.done, stage.total)
        else:
            self.bar.show_progress(step, max(1, total) if total or not run.is_active else 0)
        self.state.setText(state_words(run))
        left = history.seconds_left if run.is_active else None
        self._say("left", time_words(left) if left is not None else "–")
        self._say("step", f"{count_words(step)} / {count_words(total)}" if total else count_words(step))
        self._say("epoch", f"{history.epoch} / {history.epochs}" if history.epochs else f"{history.epoch}")
        pace = history.seconds_a_step
        self._say("pace", f"{pace:.2f}" if pace is not None else "–")
        self._say("loss", f"{smooth_loss:.4f}" if smooth_loss is not None else "–")
        self._say("rates", "  ·  ".join(number_text(float(f"{rate:.3g}")) for rate in history.rates) or "–")
        self._say("memory", size_words(history.memory_bytes) if history.memory_bytes else "–")
        self._say("device", history.device or "–")

    def _say(self, key: str, text: str) -> None:
        value, name = self._values[key]
        value.setText(text)
        value.setAccessibleName(f"{name}: {text}")


def state_words(run: Run) -> str:
    """What the run is doing, in words."""
    if run.state == "running" and run.history.stage is not None:
        return stage_words(run.history.stage.name, run.history.stage.done, run.history.stage.total)
    words = {
        "reading": tr("Reading the run…"),
        "starting": tr("Starting…"),
        "running": tr("Training"),
        "paused": tr("Paused; the model stays loaded"),
        "stopping": tr("Ending, and saving…") if run.stopping == "stop" else tr("Ending…"),
        "finished": tr("Finished"),
        "stopped": tr("Stopped and saved"),
        "aborted": tr("Stopped without saving"),
        "failed": tr("Failed"),
        "died": tr("Ended without a word"),
    }
    return words.get(run.state, run.state)


def stage_words(name: str, done: int = 0, total: int = 0) -> str:
    """A stage of the worker in words, with its progress."""
    words = {
        "downloading": tr("Downloading the model (MB)"),
        "checking": tr("Checking the pictures"),
        "loading": tr("Loading the base model"),
        "caching": tr("Encoding the pictures"),
        "training": tr("Training"),
        "sampling": tr("Drawing previews"),
        "saving": tr("Saving"),
        "exporting": tr("Copying the LoRA"),
    }
    text = words.get(name, name)
    return f"{text} {done} / {total}" if total and name != "training" else text
