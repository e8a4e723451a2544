"""The system's lock on an open file, which goes with its process however that ends."""

from __future__ import annotations

import os
from typing import IO, Any


def try_lock(handle: IO[bytes]) -> bool:
    """Take the lock, until `unlock` or the file is closed; False if another process holds it.

    Raises:
        OSError: if the file system has no locks (some network drives).
    """
    if os.name == "nt":
        return _windows_locking(handle, "LK_NBLCK")
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: IO[bytes]) -> None:
    """Let go of it before the file is closed: Windows alone needs that."""
    if os.name == "nt":
        _windows_locking(handle, "LK_UNLCK")


def _windows_locking(handle: IO[bytes], mode: str) -> bool:
    import importlib

    msvcrt: Any = importlib.import_module("msvcrt")
    handle.seek(0)
    try:
        msvcrt.locking(handle.fileno(), getattr(msvcrt, mode), 1)
    except OSError:
        return False
    return True
