"""Other families' way in a real window: chosen, what they want taken over, trained, drawn, placed, and made smaller."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.desktop import AppWindow, Desktop, wait_until
from tests.e2e.test_newcomer import PATIENCE_S, journal, kinds, pytestmark
from tests.e2e.test_newcomer import desktop as desktop  # fixtures
from tests.e2e.test_newcomer import pictures as pictures
from tests.e2e.test_newcomer import webui as webui
from tests.tiny import save_tiny_file
from trainer.ipc.runfolder import find_runs, is_alive
from trainer.models.header import inspect_file

__all__ = ["pytestmark"]


def drafted(home: Path, section: str, key: str) -> Any:
    """A value of the draft as it lies on the disk."""
    try:
        stored = json.loads((home / "draft.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored["values"].get(section, {}).get(key)


RUN = """
format = 1
[images]
folders = [{{ path = '{pictures}' }}]
[network]
rank = 4
alpha = 2
[training]
epochs = 2
[speed]
device = "cpu"
precision = "fp32"
[samples]
prompts = [{{ prompt = "zorv shape", width = 64, height = 64, steps = 3 }}]
[output]
name = "zorv"
export_to = '{webui}'
"""


@pytest.fixture
def run_file(tmp_path: Path, pictures: Path, webui: Path) -> Path:
    """A short run that lacks only its base model."""
    file = tmp_path / "run.toml"
    file.write_text(RUN.format(pictures=pictures, webui=webui), encoding="utf-8")
    return file


FAMILIES = [
    pytest.param("sdxl", {}, ["unet"], id="sdxl"),
    pytest.param("sd2", {}, ["text_encoder", "unet"], id="sd2", marks=pytest.mark.slow),
    pytest.param(
        "sd2", {"prediction": "v_prediction"}, ["text_encoder", "unet"], id="sd2 v", marks=pytest.mark.slow
    ),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("family", "facts", "parts"), FAMILIES)
def test_from_a_model_to_a_smaller_lora(
    desktop: Desktop, tmp_path: Path, webui: Path, run_file: Path, family: str, facts: dict[str, str], parts: list[str]
) -> None:
    home = tmp_path / "home"
    model = save_tiny_file(tmp_path, "tiny-model", family=family, **facts)
    window = AppWindow(desktop, home, str(run_file))
    window.fill("pretrained model", str(model))
    wait_until(lambda: drafted(home, "images", "resolution") == [64, 64], 60, "what the model wants of the settings")
    assert drafted(home, "network", "train") == ("unet" if family == "sdxl" else "both")
    window.keys("ctrl+Return")
    runs = home / "runs"
    wait_until(lambda: find_runs(runs), PATIENCE_S, "the run's folder")
    folder = find_runs(runs)[0]
    wait_until(lambda: "done" in kinds(folder) or "failed" in kinds(folder), PATIENCE_S, "the end of the run")
    assert kinds(folder)[-1] == "done", journal(folder)[-1]
    assert len(list(folder.samples.glob("*.png"))) >= 3, "a preview before, after each epoch"
    lora = webui / "models" / "Lora" / "zorv.safetensors"
    wait_until(lambda: lora.exists(), 30, "the LoRA in the WebUI's folder")
    found = inspect_file(lora)
    assert (found.kind, found.family, sorted(found.parts)) == ("lora", family, parts)
    assert found.adapter is not None and found.adapter.ranks[0] == 4
    wait_until(lambda: not is_alive(folder.read_status()), 60, "the worker's end")
    make_smaller(window, lora)
    window.close()
    assert window.process.returncode == 0


def tools_of(window: AppWindow) -> list[psutil.Process]:
    """The tools' processes that the window has started and that are at work."""
    found = []
    for child in psutil.Process(window.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "tools" in child.cmdline():
                found.append(child)
    return found


def make_smaller(window: AppWindow, lora: Path) -> None:
    """The tool that resizes, by the keyboard alone; it offers the name itself."""
    smaller = lora.with_name("zorv-r2.safetensors")
    window.go_to("resize a lora")
    window.type(str(lora))
    window.keys("Tab", "Tab", "Tab", "Tab", "Tab")  # past its button, the output and the rule, to the rank
    window.keys("ctrl+a")
    window.type("2")
    window.keys("ctrl+Return")
    wait_until(lambda: smaller.exists(), 120, "the smaller LoRA")
    wait_until(lambda: not tools_of(window), 60, "the tool's end")  # else the window asks before it closes
    window.settle()
    facts = inspect_file(smaller)
    assert facts.adapter is not None and facts.adapter.ranks == (2,)
