"""The doctor's findings in plain words, its exit code and its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from installers import doctor
from installers.environment import Places, ensure
from installers.host import GIB
from installers.machine import Card, Machine
from installers.torch_choice import choose
from tests.installers.fake import SMI_4090, FakeHost, make_fake_venv, with_card, without_card

GOOD_CARD = {"name": "RTX 4090", "compute": "8.9", "right": True, "free": 23 * GIB, "total": 24 * GIB}


def report(host: FakeHost, root: Path) -> tuple[int, dict[str, Any]]:
    code = doctor.run_doctor(host, root, as_json=True)
    return code, json.loads(host.told[-1])


def facts(**parts: Any) -> tuple[int, str]:
    whole = {
        "torch": {"version": "2.13.0+cu130", "cuda": "13.0", "cards": [GOOD_CARD]},
        "bitsandbytes": {"version": "0.50", "device": "cuda", "moved": True},
        "xformers": {"version": "0.0.35"},
        "window": {"version": "6.11", "loaded": True},
    }
    return 0, "a warning of some library\n" + json.dumps({**whole, **parts})


def states(findings: dict[str, Any]) -> dict[str, str]:
    return {finding["name"]: finding["state"] for finding in findings["findings"]}


def test_before_the_first_start_nothing_is_wrong(host: FakeHost, root: Path) -> None:
    code, found = report(host, root)
    assert (code, found["ok"]) == (0, True)
    assert states(found)["Environment"] == "doubtful"
    assert "PyTorch" not in states(found)


def test_all_is_well_with_a_card(host: FakeHost, root: Path) -> None:
    host.environ["DISPLAY"] = ":0"
    ensure(with_card(host), root)
    host.probe = facts()
    code, found = report(host, root)
    assert code == 0
    wanted = {"Environment", "Card and driver", "PyTorch", "bitsandbytes", "xformers", "Window (Qt)", "Fonts"}
    assert {name for name, state in states(found).items() if state == "fine"} >= wanted


def test_text_report_marks_and_advises(host: FakeHost, root: Path) -> None:
    host.smi = "RTX 4090, 470.57, 24564, 8.9\n"
    assert doctor.run_doctor(host, root, as_json=False) == 1
    assert "[XX] Card and driver: NVIDIA's driver 470.57 is too old" in host.text
    assert host.told[-1] == "What is marked [XX] has to be mended first."


@pytest.mark.parametrize(
    ("part", "name", "state"),
    [
        ({"torch": {"error": "OSError: libcudart.so.13"}}, "PyTorch", "wrong"),
        ({"torch": {"version": "2.13.0+cpu", "cuda": None, "cards": []}}, "PyTorch", "wrong"),
        ({"torch": {"version": "2.13.0", "cuda": "13.0", "cards": []}}, "PyTorch", "wrong"),
        ({"torch": {"version": "2.13.0", "cuda": "13.0", "cards": [{**GOOD_CARD, "right": False}]}}, "PyTorch", "wrong"),
        ({"torch": {"version": "2", "cuda": "13.0", "cards": [{**GOOD_CARD, "free": GIB}]}}, "PyTorch", "doubtful"),
        ({"bitsandbytes": {"error": "RuntimeError: no CUDA"}}, "bitsandbytes", "doubtful"),
        ({"bitsandbytes": {"version": "1", "device": "cuda", "moved": False}}, "bitsandbytes", "doubtful"),
        ({"xformers": {"error": "ModuleNotFoundError: xformers"}}, "xformers", "fine"),
        ({"window": {"error": "ImportError: libEGL.so.1"}}, "Window (Qt)", "wrong"),
    ],
)
def test_each_broken_part_is_named(host: FakeHost, root: Path, part: dict[str, Any], name: str, state: str) -> None:
    ensure(with_card(host), root)
    host.probe = facts(**part)
    code, found = report(host, root)
    assert states(found)[name] == state
    assert code == (1 if state == "wrong" else 0)


def test_probe_that_cannot_start_is_reported_for_every_part(host: FakeHost, root: Path) -> None:
    ensure(with_card(host), root)
    host.probe = (139, "Segmentation fault\n")
    code, found = report(host, root)
    assert code == 1
    assert {finding["text"] for finding in found["findings"] if finding["name"] == "PyTorch"} == {"Segmentation fault"}


@pytest.mark.parametrize(
    ("prepare", "text"),
    [("broken", "broken"), ("unfinished", "not finished"), ("older", "older than pyproject.toml")],
)
def test_states_of_the_environment(host: FakeHost, root: Path, prepare: str, text: str) -> None:
    places = Places(root)
    if prepare == "older":
        ensure(without_card(host), root)
        project = root / "pyproject.toml"
        project.write_text(project.read_text(encoding="utf-8").replace("numpy>=1", "numpy>=3"), encoding="utf-8")
    else:
        make_fake_venv(places, version="2.7.0" if prepare == "broken" else "")
    assert text in doctor.check_environment(places).text


@pytest.mark.parametrize(("size", "state"), [(64, "fine"), (15.6, "fine"), (12, "doubtful"), (4, "doubtful")])
def test_memory(size: float, state: str) -> None:
    assert doctor.check_memory(int(size * GIB)).state == state


def test_disk(host: FakeHost, root: Path) -> None:
    assert doctor.check_disk(host, root).state == "fine"
    host.free = {root: 20 * GIB}
    assert doctor.check_disk(host, root).state == "doubtful"
    host.free = {root: 3 * GIB}
    assert doctor.check_disk(host, root).state == "wrong"


def test_page_file_and_visual_c_of_windows(tmp_path: Path) -> None:
    assert doctor.check_page_file(16 * GIB, 17 * GIB).state == "doubtful"
    assert doctor.check_page_file(16 * GIB, 40 * GIB).state == "fine"
    assert doctor.check_visual_c(tmp_path).state == "wrong"
    for name in ("msvcp140.dll", "vcruntime140_1.dll"):
        (tmp_path / name).touch()
    assert doctor.check_visual_c(tmp_path).state == "fine"


@pytest.mark.parametrize(("compute", "advice"), [((8, 0), ""), ((7, 5), "no bf16"), ((6, 1), "no 8-bit optimisers")])
def test_older_cards_are_told_what_they_lack(compute: tuple[int, int], advice: str) -> None:
    machine = Machine("Linux", "x86_64", (Card("card", "nvidia", compute, 8192),), "580.95")
    assert advice in doctor.check_card(machine, choose(machine)).todo


def test_fonts_and_display(host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_display(host).state == "doubtful"
    host.environ["DISPLAY"] = ":1"
    monkeypatch.setattr("installers.doctor.ctypes.util.find_library", lambda name: None)
    assert "libxcb-cursor" in doctor.check_display(host).text
    host.environ["WAYLAND_DISPLAY"] = "wayland-0"
    assert doctor.check_display(host).state == "fine"
    assert doctor.check_fonts(host).state == "fine"
    windows = FakeHost(root, system="Windows")
    windows.environ["SystemRoot"] = str(root)
    assert doctor.check_fonts(windows).state == "doubtful"
    (root / "Fonts").mkdir()
    (root / "Fonts" / "msyh.ttc").touch()
    assert doctor.check_fonts(windows).state == "fine"


def test_probe_reports_a_package_that_is_missing_and_goes_on() -> None:
    """The real probe in a Python without site-packages: every part an error, none hides another."""
    script = Path(doctor.__file__).with_name("probe.py")
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert {name: "error" in part for name, part in found.items()} == dict.fromkeys(found, True)
    assert set(found) == {"torch", "bitsandbytes", "xformers", "window"}


def test_doctor_never_installs(host: FakeHost, root: Path) -> None:
    host.smi = SMI_4090
    doctor.run_doctor(host, root, as_json=True)
    assert host.commands == []
    assert not (root / "venv").exists()
