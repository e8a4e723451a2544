"""A run from its folder to its end: lock, log, journal and pipe around the training, and what an error becomes.

The training itself is `trainer.build` and `trainer.loop`; they are imported late, when windows can already watch.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from trainer.awake import keep_awake
from trainer.config.files import read_run, write_run
from trainer.config.run import RunFile
from trainer.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, AthanorError
from trainer.files import free_bytes
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.ipc.runfolder import RunFolder
from trainer.ipc.station import Listener, Station
from trainer.messages import Message, say


@dataclass(frozen=True)
class Job:
    """What the training gets: the checked run file, its folder, the desk, and what changed since the run began."""

    run: RunFile
    folder: RunFolder
    station: Station
    changes: tuple[Message, ...] = ()


Train = Callable[[Job], events.Done]
REFRESH_PATIENCE_S = 3.0  # for a WebUI to answer, at a run's end


def work(
    folder: RunFolder, train: Train, *, epochs: int | None = None, listeners: Sequence[Listener] = ()
) -> events.Done | events.Failed:
    """Train what the folder's run file says, from its last snapshot if there is one, and return how it ended.

    Args:
        folder: of a run that nobody is at work in.
        train: the training; it reports through the job's station and ends with a `Done` that it has not reported.
        epochs: a new length, which goes into the run file.
        listeners: get every event besides the journal and the windows.

    Raises:
        AthanorError: if somebody is at work in the folder. Every other error is a `Failed`, in the journal too.
    """
    with folder.locked():
        station = Station(folder, listeners)
        ending: events.Done | events.Failed
        try:
            with _signals_are_commands(station), keep_awake():
                run, changes = _with_epochs(read_run(folder.run_file), epochs)
                if changes:
                    write_run(folder.run_file, run)
                ending = train(Job(run, folder, station, changes))
                _export(run, folder, station, ending)
        except KeyboardInterrupt:
            ending = events.Done(station.status.step, "aborted")
        except Exception as error:  # noqa: BLE001  (the end of the worker: every error becomes a sentence and a report)
            traceback.print_exc()
            ending = failure(error, folder.path)
        station.report(ending)
        station.close()
        return ending


def exit_code(ending: events.Done | events.Failed) -> int:
    """What the process ends with."""
    if isinstance(ending, events.Failed):
        return ending.exit_code
    return EXIT_DONE if ending.outcome == "finished" else EXIT_STOPPED


def failure(error: Exception, folder: Path) -> events.Failed:
    """An error as an event: what happened and what to do, with the traceback for a report. `folder`: of the run."""
    details = "".join(traceback.format_exception(error))
    what, todo = describe(error, folder)
    return events.Failed(what, todo, getattr(error, "exit_code", EXIT_FAILED), details)


def describe(error: Exception, folder: Path) -> tuple[Message, Message | None]:
    """What an error says to the user, and what to do about it."""
    if isinstance(error, AthanorError):
        return error.what, error.todo
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return (
            say("There was not enough memory."),
            say("Lower the batch size or the resolution, switch gradient checkpointing on, or close other programs."),
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(folder) / 1e6
        return (
            say("The disk is full: {megabytes} MB are free at {folder}.", megabytes=round(free), folder=str(folder)),
            say("Make room, then resume the run; everything saved before is whole."),
        )
    if isinstance(error, PermissionError):
        return (
            say("{file} may not be written or read.", file=str(error.filename)),
            say("Close programs that have it open, or change its rights; then resume the run."),
        )
    if isinstance(error, ImportError):
        return (
            say("A part of the installation is missing ({reason}).", reason=str(error)),
            say("Run the doctor (gui.sh doctor, gui.bat doctor); it says what is wrong."),
        )
    return (
        say("The training failed ({reason}).", reason=f"{type(error).__name__}: {error}"),
        say("The last lines of log.txt say where. Resume goes on from the last snapshot."),
    )


@contextlib.contextmanager
def output_to_log(log: Path) -> Iterator[TextIO]:
    """Everything printed in the block, by libraries too, goes to `log`; yields the terminal that was there before."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as target, _terminal() as terminal:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
        with _plain_streams(), _fault_reports(target.fileno()):
            try:
                yield terminal
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for number, descriptor in enumerate(kept, 1):
                    os.dup2(descriptor, number)
                    os.close(descriptor)


