"""A run's training, from the job that a worker has to its end: build the parts, say how long it will be, train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.ipc.station import Station
from trainer.worker import Job

if TYPE_CHECKING:
    from trainer.build import Built


def train(job: Job) -> events.Done:
    """Train the job's run file; returns how it ended. Raises AthanorError with a sentence for whatever goes wrong."""
    station = job.station
    if job.run.output.tensorboard:
        from trainer.tensorboard import TensorBoard

        station.add_listener(TensorBoard(job.folder.path / "tensorboard"))
    station.report(events.Stage("loading"))
    from trainer.build import build_run
    from trainer.loop import train as train_parts

    listening = _WhileBuilding(station)
    try:
        built = build_run(job.run, job.folder.path, station, listening.check)
    except _Ended as ended:
        return events.Done(station.status.step, ended.outcome)
    try:
        _announce(job, built)
        listening.pass_on()
        return train_parts(built.parts, station)
    finally:
        built.close()


def _announce(job: Job, built: Built) -> None:
    """Say where the run goes on, and its arithmetic."""
    plan, status = built.plan, job.station.status
    job.station.report(
        events.Hello(
            events.VERSION,
            status.pid,
            status.started,
            built.parts.done,
            plan.total_steps,
            plan.num_epochs,
            plan.steps_per_epoch,
            built.device,
            job.changes,
        )
    )
    job.station.report(
        events.Plan(
            plan.total_steps,
            plan.steps_per_epoch,
            plan.num_epochs,
            plan.num_train,
            plan.num_class,
            plan.batch_size,
            plan.accumulation,
        )
    )


class _Ended(Exception):
    """The user asked to end while the parts were being built."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _WhileBuilding:
    """Commands that come before the training has begun: an end is obeyed at once, the others wait."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._waiting: list[Command] = []

    def check(self) -> None:
        """Called often; raises if the run is to end."""
        for command in self._station.poll():
            if command.name in ("stop", "abort"):
                raise _Ended("stopped" if command.name == "stop" else "aborted")
            self._waiting.append(command)

    def pass_on(self) -> None:
        """Give the training what has waited."""
        for command in self._waiting:
            self._station.command(command)
