"""A listener that writes the curves for TensorBoard, beside the run's own journal."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import BadInput
from trainer.ipc import events
from trainer.ipc.journal import Record
from trainer.messages import say

_RATES = ("rate/unet", "rate/text_encoder")


class TensorBoard:
    """Give it to a station; each step becomes a point of the curves."""

    def __init__(self, folder: Path) -> None:
        """Open a log in `folder`.

        Raises:
            BadInput: if the writer is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise BadInput(
                say("The package tensorboardX is missing, which writes the TensorBoard log."),
                say("Install it in Athanor's environment, or switch output.tensorboard off."),
            ) from error
        self._writer = SummaryWriter(str(folder), flush_secs=10)

    def __call__(self, record: Record) -> None:
        match record.event:
            case events.Step() as step:
                self._writer.add_scalar("loss", step.loss, step.step, record.time)
                self._writer.add_scalar("seconds", step.seconds, step.step, record.time)
                for name, rate in zip(_RATES, step.rates, strict=False):
                    self._writer.add_scalar(name, rate, step.step, record.time)
            case events.Done() | events.Failed():
                self._writer.close()
