"""Runs as the window knows them: start, find, follow and command them. A run is its folder; its worker is nobody's child.

Everything slow (making folders, starting workers, looking through folders) happens in the pool.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from app import work
from app.journal import Batch, Follower, History, Record
from app.run_folders import PLACES, Summary, all_runs, newest_runs, run_places
from trainer.config.files import write_run
from trainer.config.run import RunFile
from trainer.errors import AthanorError
from trainer.ipc import pipe
from trainer.ipc.detach import start_detached
from trainer.ipc.events import Command, Done, Failed
from trainer.ipc.runfolder import RunFolder, create, is_alive, open_folder
from trainer.messages import say
from trainer.paths import default_runs_folder

LADDER_S = 8.0  # from asking to terminating, and from there to killing
_ending: set[Follower] = set()  # threads that were asked to end: a QThread may not be deleted before it has


class Run(QObject):
    """An open run: its history, and the way to its worker. Made by `Runs.open`.

    Signals:
        changed(Batch): the history has grown, the worker was seen, or it has gone.
        unanswered(): a command did not reach the worker.
    """

    changed = Signal(object)
    unanswered = Signal()

    def __init__(self, folder: RunFolder, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.folder = folder
        self.history = History()
        self.alive = False
        self.is_read = False  # the journal has been read to its end once
        self.is_starting = False  # a worker was started and has not been seen yet
        self.stopping = ""  # "stop" or "abort" after asking for it
        self.prompts: tuple[dict[str, Any], ...] | None = None  # the list last sent; None: the run file's
        self._name = folder.path.name
        self._worker_pid = 0  # of the one that was started
        self._seen_pid = 0  # of the one that was seen at work last
        self._waiting = QTimer(self, interval=500)
        self._waiting.timeout.connect(self._look_for_worker)
        self._follower = Follower(folder)
        self._follower.arrived.connect(self._take)
        self._follower.start()

    @property
    def name(self) -> str:
        return self._name

    @property
    def ended(self) -> bool:
        """Whether the run has said that it is over, well or not."""
        return self.history.done is not None or self.history.failed is not None

    @property
    def died(self) -> bool:
        """The worker has gone without a word: killed, crashed, or the power was cut."""
        return self.is_read and not self.alive and not self.is_starting and not self.ended

    @property
    def state(self) -> str:
        """starting, running, paused, stopping, finished, stopped, aborted, failed, died; reading at first."""
        history = self.history
        if self.is_starting:  # before all that is read: a second start must not begin another run
            return "starting"
        if not self.is_read:
            return "reading"
        if history.failed is not None:
            return "failed"
        if history.done is not None:
            return history.done.outcome
        if self.died:
            return "died"
        if self.stopping:
            return "stopping"
        return "paused" if history.paused else "running" if self.alive and history.last_number else "starting"

    @property
    def is_active(self) -> bool:
        """Whether a worker is at work (or about to be)."""
        return self.state in ("starting", "running", "paused", "stopping")

    def expect_worker(self, pid: int) -> None:
        """A worker has been started: until it shows itself (or is gone) the run is starting, not dead. It may have been
        quicker than the news of its start."""
        self.is_starting = pid != self._seen_pid
        self.stopping = ""
        self._worker_pid = pid
        self._waiting.start()

    def command(self, name: str, prompts: tuple[dict[str, Any], ...] = ()) -> None:
        """Ask the worker: pause, resume, save, sample, prompts, stop, abort. The answer is an event."""
        link, command = self._follower.link, Command(name, prompts)

        def send() -> None:
            if link is not None:
                with contextlib.suppress(OSError):
                    link.send(command)
                    return
            pipe.send(self.folder, command)

        work.run(self, send, lambda _: None, lambda _: self._not_sent(name))

    def set_prompts(self, prompts: tuple[dict[str, Any], ...]) -> None:
        """Give the worker a new list of preview prompts."""
        self.prompts = prompts
        self.command("prompts", prompts)

    def stop(self) -> None:
        """Save and end."""
        self.stopping = self.stopping or "stop"
        self.command("stop")
        self.changed.emit(Batch())

    def abort(self) -> None:
        """End now: ask, wait, terminate, wait, kill."""
        self.stopping = "abort"
        self.command("abort")
        QTimer.singleShot(int(LADDER_S * 1000), self, lambda: self._push("terminate"))
        QTimer.singleShot(int(2 * LADDER_S * 1000), self, lambda: self._push("kill"))
        self.changed.emit(Batch())

    def close(self) -> None:
        """Stop following, without waiting; the run itself goes on."""
        self._follower.arrived.disconnect(self._take)
        _ending.add(self._follower)
        self._follower.finished.connect(partial(_ending.discard, self._follower))
        self._follower.end()

    def _take(self, batch: Batch) -> None:
        self.history.apply(batch)
        if batch.caught_up:
            self.is_read = True
        if batch.alive is not None:
            self.alive = batch.alive
            if batch.alive and batch.status is not None:
                self._seen_pid = batch.status.pid
                self.is_starting = False
        if any(isinstance(item, Record) and isinstance(item.event, Done | Failed) for item in batch.items):
            self.stopping = ""
            self.is_starting = False
        self.changed.emit(batch)

    def _look_for_worker(self) -> None:
        """A worker that ends before it has said a word (a broken installation) is seen here."""
        if self.is_starting and not _exists(self._worker_pid):
            self.is_starting = False
            self.changed.emit(Batch())
        if not self.is_starting:
            self._waiting.stop()

    def _not_sent(self, name: str) -> None:
        """Where the pipe fails, a polite signal still says "save and end" (not on Windows, where it would kill)."""
        if name == "stop" and os.name != "nt":
            self._push("terminate")
            return
        self.unanswered.emit()

    def _push(self, how: str) -> None:
        """Terminate or kill the worker, if it is still the one that the status names."""
        folder = self.folder
        work.run(self, lambda: _signal_worker(folder, how), lambda _: None)


class Runs(QObject):
    """All runs of the window. `current` is the one that the Run page shows.

    Signals:
        current_changed(): another run is shown, or none.
        progressed(): the current run has something new (at most ten times a second).
        start_failed(Exception): a run could not be started.
        listed(list of Summary): answer to `find`, the newest first.
    """

    current_changed = Signal()
    progressed = Signal()
    start_failed = Signal(object)
    listed = Signal(object)

    def __init__(self, preferences: Any = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.preferences = preferences
        self.current: Run | None = None
        self.failure: Exception | None = None  # why the last start failed, until the next one
        self._is_closed = False
        self._open: dict[Path, Run] = {}
        self._starter: Callable[..., int] = start_detached

    def start(self, run: RunFile) -> None:
        """Make a folder for a checked run with absolute paths, freeze its run file, start a worker; the run is shown."""
        parent = Path(run.output.folder) if run.output.folder else default_runs_folder()
        self._remember_place(parent)

        def begin() -> tuple[RunFolder, int]:
            folder = create(parent, run.output.name)
            write_run(folder.run_file, run)
            return folder, self._launch(folder, None)

        work.run(self, begin, self._started, self._not_started)

    def resume(self, path: Path, epochs: int | None = None) -> None:
        """Go on with a run from its last snapshot, perhaps with a new length."""

        def begin() -> tuple[RunFolder, int]:
            folder = open_folder(path)
            with folder.locked():  # says so if somebody is at work in it
                pass
            return folder, self._launch(folder, epochs)

        work.run(self, begin, self._started, self._not_started)

    def open(self, path: Path) -> Run:
        """Show a run; it is followed from now on."""
        path = Path(path).resolve()
        run = self._open.get(path)
        if run is None:
            run = self._open[path] = Run(RunFolder(path), self)
            run.changed.connect(lambda _, run=run: self._on_changed(run))
        if run is not self.current:
            self.current = run
            self._close_others()
            self.current_changed.emit()
        return run

    def find(self) -> None:
        """Look for runs in every folder that runs were started in; `listed` brings them."""
        places = run_places(self.preferences)
        work.run(self, lambda: all_runs(places), self.listed.emit)

    def show_newest(self) -> None:
        """Show the run that is at work, else the newest one, if none is shown yet (at the window's start)."""

        def choose(found: list[Summary]) -> None:
            if self.current is None and found and not self._is_closed:
                chosen = next((summary for summary in found if summary.alive), found[0])
                self.open(chosen.folder.path)

        places = run_places(self.preferences)
        work.run(self, lambda: newest_runs(places), choose)

    def close(self) -> None:
        """Stop following and wait for the threads (at the window's end); all runs go on. Late answers open nothing."""
        self._is_closed = True
        for run in self._open.values():
            run.close()
        self._open.clear()
        self.current = None
        for follower in list(_ending):
            follower.wait()
        _ending.clear()

    def _launch(self, folder: RunFolder, epochs: int | None) -> int:
        arguments = ["-m", "trainer", "resume", str(folder.path)]
        if epochs is not None:
            arguments += ["--epochs", str(epochs)]
        environment = dict(os.environ) | {"PYTHONUTF8": "1"}
        environment.pop("QT_QPA_PLATFORM", None)
        try:
            return self._starter(arguments, folder.log, environment)
        except OSError as error:
            raise AthanorError(
                say("The worker could not be started ({reason}).", reason=str(error)),
                say("Run the doctor (gui.sh doctor, gui.bat doctor); it says what is wrong."),
            ) from error

    def _not_started(self, error: Exception) -> None:
        self.failure = error
        self.start_failed.emit(error)

    def _started(self, started: tuple[RunFolder, int]) -> None:
        folder, pid = started
        self.failure = None
        if self._is_closed:
            return
        self.open(folder.path).expect_worker(pid)
        self.progressed.emit()

    def _on_changed(self, run: Run) -> None:
        if run is self.current:
            self.progressed.emit()

    def _close_others(self) -> None:
        """Only the run that is shown is followed; a former one is read again when it is opened again."""
        for path, run in list(self._open.items()):
            if run is not self.current:
                del self._open[path]
                run.close()
                run.deleteLater()

    def _remember_place(self, place: Path) -> None:
        if self.preferences is not None and str(place) not in (known := self.preferences.get(PLACES, [])):
            self.preferences.set(PLACES, [str(place), *known][:50])


def _exists(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal_worker(folder: RunFolder, how: str) -> None:
    """Terminate or kill the worker of a run. Nothing happens if it has gone."""
    import psutil

    status = folder.read_status()
    if is_alive(status):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(status.pid)
            process.kill() if how == "kill" else process.terminate()
