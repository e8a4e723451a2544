"""The command line from a run file to the WebUI's folder, for tiny models of the newer families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families import save_kind
from tests.runs import PROMPT, draw_pictures, tiny_run
from tests.targets.fakes import a1111
from trainer.config.files import write_run
from trainer.models.header import inspect_file
from trainer.paths import ROOT


@pytest.mark.parametrize("kind", ["sd2 v", "sdxl"])
def test_a_run_ends_in_the_webuis_folder(kind: str, awkward: Path) -> None:
    webui = a1111(awkward / "webui")
    run = tiny_run(
        save_kind(awkward, kind), draw_pictures(awkward / "img", [(64, 64), (96, 64)]),
        output={"folder": str(awkward / "runs"), "export_to": str(webui)},
        samples={"prompts": (PROMPT,), "at_end": True},
    )  # fmt: skip
    write_run(awkward / "run.toml", run)
    command = [sys.executable, "-m", "trainer", str(awkward / "run.toml"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {"plan", "sample", "saved", "done"} <= {event["event"] for event in told}
    (placed,) = (webui / "models" / "Lora").rglob("*.safetensors")
    facts = inspect_file(placed)
    assert (facts.kind, facts.family) == ("lora", "sd2" if kind == "sd2 v" else "sdxl")
    notes = json.loads(placed.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["sd version"] == ("SD2" if kind == "sd2 v" else "SDXL")
    assert placed.with_name(f"{placed.stem}.preview.png").is_file()
