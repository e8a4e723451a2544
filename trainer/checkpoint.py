"""All that survives a stop: the LoRA files under `checkpoints/`, and the snapshots under `state/` that a run goes on from.

A snapshot of position n holds everything that step n + 1 depends on and that does not follow from the run file. Files
due at a position are written before its snapshot, so whoever goes on from a snapshot has them all.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PickleError
from struct import error as StructError
from typing import Any, BinaryIO, Protocol, cast

import torch

from trainer.errors import RunFailed
from trainer.files import atomic_path, free_bytes
from trainer.ipc import events
from trainer.loop import Reporter, not_finite
from trainer.messages import say

FORMAT = 1
KEEP = 2  # snapshots: the newest, and one before it
SPARE_BYTES = 16 * 1024 * 1024  # left free on the disk for journal and log
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What reading a snapshot raises whose bytes are not as they were written.
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, PickleError, StructError)


class Stateful(Protocol):
    """A part of the run with a state: what is trained, and the stepper."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any) -> None: ...


@dataclass(frozen=True)
class Saving:
    """What is saved when. `epoch_ends[e]` is the position at which epoch e (from 0) is over; the last ends the run."""

    name: str
    epoch_ends: Sequence[int]
    every_epochs: int = 0
    every_steps: int = 0
    keep_last: int = 0
    snapshot_s: float = 600.0

    @property
    def total_steps(self) -> int:
        return self.epoch_ends[-1]

    def due(self, position: int) -> list[str]:
        """The names (without ending) of the files that are due at a position before the end."""
        names = []
        if position in self.epoch_ends[:-1]:
            epoch = self.epoch_ends.index(position) + 1
            if self.every_epochs and epoch % self.every_epochs == 0:
                names.append(f"{self.name}-{epoch:06d}")
        if self.every_steps and 0 < position < self.total_steps and position % self.every_steps == 0:
            names.append(self.step_name(position))
        return names

    def step_name(self, position: int) -> str:
        return f"{self.name}-step{position:08d}"

    def position_of(self, stem: str) -> int | None:
        """The position that a file of this run was saved at; None for the final one and for files of others."""
        found = re.fullmatch(re.escape(self.name) + r"-(?:step(\d{8})|(\d{6}))", stem)
        if found is None:
            return None
        if found[1]:
            return int(found[1])
        epoch = int(found[2])
        return self.epoch_ends[epoch - 1] if 0 < epoch <= len(self.epoch_ends) else None


Export = Callable[[Path, int], None]  # writes the file of a position, atomically


class Checkpoints:
    """Writes files and snapshots of a run folder; see `trainer.loop.Checkpoints`.

    Args:
        folder: the run's.
        saving: what is due when.
        trained, stepper: whose state a snapshot holds.
        export: writes one LoRA file.
        notes: what else a snapshot keeps (prompts as they are, library versions, …), asked for at each.
        reporter: told of each file when it is complete.
        start: the position of the snapshot that the run goes on from, None in a new run.
    """

    def __init__(
        self,
        folder: Path,
        saving: Saving,
        trained: Stateful,
        stepper: Stateful,
        export: Export,
        notes: Callable[[], dict[str, Any]],
        reporter: Reporter,
        start: int | None = None,
    ) -> None:
        self._folder, self._saving, self._export, self._notes, self._reporter = folder, saving, export, notes, reporter
        self._parts = {"trained": trained, "stepper": stepper}
        self._last_snapshot = time.monotonic()
        self._snapshot_position = start

    def after(self, position: int) -> None:
        names = self._saving.due(position)
        for name in names:
            self._write(name, position, "checkpoint")
        if names:
            self._forget_old_files()
        if position == self._saving.total_steps:
            self.finish()
        elif names or time.monotonic() - self._last_snapshot >= self._saving.snapshot_s:
            self.snapshot(position)

    def save(self, position: int) -> str:
        name = self._saving.step_name(position)
        if not (self._snapshot_position == position and self._file(name).exists()):
            self._write(name, position, "checkpoint")
            self.snapshot(position)
        return self._relative(self._file(name))

    def finish(self) -> str:
        position, name = self._saving.total_steps, self._saving.name
        if not (self._snapshot_position == position and self._file(name).exists()):
            self._write(name, position, "final")
            self.snapshot(position)
        return self._relative(self._file(name))

    def snapshot(self, position: int) -> None:
        """Write the state after `position` steps, then let the oldest snapshots go.

        Raises RunFailed if weights are not numbers any more or the disk is full; older snapshots then stay.
        """
        if self._snapshot_position == position:
            return
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts.items()}
        if not all(bool(torch.isfinite(weight).all()) for weight in state["trained"].values()):
            raise not_finite(position)
        target = self._folder / "state" / f"snapshot-{position:08d}.pt"
        with disk_sentence(target):
            self._need_room(num_bytes(state))
            with atomic_path(target) as temporary:
                write_snapshot(temporary, {"format": FORMAT, "position": position, "notes": self._notes(), **state})
        self._last_snapshot, self._snapshot_position = time.monotonic(), position
        for old in snapshots(self._folder, up_to=position)[KEEP:]:
            old.unlink(missing_ok=True)
        self._report("state", target, position)

    def _write(self, name: str, position: int, what: str) -> None:
        target = self._file(name)
        with disk_sentence(target):
            self._need_room(num_bytes(self._parts["trained"].state_dict()))
            self._export(target, position)
        self._report(what, target, position)

    def _report(self, what: str, target: Path, position: int) -> None:
        epoch = 1 + sum(end < position for end in self._saving.epoch_ends) if position else 0
        size = target.stat().st_size
        self._reporter.report(events.Saved(what, position, epoch, self._relative(target), size))

    def _forget_old_files(self) -> None:
        if not self._saving.keep_last:
            return
        files = (self._folder / "checkpoints").glob("*.safetensors")
        ours = [(at, file) for file in files if (at := self._saving.position_of(file.stem)) is not None]
        for _, file in sorted(ours)[: -self._saving.keep_last]:
            file.unlink(missing_ok=True)

    def _need_room(self, needed: int) -> None:
        if free_bytes(self._folder) < needed + SPARE_BYTES:
            raise OSError(errno.ENOSPC, "not enough room on the disk")

    def _file(self, name: str) -> Path:
        return self._folder / "checkpoints" / f"{name}.safetensors"

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


