"""Tests of captioners.common.writing: no caption is lost, whatever the mode."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from captioners.catalog import WriteSettings
from captioners.common.writing import CaptionWriter, merged
from trainer import files
from trainer.errors import RunFailed

NOON = datetime(2026, 11, 21, 12, 0, 0)
BACKUP = Path("captions_backup") / "2026-11-21_12-00-00"


def writer(**settings: object) -> CaptionWriter:
    return CaptionWriter(WriteSettings(**settings), now=lambda: NOON)


def picture(folder: Path, name: str = "a.png", caption: bytes | None = None, ending: str = ".txt") -> Path:
    path = folder / name
    path.write_bytes(b"a picture")
    if caption is not None:
        path.with_suffix(ending).write_bytes(caption)
    return path


@pytest.mark.parametrize(
    ("old", "mode", "expected"),
    [
        ("cat, dog", "append", "cat, dog, red hair"),
        ("cat, dog,", "append", "cat, dog, red hair"),
        ("cat, dog", "prepend", "red hair, cat, dog"),
        ("cat, dog", "overwrite", "dog, red hair"),
        ("Red_Hair, DOG\n", "append", "Red_Hair, DOG\n"),
        ("\n  \n", "append", "dog, red hair"),
        ("\ncat\nsecond line\n", "append", "\ncat, dog, red hair\nsecond line\n"),
        ("cat\r\nsecond\r\n", "prepend", "dog, red hair, cat\r\nsecond\r\n"),
        (r":-(, o_o, \(cat\)", "append", r":-(, o_o, \(cat\), dog, red hair"),
    ],
)
def test_merged(old: str, mode: str, expected: str) -> None:
    tags = ["dog", "red hair"]
    text = merged(old, tags, mode)
    assert text == expected
    assert merged(text, tags, mode) == text, "a second run changes nothing"


def test_a_sentence_is_not_added_twice() -> None:
    once = merged("rufus", ["a cat, sitting on a mat"], "append")
    assert once == "rufus, a cat, sitting on a mat"
    assert merged(once, ["a cat, sitting on a mat"], "append") == once


@pytest.mark.parametrize("ending", [".txt", ".caption", ".TXT"])
@pytest.mark.parametrize("content", [b"my words", b""])
def test_a_caption_that_exists_is_left_alone(awkward: Path, ending: str, content: bytes) -> None:
    owner = picture(awkward, caption=content, ending=ending)
    plan = writer().plan([owner])
    assert (plan.todo, plan.kept) == ((), (owner,))


def test_a_missing_caption_is_written(awkward: Path) -> None:
    owner = picture(awkward, "猫 🐱.b.png")
    work = writer()
    assert work.plan([owner]).todo == (owner,)
    written = work.write(owner, ["长发", "^_^"])
    assert written.file == awkward / "猫 🐱.b.txt"
    assert written.file.read_bytes() == "长发, ^_^".encode()
    assert work.backups == ()


def test_a_caption_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    owner = picture(tmp_path)
    work = writer()
    work.plan([owner])
    owner.with_suffix(".txt").write_text("by hand", encoding="utf-8")
    assert not work.write(owner, ["cat"]).changed
    assert owner.with_suffix(".txt").read_text(encoding="utf-8") == "by hand"


@pytest.mark.parametrize(
    ("mode", "expected"), [("append", "我的猫, cat"), ("prepend", "cat, 我的猫"), ("overwrite", "cat")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_changes_are_backed_up_byte_by_byte(awkward: Path, mode: str, expected: str, encoding: str) -> None:
    before = "我的猫".encode(encoding)
    owners = [picture(awkward, name, before) for name in ("a.png", "b.png")]
    for number in range(8):  # a folder's captions together tell their encoding
        owners.append(picture(awkward, f"{number}.png", "一只红色的猫坐在房间里，看着窗外的树".encode(encoding)))
    work = writer(mode=mode)
    work.plan(owners)
    assert work.write(owners[0], ["cat"]).changed
    assert owners[0].with_suffix(".txt").read_bytes() == expected.encode()
    assert (awkward / BACKUP / "a.txt").read_bytes() == before
    assert owners[1].with_suffix(".txt").read_bytes() == before
    assert work.backups == (awkward / BACKUP,)


def test_nothing_new_leaves_file_and_encoding_as_they_are(tmp_path: Path) -> None:
    owner = picture(tmp_path, caption=b"\xef\xbb\xbfcat, dog\r\n")
    work = writer(mode="append")
    work.plan([owner])
    assert not work.write(owner, ["dog"]).changed
    assert owner.with_suffix(".txt").read_bytes() == b"\xef\xbb\xbfcat, dog\r\n"
    assert not (tmp_path / "captions_backup").exists()


def test_the_caption_ending_that_is_there_is_used(tmp_path: Path) -> None:
    owner = picture(tmp_path, caption=b"cat", ending=".caption")
    work = writer(mode="append")
    work.plan([owner])
    assert work.write(owner, ["dog"]).file == owner.with_suffix(".caption")
    assert not owner.with_suffix(".txt").exists()


def test_two_runs_in_a_second_have_two_backups(tmp_path: Path) -> None:
    owner = picture(tmp_path, caption=b"one")
    for tag, backup in (("two", BACKUP), ("three", BACKUP.with_name(BACKUP.name + "_2"))):
        work = writer(mode="overwrite")
        work.plan([owner])
        work.write(owner, [tag])
        assert work.backups == (tmp_path / backup,)
    assert (tmp_path / BACKUP / "a.txt").read_text(encoding="utf-8") == "one"
    assert (tmp_path / f"{BACKUP}_2" / "a.txt").read_text(encoding="utf-8") == "two"


def test_one_caption_of_two_pictures_is_written_for_the_first(tmp_path: Path) -> None:
    first, second = picture(tmp_path, "a.jpg"), picture(tmp_path, "a.png")
    plan = writer(mode="overwrite").plan([first, second])
    assert plan.todo == (first,)
    assert "a.jpg" in str(plan.skipped[second])


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    owner = picture(tmp_path, caption=b"cat")
    work = writer(mode="append", dry_run=True)
    work.plan([owner])
    written = work.write(owner, ["dog"])
    assert (written.text, written.changed) == ("cat, dog", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.txt"]
    assert owner.with_suffix(".txt").read_bytes() == b"cat"


def test_a_file_too_large_for_a_caption_is_left_alone(tmp_path: Path) -> None:
    owner = picture(tmp_path, caption=b"x" * 70_000)
    plan = writer(mode="append").plan([owner])
    assert plan.todo == () and "a.txt" in str(plan.skipped[owner])


@pytest.mark.parametrize("which", ["backup", "caption"])
def test_a_disk_that_is_full_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    owner = picture(tmp_path, caption=b"cat")
    work = writer(mode="append")
    work.plan([owner])
    real, calls = os.replace, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == {"backup": 1, "caption": 2}[which]:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunFailed, match="No space left"):
        work.write(owner, ["dog"])
    assert owner.with_suffix(".txt").read_bytes() == b"cat"
    assert not list(tmp_path.rglob("*.tmp"))
