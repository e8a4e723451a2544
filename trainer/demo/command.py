"""`python -m trainer demo`: trains a LoRA from the shipped run file by the ordinary command, then says what it learnt."""

from __future__ import annotations

import argparse
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
    from trainer.demo.learning import LearningScore
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
    code, folder = train(recipe.RUN_FILE, recipe.RUN_NAME)
    if code != EXIT_DONE or folder is None:
        return code or EXIT_FAILED
    tell(say("Drawing pictures with and without the LoRA, and counting what they show …"))
    score = score_run(folder, recipe.RUN_FILE)
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


def train(run_file: Path, name: str) -> tuple[int, RunFolder | None]:
    """Run `python -m trainer RUN.toml`: its exit code, and the folder it made in the user's runs folder.

    What scoring needs is imported here while the other process trains. Ctrl+C reaches both; this one waits.
    """
    from trainer.ipc.runfolder import find_runs

    runs = default_runs_folder()
    known = {run.path for run in find_runs(runs)}
    worker = subprocess.Popen([sys.executable, "-m", "trainer", str(run_file)], cwd=ROOT)
    try:
        import_scoring()
        code = worker.wait()
    except KeyboardInterrupt:
        code = worker.wait()
    made = [run for run in find_runs(runs) if run.path not in known and run.path.name.startswith(name)]
    return code, made[0] if made else None


def import_scoring() -> None:
    """Import the heavy libraries, so that scoring begins at once."""
    from trainer.demo import learning  # noqa: F401


def score_run(folder: RunFolder, run_file: Path) -> LearningScore:
    """The learning score of a finished run."""
    from trainer.config.files import read_run
    from trainer.demo.learning import score_lora

    return score_lora(Path(read_run(run_file).model.path), final_file(folder))


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
