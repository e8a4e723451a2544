"""Files are written beside their target and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; when the block ends well it is synced and takes the target's place.

    If the block raises, the temporary file is removed and the target is untouched. The folder is made if missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a new, empty folder beside `target`; when the block ends well it takes the target's place, older content and all.

    If the block raises, the new folder is removed and the target is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary, older = (target.with_name(f".{target.name[:40]}.{mark}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            replace(target, older)
        try:
            replace(temporary, target)
        except OSError:
            if older.exists():
                replace(older, target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def replace(source: Path, target: Path, patience_s: float = 2.0) -> None:
    """`os.replace`, tried again for `patience_s` where Windows refuses because a reader holds the target."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            os.replace(source, target)
            break
        except PermissionError:
            if not WINDOWS or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; Windows has no such call and needs none."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse to sync a folder; the file itself is synced
    finally:
        os.close(handle)


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write `text` atomically as UTF-8 with \\n line ends."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path, data: Any, indent: int | None = None) -> None:
    """Write `data` atomically as UTF-8 JSON, Chinese left readable."""
    write_text(target, json.dumps(data, ensure_ascii=False, indent=indent))


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of `folder`, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
