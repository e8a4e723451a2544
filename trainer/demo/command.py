"""`python -m trainer demo`: trains a LoRA from the shipped run file by the ordinary command, then says what it learnt."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import EXIT_DONE, EXIT_FAILED, RunFailed
from trainer.files import atomic_path, write_json
from trainer.messages import Message, say
from trainer.paths import ROOT, default_runs_folder

if TYPE_CHECKING:
    from trainer.demo.learning import LearningScore, Scorer
    from trainer.ipc.runfolder import RunFolder

SHEET_NAME, SCORE_NAME = "sheet.png", "score.json"


def main(argv: Sequence[str]) -> int:
    """Train, score, draw the sheet. Returns 0 if the LoRA learnt what it should, else what went wrong as exit code."""
    description = "Trains the embedded example and says what it learnt. Two minutes on two cores, no network."
    argparse.ArgumentParser(prog="trainer demo", description=description).parse_args(argv)
    from trainer.demo import recipe

    started = time.monotonic()
    tell(say("Athanor's example: a LoRA learns an emblem that the embedded base model has never seen."))
    tell(say("Training from {file}, as any other run.", file=str(recipe.RUN_FILE)))
    code, folder, scorer = train(recipe.RUN_FILE, recipe.RUN_NAME)
    if code != EXIT_DONE or folder is None or scorer is None:
        return code or EXIT_FAILED
    tell(say("Drawing pictures with the LoRA, and counting what they show …"))
    score = scorer.score(final_file(folder))
    sheet = write_sheet(folder)
    write_json(folder.path / SCORE_NAME, asdict(score) | {"passed": score.passed}, indent=2)
    for sentence in score.sentences():
        tell(sentence)
    tell(say("Pictures by prompt and step: {file}", file=str(sheet)))
    tell(say("The LoRA and everything about its run: {folder}", folder=str(folder.path)))
    tell(verdict(score, time.monotonic() - started))
    return EXIT_DONE if score.passed else EXIT_FAILED


def tell(message: Message) -> None:
    """A line in the terminal, at once."""
    print(message, flush=True)


def verdict(score: LearningScore, seconds: float) -> Message:
    """The last line."""
    if score.passed:
        return say("Passed: it learnt the emblem and forgot nothing else. {seconds:.0f} seconds.", seconds=seconds)
    return say("Failed: the LoRA did not learn what it should. {seconds:.0f} seconds.", seconds=seconds)


def train(run_file: Path, name: str) -> tuple[int, RunFolder | None, Scorer | None]:
    """Run `python -m trainer RUN.toml`: its exit code, the folder it made in the user's runs folder, and a scorer.

    The example is so small that several threads would only wait for each other: training gets one, and on the other core
    this process draws what the base model makes of the trigger. Ctrl+C reaches both processes; this one waits.
    """
    from trainer.ipc.runfolder import find_runs

    runs = default_runs_folder()
    known = {run.path for run in find_runs(runs)}
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    worker = subprocess.Popen([sys.executable, "-m", "trainer", str(run_file)], cwd=ROOT, env=environment)
    scorer = None
    try:
        scorer = make_scorer(run_file)
        code = worker.wait()
    except KeyboardInterrupt:
        code = worker.wait()
    finally:  # whatever went wrong here, no training is left behind that nobody watches
        if worker.poll() is None:
            worker.terminate()
            worker.wait()
    made = [run for run in find_runs(runs) if run.path not in known and run.path.name.startswith(name)]
    return code, made[0] if made else None, scorer


def make_scorer(run_file: Path) -> Scorer:
    """A scorer for the base model of a run, made with one thread beside the training."""
    import torch

    from trainer.config.files import read_run
    from trainer.demo.learning import Scorer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scorer = Scorer(Path(read_run(run_file).model.path))
    torch.set_num_threads(threads)
    return scorer


def final_file(folder: RunFolder) -> Path:
    """The LoRA that a finished run made. Raises RunFailed if its journal names none."""
    from trainer.ipc import journal
    from trainer.ipc.events import Done

    for part in journal.read(folder.journal):
        event = part.content.event if isinstance(part.content, journal.Record) else None
        if isinstance(event, Done) and event.file:
            return folder.path / event.file
    raise RunFailed(say("The run in {folder} has made no LoRA.", folder=str(folder.path)))


def write_sheet(folder: RunFolder) -> Path:
    """Put the run's own sample pictures on one sheet; returns its path."""
    from PIL import Image

    from trainer.demo.sheet import Row, draw_sheet
    from trainer.ipc import journal
    from trainer.ipc.events import Sample

    rows: dict[int, Row] = {}
    for part in journal.read(folder.journal):
        event = part.content.event if isinstance(part.content, journal.Record) else None
        if isinstance(event, Sample):
            row = rows.setdefault(event.index, Row(event.prompt, {}))
            with Image.open(folder.path / event.file) as picture:
                row.pictures[event.step] = picture.convert("RGB")
    target = folder.path / SHEET_NAME
    with atomic_path(target) as temporary:
        draw_sheet([rows[index] for index in sorted(rows)]).save(temporary, format="PNG")
    return target
