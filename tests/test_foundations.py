"""Sentences, errors and atomic files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainer import files
from trainer.errors import AthanorError, BadInput, BadRunFile, Problem, RunFailed, Stopped
from trainer.messages import Message, say


def test_a_message_survives_json_and_takes_a_translation() -> None:
    message = say("{count} files in {folder}", count=3, folder="{x}")
    assert str(message) == "3 files in {x}"
    assert Message.from_json(message.to_json()) == message
    assert message.text({"{count} files in {folder}": "{folder} 中有 {count} 个文件"}.__getitem__) == "{x} 中有 3 个文件"


def test_a_sentence_within_a_sentence_is_translated_too() -> None:
    message = say("{path} cannot be used: {problem}", path="a", problem=say("It is {size} bytes.", size=3))
    assert str(message) == "a cannot be used: It is 3 bytes."
    assert Message.from_json(message.to_json()) == message
    chinese = {"{path} cannot be used: {problem}": "{path} 无法使用：{problem}", "It is {size} bytes.": "它有 {size} 字节。"}
    assert message.text(chinese.__getitem__) == "a 无法使用：它有 3 字节。"


def test_a_message_without_values_is_literal() -> None:
    assert str(say("[to:{when}]")) == "[to:{when}]"


@pytest.mark.parametrize(("kind", "code"), [(BadInput, 2), (RunFailed, 1), (Stopped, 130)])
def test_errors_carry_sentences_and_exit_codes(kind: type[AthanorError], code: int) -> None:
    error = kind(say("It broke."), say("Mend it."))
    assert (str(error), error.exit_code) == ("It broke. Mend it.", code)


def test_a_bad_run_file_names_every_problem() -> None:
    error = BadRunFile([Problem("a.b", say("no.")), Problem("c", say("neither."), say("Do x."))])
    assert "a.b: no." in str(error) and "c: neither. Do x." in str(error)


def test_a_file_is_replaced_whole_or_not_at_all(awkward: Path) -> None:
    target = awkward / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(OSError, match="full"), files.atomic_path(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise OSError(28, "disk full")
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in awkward.iterdir()] == ["a.txt"]


def test_folders_are_made_and_names_may_be_long(tmp_path: Path) -> None:
    target = tmp_path / "new" / ("字" * 80)
    files.write_json(target, {"猫": 1})
    assert target.read_text(encoding="utf-8") == '{"猫": 1}'


def test_replace_is_patient_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_bytes(b"x")
    refusals = [PermissionError(), PermissionError()]
    real = os.replace

    def held(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        real(source, target)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(os, "replace", held)
    files.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"x"
    monkeypatch.setattr(files, "WINDOWS", False)
    refusals.append(PermissionError())
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "old", tmp_path / "older")


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") > 0
