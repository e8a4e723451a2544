"""A run file held against the disk, without torch: is the model one, are there pictures, how many steps will it be.

`python -m trainer check`, the window's draft and the worker's start all ask here, so they say the same sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trainer.config.rules import warmup_problem
from trainer.config.run import Folder, Images, RunFile
from trainer.data.buckets import Bucketing
from trainer.data.index import Index, Progress, index_dataset, index_folders
from trainer.data.memo import Memo
from trainer.data.order import place
from trainer.errors import BadInput, Problem
from trainer.estimate import StepPlan, plan_steps
from trainer.export_targets import find_target
from trainer.family_rules import family_problems
from trainer.messages import say
from trainer.models.header import base_problem, inspect_file, text_encoder_problem, vae_problem
from trainer.models.lora_begin import read_beginning


@dataclass(frozen=True)
class Checked:
    """What the disk says to a run file: problems and warnings, the pictures found, and the steps (None: can't be known)."""

    problems: tuple[Problem, ...]
    index: Index | None = None
    plan: StepPlan | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")


def check_run(run: RunFile, on_progress: Progress | None = None) -> Checked:
    """Check a run whose paths are absolute. Any thread; raises only what `on_progress` raises (to stop it)."""
    problems = [*model_problems(run), *_output_problems(run)]
    index, found = _pictures(run, on_progress)
    problems += found
    plan = plan_of(run, index) if index and index.train else None
    if plan is not None and run.training.steps is None:
        problems += warmup_problem(run, plan.total_steps)
    return Checked(tuple(problems), index, plan)


def plan_of(run: RunFile, index: Index) -> StepPlan:
    """The steps of a run over the pictures of `index`, which has at least one to learn."""
    training = run.training
    return plan_steps(
        place(index.items, bucketing(run.images)),
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        epochs=training.epochs,
        steps=training.steps,
    )


def bucketing(images: Images) -> Bucketing:
    """The bucket rules of [images], with width and height of a checked run file."""
    width, height = images.resolution
    return Bucketing(
        (width, height),
        step=images.bucket_step,
        min_side=images.bucket_min,
        max_side=images.bucket_max,
        enabled=images.buckets,
        no_upscale=images.no_upscale,
    )


def model_problems(run: RunFile) -> Iterator[Problem]:
    """What the headers of the model, of other files for its parts and of a LoRA to go on from say."""
    facts = inspect_file(run.model.path) if run.model.path else None
    family = facts.family if facts is not None and facts.problem is None else None
    if facts is not None:
        texts = run.model.text_encoder, run.model.text_encoder_2
        problem = base_problem(facts, has_vae=bool(run.model.vae), has_text=any(texts))
        if problem is not None:
            yield Problem("model.path", problem, value=run.model.path)
        yield from family_problems(run, facts)
    if run.model.vae and (problem := vae_problem(inspect_file(run.model.vae), family)) is not None:
        yield Problem("model.vae", problem, value=run.model.vae)
    for key in ("text_encoder", "text_encoder_2"):
        path = getattr(run.model, key)
        if path and (problem := text_encoder_problem(inspect_file(path), family)) is not None:
            yield Problem(f"model.{key}", problem, value=path)
    weights = run.network.network_weights
    if weights:
        try:
            read_beginning(Path(weights), family)
        except BadInput as error:
            yield Problem("network.network_weights", error.what, error.todo, value=weights)


def _output_problems(run: RunFile) -> Iterator[Problem]:
    """Whether the folders to write into can be what they are named to be."""
    if run.output.folder:
        folder = Path(run.output.folder)
        blocking = next((parent for parent in (folder, *folder.parents) if parent.is_file()), None)
        if blocking is not None:
            what = say("{path} is a file, not a folder.", path=str(blocking))
            yield Problem("output.folder", what, say("Choose another folder."), run.output.folder)
    if not run.output.export_to:
        return
    target = find_target(Path(run.output.export_to))
    if target is None:
        what = say("There is no folder {path}.", path=run.output.export_to)
        todo = say("Choose the folder of the program that draws, or a plain folder.")
        yield Problem("output.export_to", what, todo, run.output.export_to)


def _pictures(run: RunFile, on_progress: Progress | None) -> tuple[Index | None, list[Problem]]:
    """The pictures of both lists and what is doubtful; or, if they cannot be used, which entry is to blame."""
    memo = Memo()
    images, regularization = run.images.folders, run.regularization.folders
    rules = _IndexRules(run.images.caption_extension, run.images.smallest_side, memo, on_progress)
    if not any(folder.enabled and folder.path for folder in images):
        return None, []  # the run file's own rules have said so
    try:
        index = index_dataset(images, regularization, **rules.arguments())
    except BadInput as error:
        blamed = [*_blame("images", images, rules), *_blame("regularization", regularization, rules)]
        return None, blamed or [Problem("images.folders", error.what, error.todo)]
    doubtful = [*index.warnings, *(file.sentence() for file in index.skipped)]
    return index, [Problem("images.folders", what, severity="warning") for what in doubtful]


@dataclass(frozen=True)
class _IndexRules:
    caption_extension: str
    smallest_side: int
    memo: Memo
    on_progress: Progress | None

    def arguments(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _blame(key: str, folders: tuple[Folder, ...], rules: _IndexRules) -> Iterator[Problem]:
    """Which entries of a list lead to nothing, each at its own place."""
    for number, folder in enumerate(folders, 1):
        if folder.enabled and folder.path:
            found = index_folders([folder], is_reg=key == "regularization", **rules.arguments())
            for what in found.problems:
                yield Problem(f"{key}.folders[{number}].path", what, value=folder.path)
