"""A listener that writes the curves for TensorBoard, beside the run's own journal."""

from __future__ import annotations

from pathlib import Path

from trainer.ipc import events
from trainer.ipc.journal import Record


class TensorBoard:
    """Give it to a station; each step becomes a point of the curves."""

    def __init__(self, folder: Path) -> None:
        """Open a log in `folder`. Raises ImportError if tensorboardX is not installed."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=10)
        self._rates: tuple[str, ...] = ()

    def __call__(self, record: Record) -> None:
        match record.event:
            case events.Plan() as plan:
                self._rates = plan.rates
            case events.Step() as step:
                self._writer.add_scalar("loss", step.loss, step.step, record.time)
                self._writer.add_scalar("seconds", step.seconds, step.step, record.time)
                for name, rate in zip(self._rates, step.rates, strict=True):
                    self._writer.add_scalar(f"rate/{name}", rate, step.step, record.time)
            case events.Done() | events.Failed():
                self._writer.close()
