"""All that survives a stop: snapshots to resume from, and the files that the user takes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch

from trainer.errors import RunFailed
from trainer.files import atomic_path, free_bytes
from trainer.ipc import events
from trainer.ipc.events import Event
from trainer.messages import say

SNAPSHOTS_KEPT = 2
SPARE_BYTES = 64 * 1024**2  # left free on the disk


class Kept(Protocol):
    """Something with a state to keep."""

    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps: everything from which the next ones follow."""

    step: int
    epoch: int
    weights: Mapping[str, Any]
    updater: Mapping[str, Any]
    prompts: tuple[Mapping[str, Any], ...]
    num_threads: int
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SaveRules:
    """When files are written. Numbers of 0 are off; `keep_last` counts the periodic files, the final one stays."""

    name: str
    every_epochs: int = 0
    every_steps: int = 0
    keep_last: int = 0
    snapshot_minutes: float = 10.0
    total_steps: int = 0


class Keeper:
    """Writes snapshots into `state` and files into `checkpoints`, both inside the run folder.

    Args:
        folder: of the run.
        weights: the trained weights; updater: the optimiser and what belongs to it.
        export: (path, step, epoch) writes the file that other programs load, atomically.
        prompts: the preview prompts as they are now.
        num_bytes: of one exported file, about.
    """

    def __init__(
        self,
        folder: Path,
        rules: SaveRules,
        weights: Kept,
        updater: Kept,
        *,
        export: Callable[[Path, int, int], None],
        prompts: Callable[[], tuple[Mapping[str, Any], ...]],
        report: Callable[[Event], None],
        num_bytes: int = 0,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.rules = folder, rules
        self._weights, self._updater = weights, updater
        self._export, self._prompts, self._report = export, prompts, report
        self._num_bytes, self._versions = num_bytes, dict(versions or {})
        self._last_snapshot = time.monotonic()

    def after(self, step: int, epoch: int, ends_epoch: bool) -> None:
        """Save as the rules say when `step` steps are done; nothing at the last step, which `finish` saves."""
        rules = self.rules
        if step >= rules.total_steps:
            return
        by_epoch = ends_epoch and rules.every_epochs and epoch % rules.every_epochs == 0
        by_step = rules.every_steps and step % rules.every_steps == 0
        if by_epoch:
            self._checkpoint(f"{rules.name}-{epoch:06d}", step, epoch)
        if by_step:
            self._checkpoint(f"{rules.name}-step{step:08d}", step, epoch)
        if by_epoch or by_step or time.monotonic() - self._last_snapshot >= rules.snapshot_minutes * 60:
            self.snapshot(step, epoch)

    def save(self, step: int, epoch: int) -> str:
        """Save and snapshot now; returns the file, relative to the run folder."""
        file = self._checkpoint(f"{self.rules.name}-step{step:08d}", step, epoch)
        self.snapshot(step, epoch)
        return file

    def finish(self, step: int, epoch: int) -> str:
        """Write the final file and a snapshot to go on from; returns the file, relative to the run folder."""
        file = self._write(self.rules.name, "final", step, epoch)
        self.snapshot(step, epoch)
        return file

    def snapshot(self, step: int, epoch: int) -> None:
        """Write a snapshot and drop all but the newest two. Raises RunFailed if the disk has no room for it."""
        self._report(events.Stage("saving"))
        path = self.folder / "state" / f"step{step:08d}.pt"
        state = {
            "step": step,
            "epoch": epoch,
            "weights": dict(self._weights.state_dict()),
            "updater": dict(self._updater.state_dict()),
            "prompts": [dict(prompt) for prompt in self._prompts()],
            "num_threads": torch.get_num_threads(),
            "versions": self._versions,
        }
        self._need_room(4 * self._num_bytes)
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        for old in snapshots(self.folder)[SNAPSHOTS_KEPT:]:
            old.unlink(missing_ok=True)
        self._last_snapshot = time.monotonic()
        self._report(events.Saved("state", step, epoch, path.relative_to(self.folder).as_posix(), path.stat().st_size))
        self._report(events.Stage("training"))

    def _checkpoint(self, stem: str, step: int, epoch: int) -> str:
        """A periodic file; older ones beyond `keep_last` go."""
        file = self._write(stem, "checkpoint", step, epoch)
        if self.rules.keep_last:
            for old in self._periodic()[: -self.rules.keep_last]:
                old.unlink(missing_ok=True)
        return file

    def _periodic(self) -> list[Path]:
        """The run's periodic files, oldest first."""
        files = (self.folder / "checkpoints").glob("*.safetensors")
        return sorted((f for f in files if f.stem != self.rules.name), key=lambda file: file.stat().st_mtime_ns)

    def _write(self, stem: str, what: str, step: int, epoch: int) -> str:
        self._report(events.Stage("saving"))
        path = self.folder / "checkpoints" / f"{stem}.safetensors"
        self._need_room(self._num_bytes)
        self._export(path, step, epoch)
        file = path.relative_to(self.folder).as_posix()
        self._report(events.Saved(what, step, epoch, file, path.stat().st_size))
        self._report(events.Stage("training"))
        return file

    def _need_room(self, num_bytes: int) -> None:
        free = free_bytes(self.folder)
        if free < num_bytes + SPARE_BYTES:
            raise RunFailed(
                say(
                    "The disk is full: {free} MB are free at {folder}, {need} MB are needed.",
                    free=free // 10**6,
                    folder=str(self.folder),
                    need=(num_bytes + SPARE_BYTES) // 10**6,
                ),
                say("Make room, then resume the run; everything saved before is whole."),
            )


def snapshots(folder: Path) -> list[Path]:
    """The snapshots of a run, newest first."""
    return sorted((folder / "state").glob("step*.pt"), reverse=True)


def load_snapshot(folder: Path, warn: Callable[[Event], None]) -> Snapshot | None:
    """The newest whole snapshot of a run, or None if it has none; a damaged one is passed over with a warning.

    Nothing in the file is executed (`weights_only`).
    """
    for path in snapshots(folder):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return Snapshot(**{**state, "prompts": tuple(state["prompts"])})
        except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, EOFError) as error:
            what = say("The snapshot {file} is damaged ({reason}); an older one is used.", file=path.name, reason=str(error))
            warn(events.Warning_(what))
    return None
