"""gui.bat and its helper, byte by byte; the checker itself is tried on files that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from installers.__main__ import LOWEST, NEWEST
from installers.addresses import addresses
from tests.installers.batch_check import complaints

ROOT = Path(__file__).parents[2]
BATCH_FILES = sorted([ROOT / "gui.bat", *(ROOT / "installers").glob("*.bat")])


@pytest.mark.parametrize("path", BATCH_FILES, ids=lambda path: path.name)
def test_batch_file_is_sound(path: Path) -> None:
    assert complaints(path.read_bytes()) == []


GOOD = b'@echo off\r\nsetlocal\r\nset "A=1"\r\nif defined A echo "%A%"\r\n'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (GOOD.replace(b"\r\n", b"\n"), "CRLF"),
        (GOOD + b"echo one\n", "CRLF"),
        (GOOD + "echo 炼丹\r\n".encode(), "ASCII"),
        (b"\xef\xbb\xbf" + GOOD, "ASCII"),
        (GOOD.replace(b"setlocal\r\n", b""), "setlocal"),
        (GOOD + b'if defined A (\r\n  set "B=2"\r\n  echo %B%\r\n)\r\n', "a block reads B"),
        (GOOD + b'for %%X in (1 2) do (\r\n  set B=%%X\r\n  call "%B%"\r\n)\r\n', "a block reads B"),
        (GOOD + b"goto nowhere\r\n", "label nowhere"),
        (GOOD + b"call :nowhere x\r\n", "label nowhere"),
        (GOOD + b"cd /d %~dp0\r\n", "not quoted"),
    ],
)
def test_checker_finds_what_is_wrong(data: bytes, says: str) -> None:
    assert says in "; ".join(complaints(data))


def test_checker_accepts_what_is_right() -> None:
    fine = GOOD + b'if defined A (\r\n  echo %A%\r\n  set "B=2"\r\n)\r\necho %B%\r\ngoto end\r\n:end\r\n'
    assert complaints(fine) == []


def test_gui_bat_does_what_windows_needs() -> None:
    text = (ROOT / "gui.bat").read_text(encoding="ascii")
    steps = ('cd /d "%~dp0"', "chcp 65001 >nul", 'set "PYTHONHOME="', 'set "PYTHONPATH="', "PYTHONUTF8=1", "cmdcmdline")
    assert [step for step in steps if step not in text] == []
    pause = text.index("\npause")
    assert text.rindex("if not defined DOUBLE_CLICK goto end", 0, pause) > text.rindex(":finish", 0, pause)


def test_launchers_look_for_the_pythons_that_the_installer_accepts() -> None:
    wanted = f"{LOWEST} <= sys.version_info[:2] <= {NEWEST}"
    assert wanted in (ROOT / "gui.bat").read_text(encoding="ascii")
    assert wanted in (ROOT / "gui.sh").read_text(encoding="utf-8")
    names = {f"3.{minor}" for minor in range(LOWEST[1], NEWEST[1] + 1)}
    assert set(re.findall(r"python(3\.\d+)", (ROOT / "gui.sh").read_text(encoding="utf-8"))) == names


def test_download_addresses_stand_in_one_table() -> None:
    files = [*ROOT.glob("gui.*"), *(path for path in (ROOT / "installers").iterdir() if path.suffix in {".py", ".bat"})]
    for path in files:
        assert "://" not in path.read_text(encoding="utf-8"), path.name
    table = addresses()
    assert set(re.findall(r'"%%A"=="(\w+)"', (ROOT / "installers" / "portable_python.bat").read_text())) <= set(table)
    assert len(table["portable_python_sha256"]) == 64
    assert all(value.startswith("https://") for name, value in table.items() if not name.endswith("sha256"))
    assert not any("%" in value for value in table.values())  # cmd would read it as a variable
