"""A run's training, from the job that a worker has to its end: build the parts, say how long it will be, train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config.files import write_run
from trainer.ipc import events
from trainer.local_models import with_local_models
from trainer.orders import Ending, Orders
from trainer.worker import Job

if TYPE_CHECKING:
    from trainer.build import Built


def train(job: Job) -> events.Done:
    """Train the job's run file; returns how it ended. Raises AthanorError with a sentence for whatever goes wrong."""
    station = job.station
    if job.run.output.tensorboard:
        from trainer.tensorboard import TensorBoard

        station.add_listener(TensorBoard(job.folder.path / "tensorboard"))
    orders = Orders(station)
    try:
        run, fixed = with_local_models(job.run, station.report, orders.leave_if_ending)
        if fixed is not job.run:
            write_run(job.folder.run_file, fixed)
        station.report(events.Stage("loading"))
        from trainer.build import build_run
        from trainer.loop import train as train_parts

        built = build_run(run, job.folder.path, station, orders)
    except Ending:
        return events.Done(station.status.step, "aborted" if orders.abort else "stopped")
    try:
        _announce(job, built)
        return train_parts(built.parts, station, orders)
    finally:
        built.close()


def _announce(job: Job, built: Built) -> None:
    """Say where the run goes on, and its arithmetic."""
    plan, status = built.plan, job.station.status
    epochs, steps = plan.num_epochs, plan.steps_per_epoch
    job.station.report(
        events.Hello(
            events.VERSION,
            status.pid,
            status.started,
            built.parts.start,
            plan.total_steps,
            epochs,
            steps,
            built.device,
            job.changes,
        )
    )
    images = plan.num_train, plan.num_class
    rates = built.rates
    job.station.report(events.Plan(plan.total_steps, steps, epochs, *images, plan.batch_size, plan.accumulation, rates))
