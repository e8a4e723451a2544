"""gui.sh and the installer's way in, run for real: Pythons that do not fit, awkward folders, and a quick second start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from installers.__main__ import refuse_version
from installers.environment import ensure
from tests.installers.fake import FakeHost, without_card

ROOT = Path(__file__).parents[2]
needs_bash = pytest.mark.skipif(os.name == "nt", reason="gui.sh is for Linux and macOS")


def clean_environ(**more: str) -> dict[str, str]:
    return {**os.environ, "ATHANOR_LANG": "en", **more}


@pytest.mark.parametrize(
    ("version", "says"), [((2, 7), "2.7"), ((3, 10), "3.10"), ((3, 15), "do not exist for Python 3.15")]
)
def test_other_pythons_are_told_what_is_needed(version: tuple[int, int], says: str) -> None:
    sentence = refuse_version((*version, 0))
    assert sentence is not None and says in sentence and "3.11 to 3.14" in sentence


def test_fitting_pythons_are_not_refused() -> None:
    assert [refuse_version((3, minor, 1)) for minor in (11, 12, 13, 14)] == [None] * 4


def old_pythons() -> list[Path]:
    """The oldest and the newest Python below 3.11 that pyenv has here; none on most computers."""
    found = []
    for place in Path.home().glob(".pyenv/versions/*/bin/python"):
        numbers = tuple(int(number) for number in place.parts[-3].split(".") if number.isdigit())
        if len(numbers) == 3 and numbers < (3, 11):
            found.append((numbers, place))
    return [place for _, place in [*sorted(found)[:1], *sorted(found)[1:][-1:]]]


@needs_bash
def test_way_in_can_be_read_by_old_pythons() -> None:
    """Python 2.7 and 3.6 must get as far as the sentence; where none is installed, the grammar of 3.0 is checked."""
    import ast

    source = (ROOT / "installers" / "__main__.py").read_text(encoding="ascii")
    tree = ast.parse(source, feature_version=(3, 7))
    assert not any(isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr) for node in ast.walk(tree))
    assert "__future__" not in source
    for python in old_pythons():
        done = subprocess.run([python, ROOT / "installers"], capture_output=True, text=True, check=False)
        assert (done.returncode, "needs Python 3.11" in done.stderr) == (1, True), python


@pytest.fixture
def project(root: Path) -> Path:
    """A project folder with the launcher in it, whose programs only say how they were called."""
    shutil.copytree(ROOT / "installers", root / "installers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "gui.sh", root)
    for package in ("app", "trainer"):
        (root / package).mkdir()
        (root / package / "__main__.py").write_text(
            f"import os, sys\nprint('{package}', sys.argv[1:], os.getcwd())\nsys.exit(5)\n", encoding="utf-8"
        )
    return root


def finish_environment(project: Path) -> None:
    """A finished environment whose Python is this one, as the set-up would leave it (without downloading anything)."""
    from installers.environment import Places, python_mark
    from installers.machine import driver_mark
    from installers.stamp import Stamp

    ensure(without_card(FakeHost(project)), project)
    places = Places(project)
    places.python.unlink()
    places.python.symlink_to(sys.executable)
    stamp = Stamp.read(places.venv)
    assert stamp is not None
    values = {**vars(stamp), "python": python_mark(places), "driver": driver_mark(FakeHost(project))}
    Stamp(**values).write(places.venv)


@needs_bash
def test_window_and_commands_start_from_any_folder(project: Path, awkward: Path) -> None:
    finish_environment(project)
    (awkward / "trainer.py").write_text("raise SystemExit('a file of the user took the module')", encoding="utf-8")
    command = [project / "gui.sh", "check", "my run.toml"]
    done = subprocess.run(command, cwd=awkward, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.stdout == f"trainer ['check', 'my run.toml'] {awkward}\n", done.stderr
    assert done.returncode == 5
    link = awkward / "start"
    link.symlink_to(project / "gui.sh")
    done = subprocess.run([link], cwd=awkward, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.stdout.startswith("app []"), done.stderr


@needs_bash
def test_second_start_takes_half_a_second_at_most(project: Path) -> None:
    """The launcher's own time, an empty program's start included. Processor time: other tests load the machine."""
    import resource

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    finish_environment(project)
    times = []
    for _ in range(3):
        begun = used()
        subprocess.run([project / "gui.sh", "check"], env=clean_environ(), capture_output=True, check=False)
        times.append(used() - begun)
    assert min(times) < 0.5, times


@needs_bash
def test_without_python_there_is_a_sentence(project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "readlink"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [project / "gui.sh"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Athanor needs Python 3.11 to 3.14" in done.stderr


@needs_bash
def test_foreign_python_settings_do_no_harm(project: Path, awkward: Path) -> None:
    finish_environment(project)
    (awkward / "json.py").write_text("raise SystemExit('taken')", encoding="utf-8")
    done = subprocess.run(
        [project / "gui.sh", "check"],
        env=clean_environ(PYTHONPATH=str(awkward), PYTHONHOME="/nowhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("trainer ['check']"), done.stderr
