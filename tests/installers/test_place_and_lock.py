"""Places that Windows makes trouble in, and the lock that lets one set-up work at a time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path, PureWindowsPath

import pytest

from installers.lock import hold_lock, try_lock
from installers.place import LONGEST_ROOT, refuse_place, refuse_windows_place

WINDOWS = {"SystemRoot": r"C:\Windows", "OneDrive": r"C:\Users\an\OneDrive - 公司"}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (r"C:\Windows\System32\Athanor", "belongs to Windows"),
        (r"c:\windows", "belongs to Windows"),
        (r"C:\Users\an\OneDrive - 公司\Desktop\Athanor", "OneDrive"),
        ("D:\\" + "x" * LONGEST_ROOT, "too long"),
    ],
)
def test_bad_places_on_windows(place: str, says: str) -> None:
    assert says in str(refuse_windows_place(PureWindowsPath(place), WINDOWS, long_paths=False))


@pytest.mark.parametrize("place", [r"D:\Athanor", r"D:\a b & c (1)\炼丹", r"C:\WindowsApps\Athanor"])
def test_good_places_on_windows(place: str) -> None:
    assert refuse_windows_place(PureWindowsPath(place), WINDOWS, long_paths=False) is None


def test_long_paths_may_be_switched_on() -> None:
    assert refuse_windows_place(PureWindowsPath("D:\\" + "x" * 200), WINDOWS, long_paths=True) is None


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refuse_place(tmp_path, "Linux", {}) is None
    monkeypatch.setattr("installers.place.os.access", lambda path, mode: False)
    assert "cannot be written" in str(refuse_place(tmp_path, "Linux", {}))


def test_second_holder_waits_until_the_first_dies(awkward: Path) -> None:
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from installers.lock import hold_lock
        with hold_lock(Path(sys.argv[1])):
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-X", "utf8", "-c", textwrap.dedent(script), str(awkward / "lock")]
    waits: list[str] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with (awkward / "lock").open("a+b") as handle:
            assert not try_lock(handle.fileno())

        def on_wait() -> None:
            waits.append("waiting")
            holder.kill()

        with hold_lock(awkward / "lock", on_wait, pause_s=0.01):
            assert waits == ["waiting"]
