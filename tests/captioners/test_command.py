"""Tests of `python -m captioners` as others call it: a process with arguments, exit codes and lines."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captioners import __main__ as command
from captioners.common.events import Begun, Finished, Opened, read_event
from tests.captioners.tiny_tagger import ROWS, save_labels, save_model, save_picture
from trainer.files import write_text
from trainer.ipc.events import Event, Failed
from trainer.paths import ROOT

BLUE = 'saber (fate), long hair, ^_^, a, "b" (c)'


@pytest.fixture
def model(awkward: Path) -> Path:
    return save_model(awkward / "model")


@pytest.fixture
def pictures(awkward: Path) -> Path:
    folder = awkward / "10_猫 cat"
    for number in range(3):
        save_picture(folder / f"{number}.png", (0, 0, 255 - number))
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "captioners", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=120)


def events_of(output: str) -> list[Event]:
    events = [read_event(line) for line in output.splitlines()]
    assert None not in events, output
    return [event for event in events if event is not None]


def test_a_folder_is_captioned_and_a_second_run_needs_no_model(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "2.txt").write_text("by hand", encoding="utf-8")
    first = run("wd14", "--model", model, pictures, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.isascii()
    events = events_of(first.stdout)
    assert isinstance(events[0], Begun) and (events[0].total, events[0].kept) == (2, 1)
    assert [event.device for event in events if isinstance(event, Opened)] == ["CPUExecutionProvider"]
    assert (pictures / "0.txt").read_text(encoding="utf-8") == BLUE
    assert (pictures / "2.txt").read_text(encoding="utf-8") == "by hand"

    options = ["--json", "--mode", "overwrite", "--general-threshold", "0.99"]
    assert command.main(["wd14", f"--model={model}", *options, str(pictures)]) == 0
    last = events_of(capsys.readouterr().out)[-1]
    assert isinstance(last, Finished) and (last.from_scores, last.written) == (2, 3)
    assert (pictures / "0.txt").read_text(encoding="utf-8") == "saber (fate), long hair"
    (backup,) = last.backups
    assert (Path(backup) / "2.txt").read_text(encoding="utf-8") == "by hand"


def test_the_terminal_says_it_in_words(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["wd14", "--model", str(model / "model.onnx"), str(pictures), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"0.png: {BLUE}" in said
    assert "Nothing was written" in said
    assert not list(pictures.glob("*.txt"))


def test_a_stop_file_stops_it(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    assert command.main(["wd14", "--model", str(model), str(pictures), "--json", "--stop-file", str(stop)]) == 130
    last = events_of(capsys.readouterr().out)[-1]
    assert isinstance(last, Finished) and last.stopped and last.not_done == 3


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_and_the_next_run_goes_on(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def write_and_be_stopped(target: Path, text: str) -> None:
        write_text(target, text)
        if target.name == "0.txt":
            signal.raise_signal(getattr(signal, name))

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr("captioners.common.writing.write_text", write_and_be_stopped)
        assert command.main(["wd14", "--model", str(model), "--json", str(pictures)]) == 130
    last = events_of(capsys.readouterr().out)[-1]
    assert isinstance(last, Finished) and last.stopped
    assert last.written == len(list(pictures.glob("*.txt"))) < 3
    assert signal.getsignal(signal.SIGINT) is before
    assert command.main(["wd14", "--model", str(model), "--json", str(pictures)]) == 0
    again = events_of(capsys.readouterr().out)[-1]
    assert isinstance(again, Finished)
    assert (again.kept, again.written) == (last.written, 3 - last.written)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("no folder", "There is no folder"),
        ("no labels", "has no selected_tags.csv"),
        ("pointer", "note of where Git keeps it"),
        ("web page", "web page"),
        ("not onnx", "cannot be opened as an ONNX model"),
        ("cut short", "cannot be opened as an ONNX model"),
        ("wrong count", "knows 9 tags, but the list beside it has 8"),
        ("no list", "not a list of tags"),
        ("wrong encoding", "not a list of tags"),
    ],
)
def test_a_bad_model_is_a_sentence(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], spoil: str, words: str
) -> None:
    onnx_file, labels = model / "model.onnx", model / "selected_tags.csv"
    match spoil:
        case "no folder":
            model = model / "nothing"
        case "no labels":
            labels.unlink()
        case "pointer":
            onnx_file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
        case "web page":
            labels.write_bytes(b"\n<!DOCTYPE html>")
        case "not onnx":
            onnx_file.write_bytes(b"\x89PNG\r\n" * 100)
        case "cut short":
            onnx_file.write_bytes(onnx_file.read_bytes()[:-200])
        case "wrong count":
            save_labels(model, ROWS[:-1])
        case "no list":
            labels.write_text("one,two\n1,2\n", encoding="utf-8")
        case "wrong encoding":
            labels.write_bytes("tag_id,name,category,count\n1,长发,0,1\n".encode("gbk"))
    assert command.main(["wd14", "--model", str(model), str(pictures), "--json"]) == 2
    out, err = capsys.readouterr()
    last = events_of(out)[-1]
    assert isinstance(last, Failed) and last.exit_code == 2
    assert words in str(last.what) and last.todo is not None
    assert err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--general-threshold", "2"], "general_threshold"),
        (["--replacements", "hair"], "old = new"),
    ],
)
def test_bad_options_are_a_sentence(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert command.main(["wd14", str(pictures), "--model", str(model), *options]) == 2
    assert words in capsys.readouterr().out
    assert not list(pictures.glob("*.txt"))


def test_a_picture_that_is_not_there_is_a_sentence(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["wd14", "missing.png", "--model", str(model)]) == 2
    assert "missing.png" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_a_sentence(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("captioners.common.writing.write_text", refuse)
    assert command.main(["wd14", str(pictures), "--model", str(model), "--json"]) == 1
    last = events_of(capsys.readouterr().out)[-1]
    assert isinstance(last, Failed) and "cannot be written (Permission denied)" in str(last.what)


@pytest.mark.parametrize("damaged", ["scores", "pictures"])
def test_what_the_system_refuses_is_named_for_what_it_is(
    damaged: str, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        if damaged == "scores":
            raise sqlite3.OperationalError("database is locked")
        raise OSError(5, "Input/output error", str(pictures))

    monkeypatch.setattr(command, "caption_pictures", lambda *_, **__: refuse())
    assert command.main(["wd14", "--model", str(model), str(pictures)]) == 1
    said = capsys.readouterr().out
    assert ("stored scores" in said and "scores.sqlite" in said) is (damaged == "scores")
    assert (f"{pictures} can not be used (Input/output error)" in said) is (damaged == "pictures")


def test_a_reader_that_goes_away_does_not_end_the_work(model: Path, pictures: Path) -> None:
    line = [sys.executable, "-m", "captioners", "wd14", "--model", str(model), str(pictures), "--json"]
    worker = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert worker.stdout is not None and worker.stderr is not None
    worker.stdout.close()
    complaints = worker.stderr.read()
    worker.stderr.close()
    assert worker.wait(60) == 0, complaints
    deadline = time.monotonic() + 5
    while len(list(pictures.glob("*.txt"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(pictures.glob("*.txt"))) == 3
    assert complaints == b""


def test_help_names_every_captioner(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "wd14" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["wd14", "--help"])
    assert "captions_backup" in capsys.readouterr().out
