"""Start a process that outlives its starter: closing or killing the window, or its whole tree, does not end a run.

The process is started by a relay that ends at once, so that it is nobody's child; it has its own session (Windows: its own
group, no console, outside the window's job), and everything that it prints goes to a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.paths import ROOT

_RELAY = """
import os, subprocess, sys
log, command = sys.argv[1], sys.argv[2:]
options = {"start_new_session": True} if os.name != "nt" else {"creationflags": 0x00000200 | 0x08000000 | 0x01000000}
with open(log, "ab") as output:
    basic = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    try:
        started = subprocess.Popen(command, **basic, **options)
    except OSError:
        if os.name != "nt":
            raise
        options["creationflags"] &= ~0x01000000
        started = subprocess.Popen(command, **basic, **options)
print(started.pid)
started.returncode = 0
"""
# Windows flags: CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_BREAKAWAY_FROM_JOB; a job that forbids to break away
# refuses the last one, and then the process stays in it. `returncode` is set because nobody waits for the process.


def start_detached(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, patience_s: float = 30.0
) -> int:
    """Start `python -m …` in the project's root and return its pid. Takes about 50 ms: not for the window's thread.

    Args:
        arguments: what follows `python`, such as ("-m", "trainer", "resume", folder).
        log: file that everything printed is appended to.
        environment: replaces the starter's.
        patience_s: how long the relay may take.

    Raises:
        OSError: if the process can not be started.
    """
    relay = [sys.executable, "-I", "-S", "-c", _RELAY, str(log), sys.executable, *arguments]
    try:
        done = subprocess.run(
            relay,
            cwd=ROOT,
            env=dict(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience_s,
            check=True,
            creationflags=0x08000000 if os.name == "nt" else 0,
        )
        return int(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", b"") or b""
        reason = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise OSError(f"the worker can not be started: {reason or error}") from error
