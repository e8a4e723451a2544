"""Temporary folders go with their process, and what a killed one leaves goes with the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainer.paths import ROOT
from trainer.temporary import LOCK, TemporaryFolder, remove_orphans

HOLDER = "from trainer.temporary import TemporaryFolder; made = TemporaryFolder(); print(made.path, flush=True); input()"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, by this process and its children."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def holder() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a temporary folder, until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def aged(path: Path) -> Path:
    """The same, untouched for a day."""
    day_ago = time.time() - 86_400
    os.utime(path, (day_ago, day_ago))
    return path


def test_it_goes_when_it_is_closed_forgotten_or_its_process_ends(place: Path) -> None:
    made = TemporaryFolder()
    (made.path / "inside").mkdir()
    assert made.path.parent == place
    made.close()
    made.close()
    assert not made.path.exists()
    path = TemporaryFolder().path
    assert not path.exists()
    with holder() as (process, path):
        assert path.is_dir()
        process.communicate("\n")
    assert not path.exists()


def test_the_next_process_removes_what_a_killed_one_left(place: Path) -> None:
    with holder() as (process, orphan):
        process.kill()
    assert (orphan / LOCK).exists()
    with holder() as (living, held):
        aged(orphan), aged(held)
        with holder() as (other, _):
            other.communicate("\n")
        assert not orphan.exists()
        assert held.is_dir(), "a living process lost its folder"
        living.communicate("\n")


def test_what_is_young_or_not_ours_stays(place: Path) -> None:
    kept = [place / f"{name}" for name in ("athanor-file", "athanor-without-lock", "athanor-link", "another-program")]
    kept[0].touch()
    kept[1].mkdir()
    target = place / "target"
    for folder in (target, kept[3], place / "athanor-young"):
        folder.mkdir()
        (folder / LOCK).touch()
    try:
        kept[2].symlink_to(target, target_is_directory=True)
    except OSError:  # Windows wants a right for that
        kept[2].mkdir()
    for path in (*kept, target):
        aged(path)
    remove_orphans(place, time.time() - 60)
    assert all(path.exists() for path in (*kept, target, target / LOCK, place / "athanor-young"))
    aged(place / "athanor-young")
    remove_orphans(place, time.time() - 60)
    assert not (place / "athanor-young").exists()
