"""The worker around a training: log, signals, failures, locks, kill -9 and resume, in real little processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer import worker
from trainer.config.files import read_run, write_run
from trainer.errors import BadInput, RunFailed
from trainer.ipc import events, journal, pipe
from trainer.ipc.detach import start_detached
from trainer.ipc.events import Command
from trainer.ipc.journal import Record, Rows
from trainer.ipc.runfolder import RUNNING_STATES, RunFolder, create
from trainer.messages import say
from trainer.paths import ROOT
from trainer.targets.wishes import Wish, remember

from .fake_worker import run_of


@pytest.fixture
def folder(awkward: Path) -> RunFolder:
    made = create(awkward, "fake")
    write_run(made.run_file, run_of())
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts fake workers as they behave by keyword; none is left at the end. What they print lies in `printed.txt`."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(folder: RunFolder, *more: str, **behaviour: Any) -> subprocess.Popen[bytes]:
        environment = dict(os.environ) | {"FAKE_WORKER": json.dumps(behaviour)}
        command = [sys.executable, "-m", "tests.fake_worker", "resume", str(folder.path), *more]
        with (folder.path / "printed.txt").open("wb") as printed:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=printed, stderr=printed)
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait(10)


Start = Callable[..., "subprocess.Popen[bytes]"]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def reported(folder: RunFolder, kind: type[events.Event]) -> list[Any]:
    parts = [part.content for part in journal.read(folder.journal)]
    return [part.event for part in parts if isinstance(part, Record) and isinstance(part.event, kind)]


def steps(folder: RunFolder) -> list[int]:
    """The steps as a window would have them: a hello supersedes what lies behind its snapshot."""
    known: list[int] = []
    for part in journal.read(folder.journal):
        if isinstance(part.content, Rows):
            known += [int(row[2] or 0) for row in part.content.rows]
        elif isinstance(part.content.event, events.Hello):
            start = part.content.event.from_step
            known = [step for step in known if step <= start]
    return known


def test_a_whole_run_ends_with_0_and_its_log_has_what_was_printed(start: Start, folder: RunFolder) -> None:
    process = start(folder, seconds=0)
    assert process.wait(30) == 0
    assert (folder.path / "printed.txt").read_bytes() == b""
    assert "the fake worker begins" in folder.log_tail()
    assert steps(folder) == list(range(1, 41))
    status = folder.read_status()
    assert (status.state, status.step, status.total_steps) == ("finished", 40, 40)
    assert not folder.is_alive() and not folder.pipe.exists()


@pytest.mark.parametrize(("signals", "outcome"), [(1, "stopped"), (2, "aborted")])
@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl+C to a console, not to a process")
def test_ctrl_c_once_saves_and_ends_twice_ends_at_once(start: Start, folder: RunFolder, signals: int, outcome: str) -> None:
    process = start(folder, steps=100_000, seconds=0.05 if signals == 2 else 0.01)
    wait_for(lambda: len(steps(folder)) > 2)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    done = reported(folder, events.Done)[-1]
    saved = reported(folder, events.Saved)
    if signals == 1:
        assert done.outcome == "stopped" and saved[-1].step == done.step
    else:
        assert done.outcome in ("stopped", outcome)
    assert folder.read_status().state == done.outcome


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.skipif(os.name == "nt", reason="there is no polite end on Windows")
def test_a_polite_end_of_the_system_or_of_the_terminal_saves(start: Start, folder: RunFolder, name: str) -> None:
    if name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        pytest.skip("the tests themselves run under nohup, which their children inherit")
    process = start(folder, steps=100_000)
    wait_for(lambda: len(steps(folder)) > 2)
    process.send_signal(getattr(signal, name))
    assert process.wait(20) == 130
    assert reported(folder, events.Saved) and reported(folder, events.Done)[-1].outcome == "stopped"


def test_an_error_is_a_sentence_with_the_traceback_in_the_log(start: Start, folder: RunFolder) -> None:
    process = start(folder, fail_at=5, seconds=0)
    assert process.wait(30) == 1
    assert (folder.path / "printed.txt").read_bytes() == b""
    failed = reported(folder, events.Failed)[-1]
    assert str(failed.what) == "The loss became not a number at step 5." and "RunFailed" in failed.details
    assert "Traceback" in folder.log_tail(100)
    assert folder.read_status().state == "failed"


def test_a_killed_run_is_dead_and_resumes_without_a_gap_or_a_double(start: Start, folder: RunFolder) -> None:
    for _ in range(3):
        process = start(folder, crash_at=30, seconds=0, save_every=9)
        assert process.wait(30) == -9
        assert not folder.is_alive() and folder.read_status().state in RUNNING_STATES
        folder.journal.write_bytes(folder.journal.read_bytes()[:-7])  # the kill tore the last line
    process = start(folder, seconds=0)
    assert process.wait(30) == 0
    assert [hello.from_step for hello in reported(folder, events.Hello)] == [0, 27, 27, 27]
    assert steps(folder) == list(range(1, 41))
    numbers = [number for number, _ in journal.raw_lines(folder.journal, 0)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_run_that_is_alive_is_not_resumed_twice(start: Start, folder: RunFolder) -> None:
    first = start(folder, steps=100_000)
    wait_for(lambda: len(steps(folder)) > 2)
    assert start(folder).wait(30) != 0
    pipe.send(folder, Command("stop"))
    assert first.wait(20) == 130
    assert len(reported(folder, events.Hello)) == 1


def test_more_epochs_is_a_change_in_the_journal_and_in_the_run_file(start: Start, folder: RunFolder) -> None:
    assert start(folder, "--epochs", "12", seconds=0).wait(30) == 0
    assert reported(folder, events.Hello)[0].changes == (
        say("The length was {before} epochs and is now {after} epochs.", before=10, after=12),
    )
    assert read_run(folder.run_file).training.epochs == 12


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_under_nohup_the_end_of_the_terminal_changes_nothing(folder: RunFolder) -> None:
    environment = dict(os.environ) | {"FAKE_WORKER": json.dumps({"steps": 100_000})}
    command = ["nohup", sys.executable, "-m", "tests.fake_worker", "resume", str(folder.path)]
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **nowhere) as process:  # type: ignore[call-overload]
        wait_for(lambda: len(steps(folder)) > 2)
        process.send_signal(signal.SIGHUP)
        count = len(steps(folder))
        wait_for(lambda: len(steps(folder)) > count + 5)
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error there")
def test_a_reader_that_has_gone_does_not_change_how_a_run_ends(folder: RunFolder) -> None:
    environment = dict(os.environ) | {"FAKE_WORKER": json.dumps({"seconds": 0.01})}
    command = [sys.executable, "-m", "tests.fake_worker", "resume", str(folder.path), "--json"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    assert folder.read_status().state == "finished"


def test_a_broken_run_file_is_told_in_the_journal_too(start: Start, folder: RunFolder) -> None:
    folder.run_file.write_text("format = 1\n[training]\nepoch = 3\n", encoding="utf-8")
    assert start(folder).wait(30) == 2
    failed = reported(folder, events.Failed)[-1]
    assert "epoch" in str(failed.what) and failed.exit_code == 2


def test_commands_reach_the_training_and_are_answered_by_events(start: Start, folder: RunFolder) -> None:
    process = start(folder, steps=100_000, sample_every=10**9)
    wait_for(lambda: len(steps(folder)) > 2)
    pipe.send(folder, Command("pause"))
    wait_for(lambda: folder.read_status().state == "paused")
    count = len(steps(folder))
    pipe.send(folder, Command("save"))
    pipe.send(folder, Command("prompts", ({"prompt": "猫"},)))
    pipe.send(folder, Command("sample"))
    wait_for(lambda: any(sample.prompt == "猫" for sample in reported(folder, events.Sample)))
    assert reported(folder, events.Saved) and len(steps(folder)) == count
    pipe.send(folder, Command("resume"))
    wait_for(lambda: len(steps(folder)) > count)
    pipe.send(folder, Command("abort"))
    assert process.wait(20) == 130
    assert [event.paused for event in reported(folder, events.Paused)] == [True, False]


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_a_detached_worker_outlives_the_process_group_of_its_starter(folder: RunFolder) -> None:
    starter = (
        "import sys, time\nfrom pathlib import Path\nfrom trainer.ipc.detach import start_detached\n"
        "print(start_detached(['-m', 'tests.fake_worker', 'resume', sys.argv[1]], Path(sys.argv[2])), flush=True)\n"
        "time.sleep(60)"
    )
    environment = dict(os.environ) | {"FAKE_WORKER": json.dumps({"steps": 100_000})}
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(folder.path), str(folder.log)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as window:  # fmt: skip
        assert window.stdout is not None
        pid = int(window.stdout.readline())
        wait_for(lambda: len(steps(folder)) > 2)
        os.killpg(window.pid, signal.SIGKILL)
    count = len(steps(folder))
    wait_for(lambda: len(steps(folder)) > count + 3)
    assert folder.is_alive() and folder.read_status().pid == pid
    pipe.send(folder, Command("abort"))
    wait_for(lambda: not folder.is_alive())


def test_what_can_not_be_started_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="can not be started"):
        start_detached(["-c", ""], tmp_path / "missing" / "log.txt")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "not enough memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space"), "The disk is full"),
        (PermissionError(errno.EACCES, "no", "file.bin"), "file.bin may not be written"),
        (ImportError("No module named 'x'"), "installation is missing"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x"),
    ],
)
def test_every_error_says_what_and_what_to_do(tmp_path: Path, error: Exception, sentence: str) -> None:
    failed = worker.failure(error, tmp_path)
    assert sentence in str(failed.what) and str(failed.todo) and failed.exit_code == 1


def webui(parent: Path) -> Path:
    root = parent / "webui"
    (root / "modules").mkdir(parents=True)
    (root / "webui.py").write_text("", encoding="utf-8")
    return root


def exporting(folder: RunFolder, root: Path, **output: Any) -> events.Done:
    run = run_of(export_to=str(root), **output)
    write_run(folder.run_file, run)

    def train(job: worker.Job) -> events.Done:
        import numpy as np
        from safetensors.numpy import save_file

        file = job.folder.checkpoints / "fake.safetensors"
        save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, str(file), {"ss_output_name": "fake"})
        return events.Done(1, "finished", "checkpoints/fake.safetensors")

    ending = worker.work(folder, train)
    assert isinstance(ending, events.Done)
    return ending


def test_the_final_file_is_placed_where_the_run_file_says_and_never_over_another(awkward: Path, folder: RunFolder) -> None:
    root = webui(awkward)
    exporting(folder, root)
    placed = [saved for saved in reported(folder, events.Saved) if saved.what == "export"]
    assert [Path(saved.file).name for saved in placed] == ["fake.safetensors"]
    mine = Path(placed[0].file)
    mine.write_bytes(b"another")
    exporting(folder, root)
    placed = [saved for saved in reported(folder, events.Saved) if saved.what == "export"]
    assert mine.read_bytes() == b"another" and Path(placed[1].file).stem == folder.path.name


def test_an_export_that_fails_is_a_warning(tmp_path: Path, folder: RunFolder) -> None:
    assert exporting(folder, tmp_path / "none").outcome == "finished"
    assert "There is no folder" in str(reported(folder, events.Warning_)[-1].what)


def test_a_running_program_is_asked_to_show_the_file_if_the_user_wants_it(awkward: Path, folder: RunFolder) -> None:
    root = webui(awkward)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        remember(root, Wish(False, address))
        exporting(folder, root)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.setblocking(True)
        asked: list[bytes] = []

        def answer() -> None:
            with listener.accept()[0] as connection:
                asked.append(connection.recv(4000))
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nnull")

        thread = threading.Thread(target=answer)
        thread.start()
        remember(root, Wish(True, address))
        exporting(folder, root)
        thread.join(10)
    assert asked[0].startswith(b"POST /sdapi/v1/refresh-loras ")
    assert reported(folder, events.Warning_) == []


def test_a_webui_that_does_not_run_or_answer_is_a_note_and_holds_the_end_up_no_longer_than_that(
    awkward: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REFRESH_PATIENCE_S", 0.3)
    root = webui(awkward)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        remember(root, Wish(True, address))
        begun = time.monotonic()
        assert exporting(folder, root).outcome == "finished"
        assert time.monotonic() - begun < 3
    assert exporting(folder, root).outcome == "finished"
    notes = reported(folder, events.Warning_)
    assert len(notes) == 2
    assert all(note.is_note and "No WebUI answers" in str(note.what) for note in notes)


def test_a_program_that_knows_no_such_call_is_not_asked(tmp_path: Path, folder: RunFolder) -> None:
    (tmp_path / "plain").mkdir()
    remember(tmp_path / "plain", Wish(True, "http://127.0.0.1:1"))
    exporting(folder, tmp_path / "plain")
    assert reported(folder, events.Warning_) == []


def test_errors_before_the_training_keep_their_exit_code(folder: RunFolder) -> None:
    def train(job: worker.Job) -> events.Done:
        raise BadInput(say("No picture."), say("Add one."))

    ending = worker.work(folder, train)
    assert worker.exit_code(ending) == 2

    def broken(job: worker.Job) -> events.Done:
        raise RunFailed(say("It broke."))

    assert worker.exit_code(worker.work(folder, broken)) == 1
