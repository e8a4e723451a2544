"""What each launcher command starts, in which folder and environment, and its exit code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from installers.commands import main
from installers.environment import Places, ensure
from tests.installers.fake import CPU, SMI_4090, FakeHost, with_card, without_card


@pytest.fixture
def ready(host: FakeHost, root: Path) -> FakeHost:
    """A computer whose environment is finished, tests' packages included."""
    ensure(without_card(host), root, wanted=("app", "test"))
    return FakeHost(root)


@pytest.mark.parametrize(
    ("given", "started"),
    [
        ([], ["app"]),
        (["demo"], ["trainer", "demo"]),
        (["train", "my run.toml"], ["trainer", "my run.toml"]),
        (["check", "a b.toml", "--json"], ["trainer", "check", "a b.toml", "--json"]),
        (["resume", "folder"], ["trainer", "resume", "folder"]),
        (["captioners", "wd14", "--model", "m"], ["captioners", "wd14", "--model", "m"]),
    ],
)
def test_commands_reach_their_program(ready: FakeHost, root: Path, given: list[str], started: list[str]) -> None:
    assert main(given, ready, root) == 0
    assert ready.commands == [[str(Places(root).python), "-P", "-m", *started]]
    assert ready.environs[0]["PYTHONPATH"] == str(root)


def test_exit_code_comes_through(ready: FakeHost, root: Path) -> None:
    ready.exit_codes = {"check": 2}
    assert main(["check", "x.toml"], ready, root) == 2


def test_relative_paths_mean_the_folder_of_the_caller(ready: FakeHost, root: Path, awkward: Path) -> None:
    main(["check", "x.toml"], ready, root)
    assert ready.folders == [None]  # gui.sh stays where the user is
    ready.environ["ATHANOR_CALLER_FOLDER"] = str(awkward)  # gui.bat could not
    main(["check", "x.toml"], ready, root)
    assert ready.folders[-1] == awkward


def test_test_runs_every_check_even_if_one_fails_and_pytest_last(ready: FakeHost, root: Path) -> None:
    ready.exit_codes = {"mypy": 1}
    assert main(["test", "-k", "this"], ready, root) == 1
    words = [command[-1] if "lint-imports" in command[0] else command[3] for command in ready.commands]
    assert [word if "lint-imports" not in word else "lint-imports" for word in words] == [
        "ruff",
        "lint-imports",
        "mypy",
        "pytest",
    ]
    assert ready.commands[-1][-6:] == ["-n", "2", "--dist", "worksteal", "-k", "this"]
    assert ready.told[-1] == "Failed: mypy"
    assert ready.folders == [root] * 4
    assert ready.environs[-1]["QT_QPA_PLATFORM"] == "offscreen"


def test_failing_pytest_has_the_last_word(ready: FakeHost, root: Path) -> None:
    ready.exit_codes = {"pytest": 1}
    assert main(["test"], ready, root) == 1
    assert ready.told[-1] == "== pytest"


def test_set_up_that_fails_is_a_sentence_and_exit_code_1(host: FakeHost, root: Path) -> None:
    host.smi = SMI_4090
    assert main(["demo"], host, root) == 1
    assert "ATHANOR_TORCH_INDEX" in host.told[-1]


@pytest.mark.parametrize("given", [["setup", "--torch", "rocm"], ["setup", "--torch"], ["setup", "now"], ["doctor", "x"]])
def test_wrong_arguments_are_exit_code_2(host: FakeHost, root: Path, given: list[str]) -> None:
    assert main(given, host, root) == 2
    assert host.commands == []


def test_setup_by_hand_and_fresh(host: FakeHost, root: Path) -> None:
    with_card(host)
    host.offer_torch("cpu", None)
    assert main(["setup", "--torch", "cpu"], host, root) == 0
    assert host.pip_requests[0][-1] == CPU
    fresh = without_card(FakeHost(root))
    (root / "venv" / "leftover").touch()
    assert main(["setup", "--fresh"], fresh, root) == 0
    assert not (root / "venv" / "leftover").exists()
    assert fresh.commands[0][1:3] == ["-m", "venv"]


def test_an_environment_in_use_is_a_sentence(ready: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(folder: Path) -> None:  # as Windows answers while a program of it runs
        raise PermissionError(13, "Access is denied", str(folder / "Scripts" / "python.exe"))

    monkeypatch.setattr(shutil, "rmtree", held)
    assert main(["setup", "--fresh"], ready, root) == 1
    assert "could not be removed (Access is denied). Close Athanor's windows" in ready.told[-1]
    monkeypatch.undo()
    again = FakeHost(root)
    assert main(["setup"], without_card(again), root) == 0  # what a broken removal left is made again


def test_what_the_system_refuses_is_a_sentence(host: FakeHost, root: Path) -> None:
    (root / ".athanor-setup").write_text("a file where a folder should be", encoding="utf-8")
    assert main(["demo"], without_card(host), root) == 1
    assert ".athanor-setup could not be read or written" in host.told[-1]


def test_setup_checks_again_though_all_is_well(ready: FakeHost, root: Path) -> None:
    assert main(["setup"], ready, root) == 0
    assert [request[0] for request in ready.pip_requests] == ["-r"]


def test_help_needs_no_environment(host: FakeHost, root: Path) -> None:
    assert main(["--help"], host, root) == 0
    assert "gui.sh demo" in host.text
    assert host.commands == []


def test_stopping_is_130(ready: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(ready, "run", stop)
    assert main(["demo"], ready, root) == 130
