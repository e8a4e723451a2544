"""The shared folder of tensors: whole entries or none, damaged ones made again, the longest unused thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from trainer.data import store as store_module
from trainer.data.store import Damaged, Store
from trainer.messages import Message

KEY = "ab" * 32
GB = 10**9


def entry(value: float = 1.0, size: int = 8) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((4, size, size), value), "std": torch.full((4, size, size), 0.5, dtype=torch.bfloat16)}


def key(number: int) -> str:
    return f"{number:02x}" * 32


class Said(list[str]):
    """Collects warnings."""

    def __call__(self, message: Message) -> None:
        self.append(str(message))


def test_what_is_written_is_read_by_anybody(awkward: Path) -> None:
    with Store(awkward, limit_bytes=GB) as one, Store(awkward, limit_bytes=GB) as other:
        assert other.read(KEY) is None and not other.has(KEY)
        one.write(KEY, entry())
        read = other.read(KEY)
        assert read is not None and other.has(KEY)
        assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in entry().items())
        assert one.path(KEY) == awkward / "ab" / f"{KEY}.safetensors" and one.path(KEY).is_file()
    assert not list((awkward / "leases").iterdir())


def test_in_memory_nothing_is_written(tmp_path: Path, _user_folder: Path) -> None:
    with Store(None) as store:
        store.write(KEY, entry())
        assert store.has(KEY) and store.shrink() == 0
        store.reserve(10**18)
    assert not list(tmp_path.iterdir()) and not list(_user_folder.iterdir())


@pytest.mark.parametrize("how", ["cut", "flipped bit", "empty", "other", "no checksum"])
def test_a_damaged_entry_is_found_out_said_and_removed(tmp_path: Path, how: str) -> None:
    said = Said()
    with Store(tmp_path, limit_bytes=GB, warn=said) as store:
        store.write(KEY, entry())
        path = store.path(KEY)
        data = bytearray(path.read_bytes())
        if how == "flipped bit":
            data[-5] ^= 1
        elif how == "no checksum":
            data = bytearray(bytes(data).replace(b"crc32", b"crc33"))
        else:
            data = {"cut": data[:-7], "empty": bytearray(), "other": bytearray(b"something else entirely")}[how]
        path.write_bytes(data)
        with pytest.raises(Damaged):
            store.read(KEY)
        assert not store.has(KEY) and not path.exists()
        assert len(said) == 1 and "is made again" in said[0]


def test_a_full_disk_is_said_once_and_memory_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with Store(tmp_path, limit_bytes=GB, warn=said) as store:
        monkeypatch.setattr(store_module.os, "replace", full)
        for number in range(3):
            store.write(key(number), entry(number))
        monkeypatch.undo()
        read = store.read(key(2))
        assert read is not None and read["mean"][0, 0, 0] == 2
    assert len(said) == 1 and "No space left on device" in said[0] and "in memory instead" in said[0]
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.safetensors"))


def test_too_little_room_for_what_comes_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    monkeypatch.setattr(store_module, "free_bytes", lambda folder: 600 * 1024 * 1024)
    with Store(tmp_path, limit_bytes=GB, warn=said) as store:
        store.reserve(10 * 1024 * 1024)
        assert not said
        store.reserve(200 * 1024 * 1024)
        store.write(KEY, entry())
        assert store.has(KEY)
    assert len(said) == 1 and not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = Said()
    with Store(tmp_path / "file" / "cache", limit_bytes=GB, warn=said) as store:
        store.write(KEY, entry())
        assert store.has(KEY) and len(said) == 1


def fill(folder: Path, count: int) -> None:
    """Entries 0…count-1 of a run that is over, used one second after the other long ago."""
    with Store(folder, limit_bytes=GB) as store:
        for number in range(count):
            store.write(key(number), entry(number))
            os.utime(store.path(key(number)), (1e9 + number, 1e9 + number))


def present(folder: Path) -> list[int]:
    return sorted(int(path.stem[:2], 16) for path in folder.rglob("*.safetensors"))


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    size = Store(tmp_path).path(key(0)).stat().st_size
    with Store(tmp_path, limit_bytes=3 * size) as store:
        store.read(key(0))  # used now
        store.shrink()
        assert present(tmp_path) == [0, 4, 5]


def test_what_a_living_run_uses_stays_whatever_the_limit(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    said = Said()
    with Store(tmp_path, limit_bytes=GB) as living:
        living.has(key(1))
        living.write(key(9), entry())
        with Store(tmp_path, limit_bytes=1, warn=said) as other:
            other.shrink()
        assert present(tmp_path) == [1, 9]
        assert any("more than its limit" in text for text in said)
    with Store(tmp_path, limit_bytes=1):
        pass
    assert present(tmp_path) == []


def test_the_lease_of_a_dead_process_counts_no_more(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from trainer.data.store import Store\n"
        "store = Store(Path(sys.argv[1]), limit_bytes=1); print(len(os.listdir(Path(sys.argv[1]) / 'leases')), flush=True)\n"
        "os._exit(9)\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.returncode == 9 and child.stdout == "1\n"
    lease = next((tmp_path / "leases").iterdir())
    os.utime(lease, (1e9 - 1, 1e9 - 1))  # it began before everything
    fill(tmp_path, 3)
    with Store(tmp_path, limit_bytes=1) as store:
        store.shrink()
    assert present(tmp_path) == [] and not lease.exists()


def test_a_lease_whose_number_another_process_has_now_counts_no_more(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    for name, host, started in (("dead", store_module.socket.gethostname(), psutil.Process().create_time() - 5000),
                                ("old", "elsewhere", 0.0)):  # fmt: skip
        lease = tmp_path / "leases" / f"{name}.json"
        lease.parent.mkdir(exist_ok=True)
        lease.write_text(json.dumps({"host": host, "pid": os.getpid(), "started": started}), encoding="utf-8")
        os.utime(lease, (1e9 - 5, 1e9 - 5))
    with Store(tmp_path, limit_bytes=1) as store:
        store.shrink()
    assert present(tmp_path) == []


def test_another_machines_fresh_lease_is_respected(tmp_path: Path) -> None:
    with Store(tmp_path, limit_bytes=GB) as store:
        lease = tmp_path / "leases" / "theirs.json"
        lease.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0}), encoding="utf-8")
        store.write(KEY, entry())
    with Store(tmp_path, limit_bytes=1) as store:
        store.shrink()
        assert present(tmp_path) == [0xAB]


def test_forgotten_temporary_files_are_swept(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    shard = tmp_path / "00"
    (shard / ".old.tmp").touch()
    (shard / ".new.tmp").touch()
    os.utime(shard / ".old.tmp", (1e9, 1e9))
    with Store(tmp_path, limit_bytes=GB) as store:
        store.shrink()
    assert [path.name for path in shard.glob("*.tmp")] == [".new.tmp"]


@pytest.mark.slow
def test_processes_that_write_read_and_throw_away_at_once(tmp_path: Path) -> None:
    """Four processes on eight keys with a limit that is always broken: nobody ever reads a wrong or torn entry."""
    script = """
import random, sys, torch
from pathlib import Path
from trainer.data.store import Damaged, Store
random.seed(int(sys.argv[2]))
with Store(Path(sys.argv[1]), limit_bytes=3000) as store:
    for _ in range(300):
        number = random.randrange(8)
        key = f"{number:02x}" * 32
        tensors = store.read(key)
        if tensors is None:
            store.write(key, {"mean": torch.full((4, 16, 16), float(number))})
        else:
            assert (tensors["mean"] == number).all()
        if random.random() < 0.1:
            store.shrink()
"""
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)], stderr=subprocess.PIPE, text=True)
                for n in range(4)]  # fmt: skip
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, errors
    assert not list(tmp_path.rglob("*.tmp"))
