"""One set-up at a time: a lock that the system lets go of by itself when its holder dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold_lock(path: Path, on_wait: Callable[[], None] = lambda: None, pause_s: float = 0.5) -> Iterator[None]:
    """Hold the lock file; where another process holds it, call `on_wait` once and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        told = False
        while not try_lock(handle.fileno()):
            if not told:
                on_wait()
                told = True
            time.sleep(pause_s)
        yield


def try_lock(descriptor: int) -> bool:
    """Take the lock if it is free; it is freed when the file is closed. Windows and POSIX behind one name."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
