"""What a run that goes on must find as it was: pictures, libraries, threads, prompts; and what is said where it is not."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trainer.config.changes import changed_settings
from trainer.config.run import Prompt, RunFile
from trainer.data.index import Index
from trainer.data.order import Sample
from trainer.ipc import events
from trainer.loop import Reporter
from trainer.messages import say

LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "lion-pytorch", "prodigyopt")


def fingerprint(index: Index, samples: Sequence[Sample], hashes: Mapping[Path, str]) -> str:
    """What a run learns from, as one word: pictures, captions, repeats, sizes."""
    rows = [
        f"{hashes[item.path]} {sample.repeats} {sample.is_reg} {sample.bucket} {item.caption}"
        for item, sample in zip(index.items, samples, strict=True)
    ]
    return hashlib.sha256("\n".join(rows).encode("utf-8")).hexdigest()


def versions() -> dict[str, str]:
    """The libraries on which the last digits may depend, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def prompts_of(run: RunFile, notes: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """The run file's prompts, or those that a resumed run had when its snapshot was made."""
    if "prompts" not in notes:
        return run.samples.prompts
    return tuple(Prompt.model_validate(table) for table in notes["prompts"])


def go_on_as_before(notes: Mapping[str, Any], run: RunFile, dataset: str, reporter: Reporter) -> None:
    """On resume: sum with as many threads as before, and say what may make the last digits differ."""
    if not notes:
        return
    torch.set_num_threads(notes["threads"])
    changed = [
        f"{name} {old} → {new}" for name, new in versions().items() if (old := notes["versions"].get(name, new)) != new
    ]
    if changed:
        what = say("Libraries have changed since the run began ({changes}).", changes=", ".join(changed))
        todo = say("The run goes on; its last digits may differ from an unbroken one.")
        reporter.report(events.Warning_(what, todo))
    for change in changed_settings(notes.get("run", {}), run):
        reporter.report(events.Warning_(change, say("The run goes on with it; it will differ from an unbroken one.")))
    if notes["dataset"] != dataset:
        what = say("The pictures or captions have changed since the run began.")
        todo = say("The run goes on with those of now; it will differ from an unbroken one.")
        reporter.report(events.Warning_(what, todo))
