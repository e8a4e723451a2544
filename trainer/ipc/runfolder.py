"""A run's folder: its files and their names, who is at work in it, and how a second worker is kept out."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

from trainer.errors import BadInput
from trainer.files import write_json
from trainer.locks import try_lock, unlock
from trainer.messages import say

RUNNING_STATES = ("starting", "running", "paused")
START_TIME_TOLERANCE_S = 2.0  # psutil's start time moves a little when the clock is set
FOREIGN_SILENCE_S = 60.0  # a run on another computer counts as dead after this long without a heartbeat


@dataclass(frozen=True)
class Status:
    """What `status.json` says: enough for a list of runs, without reading the journal."""

    state: str = "starting"  # starting, running, paused, finished, stopped, aborted, failed
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    pid: int = 0
    started: float = 0.0  # of the process
    heartbeat: float = 0.0
    host: str = ""
    name: str = ""
    created: float = 0.0  # of the run


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name. Nothing here keeps a file open."""

    path: Path

    @property
    def run_file(self) -> Path:
        return self.path / "run.toml"

    @property
    def journal(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def pipe(self) -> Path:
        return self.path / "pipe.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def read_status(self) -> Status:
        """The run's status; a fresh `Status` where there is none yet or it can not be read."""
        try:
            data = json.loads(self.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Status(name=self.path.name)
        if not isinstance(data, dict):
            return Status(name=self.path.name)
        given = {part.name: data[part.name] for part in fields(Status) if part.name in data}
        return Status(**{name: value for name, value in given.items() if _fits(value, getattr(Status, name))})

    def write_status(self, status: Status) -> None:
        """Replace the status atomically.

        Raises:
            OSError: if it can not be written.
        """
        write_json(self.status, asdict(status))

    def is_alive(self) -> bool:
        """Whether a worker is at work in this folder."""
        return is_alive(self.read_status())

    def log_tail(self, num_lines: int = 20, num_bytes: int = 16_384) -> str:
        """The last lines of the log; empty where there is none."""
        try:
            with self.log.open("rb") as handle:
                handle.seek(max(0, self.log.stat().st_size - num_bytes))
                text = handle.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.replace("\r", "\n").strip().splitlines()[-num_lines:])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder while working in it; the system lets go of it if the process dies.

        Raises:
            BadInput: if another worker is at work in it.
        """
        if self.is_alive() and self.read_status().pid != os.getpid():
            raise self._busy()
        with (self.path / "lock").open("a+b") as handle:
            if not _lock(handle):
                raise self._busy()
            try:
                yield
            finally:
                unlock(handle)

    def _busy(self) -> BadInput:
        return BadInput(
            say("The run in {folder} is still at work.", folder=str(self.path)),
            say("Watch it in the window, or stop it first."),
        )


def create(parent: Path, name: str, now: float | None = None) -> RunFolder:
    """Make the folder `<parent>/<name>-<timestamp>/` with its sub-folders and a first status.

    Raises:
        BadInput: if it can not be made there.
    """
    moment = time.time() if now is None else now
    stem = f"{safe_name(name)}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(moment))}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path = _new_folder(parent, stem)
        folder = RunFolder(path.resolve())
        for part in (folder.samples, folder.checkpoints, folder.state):
            part.mkdir()
        folder.write_status(Status(name=name, created=moment))
    except OSError as error:
        raise BadInput(
            say("No folder for the run can be made in {folder} ({reason}).", folder=str(parent), reason=_reason(error)),
            say("Choose another output folder, or allow writing there."),
        ) from error
    return folder


def open_folder(path: Path) -> RunFolder:
    """An existing run folder.

    Raises:
        BadInput: if `path` is not one.
    """
    folder = RunFolder(path.expanduser().resolve())
    if not folder.path.is_dir():
        raise BadInput(say("There is no folder {folder}.", folder=str(path)), say("Give the folder of a run."))
    if not folder.run_file.is_file():
        raise BadInput(
            say("{folder} is not the folder of a run: it has no run.toml.", folder=str(path)),
            say("Give the folder whose name ends in the date and time of the run."),
        )
    return folder


def find_runs(parent: Path) -> list[RunFolder]:
    """The run folders in `parent`, the newest first. A parent that is missing or can not be read has none."""
    try:
        folders = [RunFolder(path) for path in parent.iterdir() if (path / "run.toml").is_file()]
    except OSError:
        return []
    return sorted(folders, key=lambda folder: (folder.read_status().created, folder.path.name), reverse=True)


def mine(status: Status) -> Status:
    """`status` as this process's: its pid, start time, host and a heartbeat of now."""
    import psutil

    started = psutil.Process().create_time()
    return replace(status, pid=os.getpid(), started=started, host=socket.gethostname(), heartbeat=time.time())


def is_alive(status: Status) -> bool:
    """Whether the worker of `status` still lives: its pid exists, is no zombie, and began when the status says."""
    if status.state not in RUNNING_STATES or not status.pid:
        return False
    if status.host != socket.gethostname():
        return time.time() - status.heartbeat < FOREIGN_SILENCE_S
    import psutil

    try:
        process = psutil.Process(status.pid)
        same = abs(process.create_time() - status.started) < START_TIME_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def safe_name(name: str) -> str:
    """`name` as a file name that Windows accepts too: any letters, none of its forbidden characters."""
    kept = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", name).strip(" .")[:80]
    return kept or "run"


def _new_folder(parent: Path, stem: str) -> Path:
    for attempt in range(1, 1000):
        path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise FileExistsError(parent / stem)


def _fits(value: Any, usual: str | int | float) -> bool:
    """Whether a value of a status is of its kind: a text, or a number."""
    return isinstance(value, str) if isinstance(usual, str) else isinstance(value, int | float)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _lock(handle: IO[bytes]) -> bool:
    """Take the system's lock on an open file; False if another process holds it."""
    try:
        return try_lock(handle)
    except OSError:
        return True  # a file system without locks: pid and start time must do
