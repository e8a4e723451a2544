"""The memory of files: right as long as they don't change, shared between processes, and never in the way."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.data.memo import FileFacts, Known, Memo

OLD = 1_000_000_000


def old_file(path: Path, content: bytes = b"x", second: int = 0) -> FileFacts:
    path.write_bytes(content)
    os.utime(path, (OLD + second, OLD + second))
    return FileFacts.of(path)


def test_what_is_known_adds_up_and_is_lost_when_the_file_changes(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    facts = old_file(tmp_path / "测试 (1) 🐱.png")
    memo.remember([(facts, Known(size=(3, 4)))])
    memo.remember([(facts, Known(sha256="ab", decoded=True))])
    memo.remember([(facts, Known(size=(3, 4)))])
    assert memo.recall([facts]) == {facts.path: Known((3, 4), "ab", True)}
    changed = old_file(facts.path, second=1)
    assert memo.recall([changed]) == {}
    memo.remember([(changed, Known(size=(5, 6)))])
    assert memo.recall([changed]) == {facts.path: Known((5, 6))}
    assert memo.recall([facts]) == {}


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    (tmp_path / "a.png").write_bytes(b"x")
    facts = FileFacts.of(tmp_path / "a.png")
    memo.remember([(facts, Known(size=(3, 4)))])
    memo.remember_weights([facts], "vae", "abc")
    assert memo.recall([facts]) == {} and memo.recall_weights([facts], "vae") is None


def test_weights_are_remembered_by_all_their_files(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    files = [old_file(tmp_path / name) for name in "ab"]
    memo.remember_weights(files, "vae fp32", "abc")
    assert memo.recall_weights(files[::-1], "vae fp32") == "abc"
    assert memo.recall_weights(files, "vae fp16") is None and memo.recall_weights(files[:1], "vae fp32") is None


@pytest.mark.parametrize("content", [b"not a database at all, but long enough" * 60, b"SQLite format 3\0" * 99])
def test_a_damaged_memory_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    memo.path.write_bytes(content)
    facts = old_file(tmp_path / "a.png")
    assert memo.recall([facts]) == {}
    memo.remember([(facts, Known(size=(3, 4)))])
    assert memo.recall([facts]) == {facts.path: Known((3, 4))}


def test_a_memory_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    with sqlite3.connect(memo.path) as database:
        database.execute("CREATE TABLE files (x)")
        database.execute("PRAGMA user_version = 99")
    database.close()
    facts = old_file(tmp_path / "a.png")
    memo.remember([(facts, Known(size=(3, 4)))])
    assert memo.recall([facts]) == {facts.path: Known((3, 4))}


def test_no_memory_at_all_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memo = Memo(tmp_path / "file" / "memo.sqlite")
    facts = old_file(tmp_path / "a.png")
    memo.remember([(facts, Known(size=(3, 4)))])
    memo.remember_weights([facts], "vae", "abc")
    assert memo.recall([facts]) == {} and memo.recall_weights([facts], "vae") is None


def test_several_threads_and_processes_remember_at_once(tmp_path: Path) -> None:
    path = tmp_path / "memo.sqlite"
    script = (
        "import sys; from pathlib import Path; from trainer.data.memo import *\n"
        "memo = Memo(Path(sys.argv[1]))\n"
        "for n in range(10): memo.remember([(FileFacts(Path(f'{sys.argv[2]}-{n}'), 1, 1), Known(size=(n, 1)))])\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "ab"]
    memo = Memo(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: memo.remember([(FileFacts(Path(f"t-{n}"), 1, 1), Known(size=(n, 1)))]), range(10)))
    assert [child.wait(60) for child in children] == [0, 0]
    files = [FileFacts(Path(f"{name}-{n}"), 1, 1) for name in "abt" for n in range(10)]
    assert len(memo.recall(files)) == 30


def test_ten_thousand_files_are_recalled_at_once(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.sqlite")
    files = [FileFacts(tmp_path / f"{n}.png", n, 1) for n in range(10_000)]
    memo.remember((facts, Known(size=(3, 4))) for facts in files)
    began = time.process_time()
    assert len(memo.recall(files)) == 10_000
    assert time.process_time() - began < 2.0
