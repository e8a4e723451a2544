"""A folder of tensors named by keys, shared by all runs: written whole or not at all, checked when read, kept small.

Each entry is one .safetensors file, `ab/abcdef….safetensors`, with a checksum in its header. Reading an entry marks it
as used. A run holds a lease on the folder while it lives; what was used since the oldest living lease began is never
thrown away, the rest goes by last use when the folder outgrows its limit.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainer.files import free_bytes
from trainer.messages import Message, say

SUFFIX = ".safetensors"
SPARE_BYTES = 512 * 1024 * 1024  # left free on the disk for the run's own files
_FOREIGN_LEASE_S = 7 * 24 * 3600.0  # a lease of another machine, whose processes can't be seen
_STALE_TEMPORARY_S = 3600.0
Warn = Callable[[Message], None]
Tensors = dict[str, Tensor]


class Damaged(Exception):
    """An entry that is not what was written."""


class Store:
    """Entries by key, on disk under `folder` or (None) in memory only. Safe with several processes and threads.

    Where the disk refuses (full, not writable), entries stay in this process's memory, with one warning.
    """

    def __init__(self, folder: Path | None, *, limit_bytes: int = 0, warn: Warn | None = None) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._warn: Warn = warn if warn is not None else lambda message: None
        self._memory: dict[str, Tensors] = {}
        self._touched: set[str] = set()
        self._disk_refused = False
        self._lease = _Lease(folder) if folder is not None else None

    def close(self) -> None:
        """End the lease and bring the folder within its limit: what this run used may now be thrown away."""
        if self._lease:
            self._lease.end()
            self.shrink()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def has(self, key: str) -> bool:
        """Whether the entry is there and whole. A damaged one is removed with a warning, so that it is made again."""
        try:
            return self.read(key) is not None
        except Damaged as damage:
            self._warn(say("A damaged entry of the cache is made again ({detail}).", detail=str(damage)))
            with suppress(OSError):
                self.path(key).unlink()
            return False

    def read(self, key: str) -> Tensors | None:
        """The entry's tensors, None if there is none. Raises Damaged."""
        if key in self._memory:
            return self._memory[key]
        if self.folder is None:
            return None
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"{path.name}: {error.strerror}") from error
        tensors = _decode(path.name, data)
        if key not in self._touched:
            self._touched.add(key)
            with suppress(OSError):
                os.utime(path)
        return tensors

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry."""
        kept = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
        if self.folder is None or self._disk_refused:
            self._memory[key] = kept
            return
        try:
            _write(self.path(key), _encode(kept))
        except OSError as error:
            self._memory[key] = kept
            self._refuse_disk(say("The cache can't be written ({detail}).", detail=error.strerror or str(error)))

    def reserve(self, num_bytes: int) -> None:
        """Say how much will be written: where the disk has no room for it, it stays in memory, with a warning."""
        if self.folder is not None and free_bytes(self.folder) < num_bytes + SPARE_BYTES:
            self._refuse_disk(say("The disk of the cache is nearly full."))

    def _refuse_disk(self, why: Message) -> None:
        if not self._disk_refused:
            self._warn(say("{why} Encoded pictures of this run are kept in memory instead.", why=str(why)))
        self._disk_refused = True

    def shrink(self) -> int:
        """Throw away what was unused longest until the folder is within its limit; returns the bytes freed."""
        if self.folder is None:
            return 0
        entries = sorted(_entries(self.folder), key=lambda entry: entry.used)
        over = sum(entry.num_bytes for entry in entries) - self.limit_bytes
        protected = min(_living_leases(self.folder), default=float("inf"))
        freed = 0
        for entry in entries:
            if freed >= over or entry.used >= protected:
                break
            with suppress(OSError):
                entry.path.unlink()
                freed += entry.num_bytes
        if over - freed > 0:
            gb = (self.limit_bytes + over - freed) / 1e9
            self._warn(say("The cache holds {size} GB, more than its limit, as running trainings need them.",
                           size=f"{gb:.1f}"))  # fmt: skip
        return freed


@dataclass(frozen=True)
class _Entry:
    path: Path
    num_bytes: int
    used: float


def _entries(folder: Path) -> Iterator[_Entry]:
    """Every entry below `folder`; forgotten temporary files are removed on the way."""
    for shard in _scan(folder):
        if len(shard.name) != 2 or not shard.is_dir():
            continue
        for file in _scan(Path(shard.path)):
            with suppress(OSError):
                status = file.stat()
                if file.name.endswith(SUFFIX):
                    yield _Entry(Path(file.path), status.st_size, status.st_mtime)
                elif file.name.endswith(".tmp") and time.time() - status.st_mtime > _STALE_TEMPORARY_S:
                    Path(file.path).unlink()


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _encode(tensors: Mapping[str, Tensor]) -> bytes:
    """safetensors bytes with a checksum of the tensors' bytes in the header."""
    ordered = dict(sorted(tensors.items()))
    return safetensors.torch.save(ordered, metadata={"crc32": str(_checksum(ordered))})


def _decode(name: str, data: bytes) -> Tensors:
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        stated = header.get("__metadata__", {}).get("crc32")
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(f"{name}: {error}") from error
    if stated != str(_checksum(dict(sorted(tensors.items())))):
        raise Damaged(f"{name}: wrong checksum")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name, tensor in tensors.items():
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _write(path: Path, data: bytes) -> None:
    """Beside, then renamed. Not synced: after a power cut the checksum tells, and the entry is made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:16]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        try:
            os.replace(temporary, path)
        except PermissionError:
            if os.name != "nt" or not path.exists():
                raise  # on Windows a reader holds the same entry, written by another run: as good as ours
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


class _Lease:
    """A file that says since when a living process uses the folder, by the folder's own clock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "leases" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        process = psutil.Process()
        text = json.dumps({"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()})
        with suppress(OSError):  # a folder that can't be written is only read
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(text, encoding="utf-8")

    def end(self) -> None:
        with suppress(OSError):
            self._path.unlink()


def _living_leases(folder: Path) -> Iterator[float]:
    """When each living lease began; those of dead processes are removed."""
    for file in _scan(folder / "leases"):
        with suppress(OSError):
            began = file.stat().st_mtime
            if _is_alive(Path(file.path), began):
                yield began
            else:
                Path(file.path).unlink()


def _is_alive(lease: Path, began: float) -> bool:
    try:
        holder = json.loads(lease.read_text(encoding="utf-8"))
        if holder["host"] != socket.gethostname():
            return time.time() - began < _FOREIGN_LEASE_S
        return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) < 2.0
    except psutil.AccessDenied:
        return True
    except (ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return time.time() - began < 10.0  # half written, or its process is gone
