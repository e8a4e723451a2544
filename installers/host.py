"""Everything outside this program that the set-up touches: processes, network, disk, the console.

Tests give a fake one, so every branch of the set-up runs on any machine and without a network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

INDEX_PATIENCE_S = 4.0  # an index that does not answer within this is treated as out of reach
GIB = 2**30


class Host:
    """The real computer. Its methods never raise for what a program, a network or a disk may refuse."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = dict(os.environ if environ is None else environ)
        self.devices = Path("/sys/bus/pci/devices")
        self.system = {"win32": "Windows", "darwin": "Darwin"}.get(sys.platform, "Linux")

    def tell(self, text: str) -> None:
        """Print a line for the user, at once."""
        print(text, flush=True)

    def ask(self, question: str) -> bool:
        """Ask yes or no; no where nobody can answer (no terminal, CI)."""
        if not sys.stdin or not sys.stdin.isatty():
            return False
        try:
            answer = input(f"{question} [y/N] ")
        except EOFError:
            return False
        return answer.strip().lower() in {"y", "yes", "j", "是", "好"}

    def run(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None) -> int:
        """Run a command with the console's input and output; return its exit code (127: it could not start)."""
        try:
            return subprocess.call([str(part) for part in command], env=dict(environ), cwd=folder)
        except OSError as problem:
            self.tell(f"{command[0]}: {problem}")
            return 127

    def become(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None) -> int:
        """Hand over to a program for good: on POSIX this process turns into it, so signals reach it directly.

        Windows cannot do that: there this process waits, leaves Ctrl+C to the program, and passes its exit code on.
        `folder` is where the program starts; None is the current one.
        """
        if os.name == "nt":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return self.run(command, environ, folder)
        sys.stdout.flush()
        if folder is not None:
            os.chdir(folder)
        os.execve(command[0], list(command), dict(environ))

    def read(self, command: Sequence[str], timeout_s: float = 20.0) -> tuple[int, str]:
        """Run a command without a console; return (exit code, everything it printed); (127, "") if it cannot start."""
        try:
            done = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environ,
                timeout=timeout_s,
                check=False,
            )
        except OSError:
            return 127, ""
        except subprocess.TimeoutExpired:
            return 124, ""
        return done.returncode, done.stdout.decode("utf-8", errors="replace")

    def which(self, program: str) -> str | None:
        """The full path of a program, or None."""
        return shutil.which(program, path=self.environ.get("PATH"))

    def reachable(self, address: str) -> bool:
        """Does a web address answer within a few seconds? Proxies of the environment are used, as pip does."""
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        try:
            with urlopen(Request(address, method="HEAD"), timeout=INDEX_PATIENCE_S):
                return True
        except HTTPError as answer:
            return answer.code < 500 and answer.code != 407
        except (URLError, OSError, ValueError):
            return False

    def free_bytes(self, folder: Path) -> int:
        """Bytes free on the disk of `folder`, which need not exist yet."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def temp_folder(self) -> Path:
        """Where programs started from here unpack things."""
        return Path(tempfile.gettempdir())
