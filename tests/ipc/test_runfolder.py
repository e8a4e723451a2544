"""Run folders: names, status, who is alive, and that only one works in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from trainer.errors import BadInput
from trainer.ipc import runfolder
from trainer.ipc.runfolder import RunFolder, Status, create, find_runs, is_alive, mine, open_folder, safe_name
from trainer.paths import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from trainer.ipc.runfolder import RunFolder, mine, Status
folder = RunFolder(Path(sys.argv[1]))
with folder.locked():
    folder.write_status(mine(Status(state="running")))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_everything_and_the_next_one_of_the_same_second_another_name(awkward: Path) -> None:
    first, second = create(awkward, "my/lora", now=1e9), create(awkward, "my/lora", now=1e9)
    assert first.path != second.path and first.path.name.startswith("my_lora-")
    assert all(part.is_dir() for part in (first.samples, first.checkpoints, first.state))
    assert first.read_status().state == "starting" and first.read_status().name == "my/lora"


@pytest.mark.parametrize("name", ['a<b>c:"d', "..", "", "con.", "猫 🐱", "x" * 300])
def test_any_name_makes_a_folder(tmp_path: Path, name: str) -> None:
    assert create(tmp_path, name).path.parent == tmp_path.resolve()
    assert not set('<>:"/\\|?*') & set(safe_name(name))


def test_a_place_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(BadInput, match=r"No folder for the run can be made in .*file"):
        create(tmp_path / "file", "a")


def test_what_is_no_run_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no folder"):
        open_folder(tmp_path / "none")
    with pytest.raises(BadInput, match=r"no run\.toml"):
        open_folder(tmp_path)


def test_runs_are_found_newest_first_and_other_folders_are_not(tmp_path: Path) -> None:
    folders = [create(tmp_path, "a", now=1e9 + day) for day in (0, 86400, 172800)]
    for folder in folders:
        folder.run_file.write_text("", encoding="utf-8")
    (tmp_path / "other").mkdir()
    assert find_runs(tmp_path) == folders[::-1]
    assert find_runs(tmp_path / "none") == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"state": "running", "newer": 1}', '{"state": "running", "pid": "x", "created": null, "host": 1}'],
)
def test_a_status_that_is_torn_or_newer_is_no_harm(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.status.write_text(text, encoding="utf-8")
    assert folder.read_status().pid == 0
    assert not folder.is_alive()
    folder.run_file.write_text("", encoding="utf-8")
    assert find_runs(tmp_path) == [folder]


def test_alive_is_pid_and_start_time_never_a_flag() -> None:
    me = mine(Status(state="running"))
    assert is_alive(me)
    assert not is_alive(replace(me, started=me.started - 100))
    assert not is_alive(replace(me, state="finished"))
    assert not is_alive(replace(me, pid=2**22 + 7))


def test_a_run_on_another_computer_lives_by_its_heartbeat() -> None:
    far = replace(mine(Status(state="running")), host="elsewhere", pid=1)
    assert is_alive(far)
    assert not is_alive(replace(far, heartbeat=time.time() - 2 * runfolder.FOREIGN_SILENCE_S))


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    status = Status(
        state="running", pid=child.pid, started=psutil.Process(child.pid).create_time(), host=mine(Status()).host
    )
    assert is_alive(status)
    os.kill(child.pid, 9)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not is_alive(status)
    child.wait()


def test_one_works_in_a_folder_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    folder = create(tmp_path, "a")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        assert folder.is_alive()
        with pytest.raises(BadInput, match="still at work"), folder.locked():
            pass
        folder.status.unlink()  # even if the status is lost the lock holds
        with pytest.raises(BadInput, match="still at work"), folder.locked():
            pass
        child.kill()
    with folder.locked():
        pass
