"""Runs pip as the user has configured it: their mirrors, proxies and caches; what it prints goes to the console."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from installers.host import GIB, Host

TEMP_BYTES = 4 * GIB  # pip unpacks one package at a time; PyTorch with CUDA is the largest

RESUMES = (25, 1)  # the first pip that goes on with a broken download


class Outcome(enum.Enum):
    """How a pip run ended: `NOT_OFFERED` means that no reachable source has such a package."""

    DONE = "done"
    NOT_OFFERED = "not offered"
    BROKEN = "broken"


@dataclass(frozen=True)
class Pip:
    """pip of one environment. `scratch` is a folder for its log and, where the system's is too small, its temp files."""

    host: Host
    python: Path
    scratch: Path

    @property
    def log(self) -> Path:
        return self.scratch / "pip.log"

    def install(self, arguments: Sequence[str], index: str = "") -> Outcome:
        """`pip install` with progress on the console; `index` is an address to search besides the user's own."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        extra = ["--extra-index-url", index] if index else []
        command = [self.python, "-m", "pip", "install", "--log", self.log, *extra, *arguments]
        if self.host.run(command, self.environ()) == 0:
            return Outcome.DONE
        return Outcome.NOT_OFFERED if self.nothing_matched() else Outcome.BROKEN

    def renew(self) -> None:
        """Take a pip that resumes broken downloads, if this one cannot; the old one will do where that fails."""
        code, text = self.host.read([self.python, "-m", "pip", "--version"], timeout_s=60)
        numbers = text.split()[1].split(".")[:2] if code == 0 and len(text.split()) > 1 else []
        if tuple(int(number) for number in numbers if number.isdigit()) < RESUMES:
            self.install(["--upgrade", "pip"])

    def remove(self, package: str) -> None:
        self.host.run([self.python, "-m", "pip", "uninstall", "--yes", package], self.environ())

    def nothing_matched(self) -> bool:
        """Did the last run end because no source offers the package (and not because a download broke)?"""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return "No matching distribution found" in text

    def environ(self) -> Mapping[str, str]:
        """The user's environment, in UTF-8, resuming broken downloads, with room for temporary files."""
        settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RESUME_RETRIES": "20", "PYTHONUTF8": "1"}
        environ = {**settings, **clean(self.host.environ)}
        if self.host.free_bytes(self.host.temp_folder()) < TEMP_BYTES < self.host.free_bytes(self.scratch):
            own = self.scratch / "temp"
            own.mkdir(parents=True, exist_ok=True)
            environ.update(TMPDIR=str(own), TEMP=str(own), TMP=str(own))
        return environ


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would bend another Python's imports."""
    bent = {"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV", "PIP_USER", "PIP_TARGET"}
    return {name: value for name, value in environ.items() if name not in bent}
