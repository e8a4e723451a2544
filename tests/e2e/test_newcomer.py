"""A newcomer's way in a real window: from nothing to a LoRA in the WebUI's folder, the window killed in between."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.e2e.desktop import AppWindow, Desktop, missing_tools, wait_until
from tests.tiny import save_tiny_file
from trainer.ipc.runfolder import RunFolder, find_runs, is_alive

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(missing_tools()), reason="needs Xvfb, openbox and xdotool on Linux"
)
PATIENCE_S = 240  # on a busy machine; an idle one needs a tenth of it


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Desktop]:
    made = Desktop(tmp_path)
    yield made
    if target := os.environ.get("ATHANOR_E2E_PICTURES"):
        made.picture(Path(target) / "last.png")
    made.close()


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """A folder that looks like the WebUI's."""
    root = tmp_path / "stable-diffusion-webui"
    (root / "modules").mkdir(parents=True)
    (root / "webui.py").write_text("", encoding="utf-8")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A kohya folder with six small pictures, half of them with captions."""
    folder = tmp_path / "img" / "4_zorv shape"
    folder.mkdir(parents=True)
    draw = random.Random(1)
    for number in range(6):
        colour = tuple(draw.randrange(256) for _ in range(3))
        Image.new("RGB", (96, 96 if number % 2 else 64), colour).save(folder / f"picture{number}.png")
        if number % 2:
            (folder / f"picture{number}.txt").write_text(f"zorv shape, number {number}", encoding="utf-8")
    return folder.parent


def journal(folder: RunFolder) -> list[dict[str, Any]]:
    """Events of a run that are whole lines, steps as {"event": "step", "step": n}."""
    events = []
    for line in folder.journal.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            entry = json.loads(line)
            events.append(entry if isinstance(entry, dict) else {"event": "step", "row": entry})
    return events


def kinds(folder: RunFolder) -> list[str]:
    return [str(event.get("event")) for event in journal(folder)] if folder.journal.exists() else []


@pytest.mark.timeout(900)
def test_from_nothing_to_a_lora_in_the_webui(desktop: Desktop, tmp_path: Path, webui: Path, pictures: Path) -> None:
    home = tmp_path / "home"
    model = save_tiny_file(tmp_path)
    window = AppWindow(desktop, home)
    fill_in(window, model, pictures, webui)
    window.keys("ctrl+Return")
    runs = home / "runs"
    wait_until(lambda: find_runs(runs), PATIENCE_S, "the run's folder")
    folder = find_runs(runs)[0]
    wait_until(lambda: "step" in kinds(folder), PATIENCE_S, "the first step")
    worker = folder.read_status().pid
    window.kill()
    time.sleep(1)
    assert psutil.pid_exists(worker) or "done" in kinds(folder), "the worker went with its window"
    again = AppWindow(desktop, home)
    assert "zorv" in again.title, "the draft was lost"
    wait_until(lambda: "done" in kinds(folder) or "failed" in kinds(folder), PATIENCE_S, "the end of the run")
    assert kinds(folder)[-1] == "done", journal(folder)[-1]
    steps = [event for event in journal(folder) if event["event"] == "step"]
    assert len(steps) == 24 * 6
    lora = webui / "models" / "Lora" / "zorv.safetensors"
    wait_until(lambda: lora.exists(), 30, "the LoRA in the WebUI's folder")
    assert lora.stat().st_size > 1000
    wait_until(lambda: not is_alive(folder.read_status()), 60, "the worker's end")
    again.close()
    assert again.process.returncode == 0


def fill_in(window: AppWindow, model: Path, pictures: Path, webui: Path) -> None:
    """What a newcomer types, found by the search box."""
    window.fill("pretrained model", str(model))
    window.go_to("train data dir")
    window.keys("space")  # "Choose a folder…" has the keyboard while the list is empty
    window.type(str(pictures))
    window.keys("Return")
    window.fill("max resolution", "64")
    window.fill("network dim", "4")
    window.fill("network alpha", "2")
    window.fill("max train epochs", "6")
    window.fill("gpu ids", "cpu")
    window.keys("Return")
    window.choose("mixed precision", "End")
    window.choose("optimizer type", "Home")
    window.fill("output name", "zorv")
    window.fill("output.export_to Copy to", str(webui))
    window.keys("Tab")