@contextmanager
def fitting() -> Iterator[None]:
    """Turn a snapshot's state that does not fit its part into a sentence: the run file was changed since."""
    try:
        yield
    except (ValueError, KeyError, RuntimeError) as error:
        raise RunFailed(
            say("The snapshot does not fit this run ({reason}).", reason=str(error)),
            say("The network or the optimiser in run.toml was changed: undo that, or start a new run."),
        ) from error


def snapshots(folder: Path, up_to: int | None = None) -> list[Path]:
    """The snapshots of a run folder, newest position first; `up_to` leaves out later ones."""
    found = sorted((folder / "state").glob("snapshot-*.pt"), reverse=True)
    return [path for path in found if up_to is None or path.stem <= f"snapshot-{up_to:08d}"]


def read_snapshot(folder: Path, warn: Callable[[events.Warning_], None]) -> dict[str, Any] | None:
    """The newest snapshot that can be read, on the CPU; None if there is none. Damaged ones are named and removed.

    Raises RunFailed for a snapshot that another version of Athanor has written: it is whole, and stays.
    """
    found = snapshots(folder)
    for number, path in enumerate(found, 1):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = say("{file} can not be read ({reason}).", file=path.name, reason=reason)
            last = say("There is none before it: the run begins anew.")
            warn(events.Warning_(what, say("The snapshot before it is used.") if number < len(found) else last))
            if not isinstance(error, OSError):
                path.unlink(missing_ok=True)
            continue
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise RunFailed(
                say("{file} was written by another version of Athanor.", file=str(path)),
                say("Resume the run with that version, or start a new one."),
            )
        return state
    return None


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed worker left half written. Only for whoever holds the folder; it may be writing there itself."""
    for place in (folder, *(folder / part for part in ("state", "checkpoints", "samples"))):
        for path in place.glob(".*.tmp"):
            if f".{os.getpid()}-" not in path.name:
                path.unlink(missing_ok=True)


def write_snapshot(path: Path, state: Mapping[str, Any]) -> None:
    """torch.save, with the disk's own error where torch hides it. Raises OSError."""
    with path.open("wb") as handle:
        honest = _HonestFile(handle)
        try:
            torch.save(dict(state), cast(BinaryIO, honest))
        except RuntimeError as error:
            if honest.error is not None:
                raise honest.error from error
            raise


class _HonestFile:
    """A file for torch.save that remembers why a write failed: torch's archive writer makes a RuntimeError of it."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def num_bytes(state: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(num_bytes(value) for value in state.values())
    return sum(num_bytes(value) for value in state) if isinstance(state, list | tuple) else 0


@contextmanager
def disk_sentence(target: Path) -> Iterator[None]:
    """Turn a full disk into a sentence. Writes are atomic: what was there before stays whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = round(free_bytes(target.parent) / 1e6)
        raise RunFailed(
            say("The disk is full: {file} could not be saved ({megabytes} MB free).", file=str(target), megabytes=free),
            say("Make room, then resume the run; every file and snapshot saved before is whole."),
        ) from error
