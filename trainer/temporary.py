"""Temporary folders that nobody leaves behind: what a killed process leaves, the next one removes.

Each holds a file that its process keeps locked; a folder whose lock is free belongs to nobody.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from trainer.locks import try_lock

PREFIX = "athanor-"
LOCK = "lock"
SETTLED_S = 600.0  # a younger one may not be locked yet


class TemporaryFolder:
    """A folder for this process and user alone, with a path short enough for a socket.

    It goes with `close`, with the object or with the process; if that is killed, with the next process that makes one.
    """

    def __init__(self) -> None:
        """Raises OSError: if there is no place for one."""
        _first_of_process()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700
        lock = (self.path / LOCK).open("wb")
        with suppress(OSError):
            try_lock(lock)
        self.close = weakref.finalize(self, _remove, self.path, lock)


def _remove(path: Path, lock: IO[bytes]) -> None:
    lock.close()  # Windows removes no open file
    shutil.rmtree(path, ignore_errors=True)


@cache
def _first_of_process() -> None:
    with suppress(OSError):
        remove_orphans(Path(tempfile.gettempdir()), time.time() - SETTLED_S)


def remove_orphans(parent: Path, before: float) -> None:
    """Remove this user's temporary folders in `parent` that were last changed `before` and whose process has gone.

    Raises:
        OSError: if `parent` can not be read.
    """
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if _is_old_and_mine(path.lstat(), before) and _is_orphan(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_old_and_mine(about: os.stat_result, before: float) -> bool:
    owner = os.getuid() if hasattr(os, "getuid") else about.st_uid
    return stat.S_ISDIR(about.st_mode) and about.st_uid == owner and about.st_mtime < before


def _is_orphan(path: Path) -> bool:
    """Whether nobody holds the lock of a folder. Raises OSError if it has none, or none can be had there."""
    with (path / LOCK).open("rb+") as handle:
        return try_lock(handle)
