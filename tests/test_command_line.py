"""`python -m trainer`: bad input is a sentence and exit code 2, answers can be read by programs, no torch to look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.config.files import write_run
from trainer.ipc import events
from trainer.ipc.journal import Record
from trainer.ipc.runfolder import create
from trainer.messages import say
from trainer.paths import ROOT
from trainer.terminal import Screen, Terminal, bar, duration

from .fake_worker import run_of


def run(*arguments: str) -> int:
    """The exit code of a command, in this process."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.toml",), "There is no run file missing.toml"),
        (("check", "missing.toml"), "There is no run file"),
        (("estimate", "missing.toml"), "There is no run file"),
        (("folder/missing",), "There is no run file"),
        (("convert", "model.ckpt"), "invalid choice: 'convert' (choose from 'train', "),
        (("resume", "missing"), "There is no folder missing"),
        (("stop", "missing"), "There is no folder missing"),
        (("send", "missing", "dance"), "invalid choice: 'dance'"),
        (("resume", "x", "--epochs", "many"), "many is not a whole number above 0"),
        (("resume", "x", "--epochs", "0"), "0 is not a whole number above 0"),
        ((), "required"),
        (("--what",), "required"),
    ],
)
def test_bad_input_is_a_sentence_and_2(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capfd.readouterr()
    assert said in printed.err and "Traceback" not in printed.err + printed.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = 1\n[trainin]\nepochs = 3\n", "trainin"),
        ('format = 1\n[optimizer]\nlearning_rate = "fast"\n', "learning_rate"),
        ("not toml at all", "is not a run file"),
        ("format = 1\n[images]\nresolution = [500, 512]\n", "resolution"),
    ],
)
def test_every_command_refuses_a_bad_run_file_alike(
    text: str, said: str, awkward: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = awkward / "run.toml"
    file.write_text(text, encoding="utf-8")
    for command in ((), ("check",), ("estimate",)):
        assert run(*command, str(file)) == 2
        assert said in capfd.readouterr().err


def test_check_says_everything_in_json_too(awkward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = awkward / "run.toml"
    write_run(file, run_of())
    assert run("check", str(file), "--json") == 2
    answer = json.loads(capfd.readouterr().out)
    assert not answer["ok"] and {"model.path", "images.folders[1].path"} <= {item["place"] for item in answer["problems"]}
    assert run("check", str(file)) == 2
    assert "Problem: model.path" in capfd.readouterr().err


def test_no_run_folder_is_made_for_a_run_that_can_not_train(awkward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = awkward / "run.toml"
    write_run(file, run_of(folder=str(awkward / "runs")))
    assert run(str(file)) == 2
    assert not (awkward / "runs").exists()
    assert run(str(file), "--json") == 2
    assert json.loads(capfd.readouterr().out)["problems"]


def test_inspect_says_what_a_file_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no model at all")
    assert run("inspect", str(tmp_path / "model.safetensors")) == 2
    assert capfd.readouterr().out.count("“no model at all”") == 1
    assert run("inspect", str(tmp_path / "model.safetensors"), "--json") == 2
    assert json.loads(capfd.readouterr().out)["kind"] in ("broken", "unknown")


def test_a_command_to_a_run_that_is_over_is_a_sentence(awkward: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = create(awkward, "a")
    write_run(folder.run_file, run_of())
    assert run("stop", str(folder.path)) == 2
    assert "Nobody is at work" in capfd.readouterr().err


def test_looking_needs_no_torch(awkward: Path) -> None:
    write_run(awkward / "run.toml", run_of())
    code = (
        "import sys; from trainer.__main__ import main; main(['check', sys.argv[1]]);"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, str(awkward / "run.toml")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Stream:
    """A stream that keeps what was written, or one that was closed."""

    def __init__(self, closed: bool = False) -> None:
        self.text, self.closed = "", closed

    def write(self, text: str) -> int:
        if self.closed:
            raise OSError("the terminal was closed")
        self.text += text
        return len(text)

    def flush(self) -> None: ...


EVENTS: list[events.Event] = [
    events.Stage("loading"),
    events.Hello(1, 1, 0.0, 0, 4, 2, 2, "cpu", (say("Now {n} epochs.", n=2),)),
    events.Warning_(say("One picture is broken."), say("Look at it.")),
    *(events.Step(step, 1, 0.5, (1e-4,), 0.25) for step in range(1, 5)),
    events.Saved("checkpoint", 4, 2, "checkpoints/a.safetensors"),
]


def test_the_terminal_says_what_the_window_shows() -> None:
    screen = Stream()
    terminal = Terminal(Screen(screen, is_live=True))  # type: ignore[arg-type]
    for number, event in enumerate(EVENTS, 1):
        terminal(Record(number, 0.0, event))
    assert "Loading the base model" in screen.text
    assert "Changed since the run began: Now 2 epochs.\n" in screen.text
    assert "Note: One picture is broken. Look at it." in screen.text
    assert "100%  step 4/4  epoch 1  loss 0.5000  0.25 s/step  0 s left\n" in screen.text
    assert screen.text.endswith("Saved checkpoints/a.safetensors\n")


def test_a_terminal_that_was_closed_ends_no_run() -> None:
    terminal = Terminal(Screen(Stream(closed=True), is_live=True))  # type: ignore[arg-type]
    for number, event in enumerate(EVENTS, 1):
        terminal(Record(number, 0.0, event))


def test_a_shorter_line_leaves_nothing_of_the_longer_one_before() -> None:
    stream = Stream()
    screen = Screen(stream, is_live=True)  # type: ignore[arg-type]
    screen.renew("a long line")
    screen.renew("short")
    screen.say("said")
    screen.renew("end", final=True)
    assert shown(stream.text) == ["said", "end", ""]
    assert "\x1b" not in stream.text


def shown(text: str) -> list[str]:
    """The lines as a console shows them that knows carriage returns only."""
    lines = []
    for raw in text.split("\n"):
        line = ""
        for piece in raw.split("\r"):
            line = piece + line[len(piece) :]
        lines.append(line.rstrip())
    return lines


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_a_line_is_as_wide_as_its_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import pty
    import struct
    import termios

    monkeypatch.setenv("COLUMNS", "500")  # of another terminal
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(slave, "w", encoding="utf-8") as stream:  # noqa: PTH123  (a descriptor)
        screen = Screen(stream, is_live=True)
        screen.renew("x" * 100)
        assert screen.room() == 39
        assert os.read(master, 1000) == b"\r" + b"x" * 39
    os.close(master)


@pytest.mark.parametrize("blocked", ["log.txt", "lock", "events.jsonl"])
def test_a_run_folder_that_can_not_be_written_is_a_sentence(
    blocked: str, awkward: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = create(awkward, "run")
    write_run(folder.run_file, run_of())
    (folder.path / blocked).mkdir()
    assert run("resume", str(folder.path)) == 2
    printed = capfd.readouterr()
    assert blocked in printed.err and "can not be used" in printed.err and "Traceback" not in printed.err + printed.out


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (65, "1:05 min"), (7384, "2:03 h"), (float("nan"), "?")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_bar_is_full_when_all_is_done_and_bears_an_unknown_end() -> None:
    assert bar(3, 3).count("#") == len(bar(0, 0)) - len("[]   0%")
    assert bar(5, 0).startswith("[....")
