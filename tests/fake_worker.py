"""A worker with a trivial training, on the real run folder, journal, pipe and signals: `python -m tests.fake_worker`.

Used as `resume FOLDER [--epochs N]`, as the window starts the real one. How it behaves stands in the environment variable
FAKE_WORKER as JSON: steps, seconds (a step), sample_every, save_every, fail_at, crash_at.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from trainer import worker
from trainer.config.run import Folder, Images, Model, Output, RunFile
from trainer.errors import RunFailed
from trainer.ipc import events
from trainer.ipc.runfolder import open_folder
from trainer.messages import say
from trainer.paths import ROOT

DEFAULTS = {"steps": 40, "seconds": 0.01, "sample_every": 10, "save_every": 20, "fail_at": 0, "crash_at": 0}
STATE = "step.json"


def train(job: worker.Job) -> events.Done:
    """Count steps; keep the count as a snapshot at each save; obey commands."""
    behaviour = DEFAULTS | json.loads(os.environ.get("FAKE_WORKER", "{}"))
    station, folder = job.station, job.folder
    state = folder.state / STATE
    step = json.loads(state.read_text(encoding="utf-8")) if state.exists() else 0
    total = behaviour["steps"]
    station.report(events.Stage("loading"))
    me = station.status
    station.report(events.Hello(1, me.pid, me.started, step, total, 4, total // 4, "fake", job.changes))
    station.report(events.Plan(total, total // 4, 4, 10, 0, 1, 1, ("unet", "text_encoder")))
    if step == 0:
        sample(job, 0)
    station.report(events.Stage("training"))
    asked = Asked(job)
    while step < total or asked.paused:
        ending = asked.obey(step)
        if ending:
            return events.Done(step, ending, seconds=1.0)
        if asked.paused:
            time.sleep(0.01)
            continue
        step += 1
        time.sleep(behaviour["seconds"])
        epoch = (step - 1) // max(1, total // 4) + 1
        station.report(events.Step(step, epoch, 1.0 / step, (1e-4, 5e-5), behaviour["seconds"], 1 << 30))
        if step == behaviour["fail_at"]:
            raise RunFailed(say("The loss became not a number at step {step}.", step=step), say("Lower the rate."))
        if step == behaviour["crash_at"]:
            os.kill(os.getpid(), 9)
        if step % behaviour["sample_every"] == 0:
            sample(job, step, asked.prompts)
        if step % behaviour["save_every"] == 0:
            save(job, step, "checkpoint")
    save(job, step, "final")
    return events.Done(step, "finished", f"checkpoints/{job.run.output.name}.safetensors", 1.0)


class Asked:
    """What the run was told."""

    def __init__(self, job: worker.Job) -> None:
        self.job = job
        self.paused = False
        self.prompts: tuple[str, ...] = ("a cat", "a dog")

    def obey(self, step: int) -> str:
        """Do what was asked; returns how the run ends, if it does."""
        for command in self.job.station.poll():
            match command.name:
                case "stop":
                    save(self.job, step, "checkpoint")
                    return "stopped"
                case "abort":
                    return "aborted"
                case "pause" | "resume":
                    self.paused = command.name == "pause"
                    self.job.station.report(events.Paused(self.paused, step))
                case "save":
                    save(self.job, step, "checkpoint")
                case "sample":
                    sample(self.job, step, self.prompts)
                case "prompts":
                    self.prompts = tuple(prompt["prompt"] for prompt in command.prompts)
        return ""


def sample(job: worker.Job, step: int, prompts: tuple[str, ...] = ("a cat", "a dog")) -> None:
    from PIL import Image

    for index, prompt in enumerate(prompts):
        file = f"samples/{step:08}-{index}.png"
        Image.new("RGB", (64, 64), (step % 256, 80 * index, 120)).save(job.folder.path / file)
        job.station.report(events.Sample(step, index, prompt, 7, file), picture=b"")


def save(job: worker.Job, step: int, what: str) -> None:
    name = job.run.output.name + ("" if what == "final" else f"-step{step:08}")
    file = job.folder.checkpoints / f"{name}.safetensors"
    file.write_bytes(b"x" * 1000)
    (job.folder.state / STATE).write_text(json.dumps(step), encoding="utf-8")
    job.station.report(events.Saved("state", step, 1, f"state/{STATE}", 2))
    job.station.report(events.Saved(what, step, 1, f"checkpoints/{file.name}", 1000))


def run_of(**output: Any) -> RunFile:
    """A run file that is valid as a file; what it names need not exist."""
    return RunFile(
        model=Model(path=str(ROOT / "base.safetensors")),
        images=Images(folders=(Folder(path=str(ROOT / "10_ohwx cat")),)),
        output=Output(name="fake", **output),
    )


def main() -> int:
    folder = open_folder(Path(sys.argv[2]))
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else None
    with worker.output_to_log(folder.log):
        print("the fake worker begins")
        return worker.exit_code(worker.work(folder, train, epochs=epochs))


if __name__ == "__main__":
    sys.exit(main())