@contextlib.contextmanager
def _terminal() -> Iterator[TextIO]:
    """A stream of its own to where descriptor 1 leads; that nobody reads it any more is no error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def _plain_streams() -> Iterator[None]:
    """Python's own stdout and stderr write UTF-8 line by line to descriptors 1 and 2, whatever they did before."""
    before = sys.stdout, sys.stderr
    streams = [os.fdopen(os.dup(number), "w", 1, encoding="utf-8", errors="replace") for number in (1, 2)]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close()


@contextlib.contextmanager
def _fault_reports(descriptor: int) -> Iterator[None]:
    """A crash in a library leaves its stack in the log."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(descriptor)
    try:
        yield
    finally:
        faulthandler.disable()
        if was_enabled:
            faulthandler.enable(2)


@contextlib.contextmanager
def _signals_are_commands(station: Station) -> Iterator[None]:
    """Ctrl+C once (or a polite request of the system to end, or the terminal's end) saves and ends; twice ends now; three
    times breaks off. Under nohup the end of the terminal changes nothing."""
    asked: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 2:
            raise KeyboardInterrupt
        station.command(Command("stop" if len(asked) == 1 else "abort"))

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_epochs(run: RunFile, epochs: int | None) -> tuple[RunFile, tuple[Message, ...]]:
    """The run with a new length in epochs, and the change as the journal has it."""
    before = run.training
    if epochs is None or (epochs == before.epochs and before.steps is None):
        return run, ()
    if before.steps is None:
        change = say("The length was {before} epochs and is now {after} epochs.", before=before.epochs, after=epochs)
    else:
        change = say("The length was {before} steps and is now {after} epochs.", before=before.steps, after=epochs)
    training = before.model_copy(update={"epochs": epochs, "steps": None})
    return run.model_copy(update={"training": training}), (change,)


def _export(run: RunFile, folder: RunFolder, station: Station, ending: events.Done) -> None:
    """Place the finished LoRA where the run file says. What goes wrong here is a warning: the run itself is done."""
    if not run.output.export_to or ending.outcome != "finished" or not ending.file:
        return
    station.report(events.Stage("exporting"))
    try:
        target = place(run, folder, folder.path / ending.file)
    except AthanorError as error:
        station.report(events.Warning_(error.what, error.todo))
        return
    station.report(events.Saved("export", ending.step, 0, str(target), target.stat().st_size))
    if (note := _refresh(run)) is not None:
        station.report(events.Warning_(note, is_note=True))


def _refresh(run: RunFile) -> Message | None:
    """Let the program show what was placed, if that is wanted of it; why it does not, as a note.

    Takes `REFRESH_PATIENCE_S` at most.
    """
    from trainer.export_targets import find_target, refresh_wanted

    target = find_target(Path(run.output.export_to))
    return None if target is None else refresh_wanted(target, "lora", REFRESH_PATIENCE_S)


def place(run: RunFile, folder: RunFolder, source: Path) -> Path:
    """Copy a LoRA of the run into the WebUI that the run file names; a name that is taken gets the run's time added.

    Raises:
        AthanorError: if the folder is no WebUI's, or can not be written.
    """
    from trainer.errors import BadInput
    from trainer.export_targets import Conflict, export_to, find_target

    target = find_target(Path(run.output.export_to))
    if target is None:
        raise BadInput(
            say("There is no folder {path}.", path=run.output.export_to),
            say("Choose the folder of the program that draws, or a plain folder."),
        )
    pictures = sorted(folder.samples.glob("*.png"), key=lambda path: path.stat().st_mtime)
    preview = pictures[-1] if pictures else None
    words = activation_text(run)
    try:
        return export_to(target, source, source.stem, preview=preview, activation_text=words)
    except Conflict:
        return export_to(target, source, folder.path.name, preview=preview, activation_text=words)


def activation_text(run: RunFile) -> str:
    """What to write in a prompt to call the LoRA up: the caption prefix, else the words of the first folder."""
    prefix = run.images.caption_prefix.strip().strip(",").strip()
    if prefix or not run.images.folders:
        return prefix
    first = run.images.folders[0]
    repeats, _, words = Path(first.path).name.partition("_")
    return first.caption or (words if repeats.isdigit() else "")
