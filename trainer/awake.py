"""Keep the computer awake while a run is at work (the screen may go dark)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

_ES_CONTINUOUS, _ES_SYSTEM_REQUIRED = 0x80000000, 0x00000001


@contextlib.contextmanager
def keep_awake() -> Iterator[None]:
    """The computer does not fall asleep inside the block. Where the system offers no way, nothing happens."""
    if os.name == "nt":
        kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  (mypy on Linux knows no windll)
        kernel.SetThreadExecutionState(_ES_CONTINUOUS | _ES_SYSTEM_REQUIRED)
        try:
            yield
        finally:
            kernel.SetThreadExecutionState(_ES_CONTINUOUS)
        return
    guard = _guard()
    try:
        yield
    finally:
        if guard is not None and guard.stdin is not None:
            with contextlib.suppress(OSError):
                guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(2)


def _guard() -> subprocess.Popen[bytes] | None:
    """A process that holds the system awake until its standard input closes, so it ends with us however we end."""
    command: list[str] = []
    if sys.platform == "darwin":
        command = ["caffeinate", "-i", "cat"]
    elif shutil.which("systemd-inhibit"):
        what = ["--what=idle:sleep", "--mode=block", "--who=Athanor", "--why=A training is running"]
        command = ["systemd-inhibit", *what, "cat"]
    if not command:
        return None
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C is for the run, not for its guard
        )
    except OSError:
        return None
