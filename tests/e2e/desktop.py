"""A real desktop for tests: an X server without a screen, a window manager, and hands that type (xdotool)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from trainer.paths import ROOT

TOOLS = ("Xvfb", "openbox", "xdotool")


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait, or fail saying for what."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.2)


class Desktop:
    """The X server and its window manager; `close` ends both."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "desktop.log").open("wb")
        read_end, write_end = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1280x860x24", "-nolisten", "tcp"],
            pass_fds=(write_end,), stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.close(write_end)
        with os.fdopen(read_end, encoding="ascii") as stream:
            self.display = f":{stream.readline().strip()}"
        self.environment = os.environ | {"DISPLAY": self.display, "QT_QPA_PLATFORM": "xcb", "LC_ALL": "C.UTF-8"}
        self._manager = subprocess.Popen(["openbox"], env=self.environment, stdout=self._log, stderr=self._log)

    def close(self) -> None:
        for process in (self._manager, self._server):
            process.terminate()
            process.wait(10)
        self._log.close()

    def do(self, *arguments: str) -> str:
        """Run xdotool."""
        done = subprocess.run(
            ["xdotool", *arguments], env=self.environment, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
        return done.stdout.strip()

    def picture(self, target: Path) -> None:
        """What is on the screen, for people who look at a failure."""
        if shutil.which("import"):
            subprocess.run(["import", "-window", "root", str(target)], env=self.environment, timeout=60, check=False)


class AppWindow:
    """Athanor's window as a process of its own, used by the keyboard alone."""

    def __init__(self, desktop: Desktop, home: Path, *arguments: str) -> None:
        self.desktop, self.home = desktop, home
        environment = desktop.environment | {"ATHANOR_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments], cwd=ROOT, env=environment,
            stdout=desktop._log, stderr=desktop._log,
        )  # fmt: skip
        wait_until(lambda: self._find(), 240, "the window")
        self.id = self._find()
        self.desktop.do("windowactivate", "--sync", self.id)
        self.desktop.do("windowfocus", "--sync", self.id)
        self.settle()

    def _find(self) -> str:
        found = self.desktop.do("search", "--onlyvisible", "--pid", str(self.process.pid), "--name", "Athanor")
        return found.splitlines()[0] if found else ""

    @property
    def title(self) -> str:
        return self.desktop.do("getwindowname", self.id)

    def keys(self, *names: str) -> None:
        """Press keys, such as "ctrl+f" or "Return"."""
        for name in names:
            self.desktop.do("key", "--clearmodifiers", name)
            self.settle()

    def type(self, text: str) -> None:
        self.desktop.do("type", "--delay", "15", text)
        self.settle()

    def settle(self, seconds: float = 30) -> None:
        """Wait until the window has nothing more to do, as a person would who looks at it."""
        end = time.monotonic() + seconds
        quiet = 0
        while quiet < 2 and time.monotonic() < end:
            before = self._work_done()
            time.sleep(0.1)
            quiet = quiet + 1 if self._work_done() - before < 0.02 else 0

    def _work_done(self) -> float:
        """Seconds of processor that the window has used; one that waits for its turn counts as working."""
        process = psutil.Process(self.process.pid)
        times = process.cpu_times()
        waiting = 1.0 * time.monotonic() if process.status() == psutil.STATUS_RUNNING else 0.0
        return times.user + times.system + waiting

    def go_to(self, setting: str) -> None:
        """Find a setting by the search box: its field then has the keyboard."""
        self.keys("ctrl+f")
        self.type(setting)
        self.keys("Return")

    def fill(self, setting: str, text: str) -> None:
        """Type a value in place of what stands there."""
        self.go_to(setting)
        self.keys("ctrl+a")
        self.type(text)

    def choose(self, setting: str, *keys: str) -> None:
        """Choose in a list by keys."""
        self.go_to(setting)
        self.keys(*keys)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """Ctrl+Q; if it says that training goes on (once, and only if it does), read that and press Return."""
        self.desktop.do("windowactivate", "--sync", self.id)
        self.desktop.do("key", "--clearmodifiers", "ctrl+q")
        try:
            self.process.wait(8)
        except subprocess.TimeoutExpired:
            self.desktop.do("key", "--clearmodifiers", "Return")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
