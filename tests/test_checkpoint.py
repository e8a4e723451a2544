"""Snapshots that can not be read: damaged ones give way to those before, those of another version are left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import FORMAT, clear_leftovers, read_snapshot
from trainer.errors import RunFailed
from trainer.ipc.events import Warning_


def snapshot(folder: Path, position: int, **changes: object) -> Path:
    path = folder / "state" / f"snapshot-{position:08d}.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save({"format": FORMAT, "position": position, "trained": torch.ones(64)} | changes, path)
    return path


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: bytes(len(whole)), id="zeros"),
        pytest.param(lambda whole: b"\x80\x02]q\x00(", id="half a pickle"),
        pytest.param(lambda whole: b"R" + whole[1:], id="no archive"),
    ],
)
def test_a_damaged_snapshot_is_named_and_the_one_before_is_read(damage: object, tmp_path: Path) -> None:
    snapshot(tmp_path, 10)
    newest = snapshot(tmp_path, 20)
    newest.write_bytes(damage(newest.read_bytes()))  # type: ignore[operator]
    warned: list[Warning_] = []
    state = read_snapshot(tmp_path, warned.append)
    assert state is not None and state["position"] == 10
    assert newest.name in str(warned[0].what) and "before it is used" in str(warned[0].todo)
    assert "\n" not in str(warned[0].what)
    assert not newest.exists()


def test_where_none_is_left_that_is_said(tmp_path: Path) -> None:
    snapshot(tmp_path, 10).write_bytes(b"nothing")
    warned: list[Warning_] = []
    assert read_snapshot(tmp_path, warned.append) is None
    assert "begins anew" in str(warned[0].todo)


def test_a_snapshot_of_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    snapshot(tmp_path, 10)
    newer = snapshot(tmp_path, 20, format=FORMAT + 1)
    with pytest.raises(RunFailed, match="another version"):
        read_snapshot(tmp_path, lambda warning: None)
    assert newer.exists()


def test_what_a_killed_worker_left_half_written_goes(tmp_path: Path) -> None:
    names = ("status.json", "state/snapshot-1.pt", "checkpoints/a.safetensors", "samples/1.png")
    kept = [tmp_path / name for name in ("status.json", f".status.json.{os.getpid()}-00ff00ff.tmp", "other/.x.1-0.tmp")]
    left = [(tmp_path / name).with_name(f".{Path(name).name}.{os.getpid() + 1}-00ff00ff.tmp") for name in names]
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    clear_leftovers(tmp_path)
    assert [path.exists() for path in kept] == [True, True, True], "this process may be writing its status just now"
    assert not any(path.exists() for path in left)
