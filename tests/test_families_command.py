"""The command line from a run file to the WebUI's folder, for tiny models of the newer families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import AWKWARD_NAME
from tests.families import save_kind
from tests.runs import PROMPT, draw_pictures, tiny_run
from tests.targets.fakes import a1111
from trainer.config.files import write_run
from trainer.models.header import inspect_file
from trainer.paths import ROOT

KINDS = ("sd2 v", "sdxl")
EACH = """
import sys
from trainer.__main__ import main
for run in sys.argv[1:]:
    if (code := main([run, "--json"])) != 0:
        sys.exit(code)
"""


@pytest.fixture(scope="module")
def webuis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A WebUI's folder for each kind, after its run; one process, for the libraries take longest."""
    folder = tmp_path_factory.mktemp("runs") / AWKWARD_NAME
    pictures = draw_pictures(folder / "img", [(64, 64), (96, 64)])
    command = [sys.executable, "-c", EACH]
    for kind in KINDS:
        run = tiny_run(
            save_kind(folder, kind), pictures,
            output={"folder": str(folder / "runs"), "export_to": str(a1111(folder / kind))},
            samples={"prompts": (PROMPT,), "at_end": True},
        )  # fmt: skip
        write_run(folder / f"{kind}.toml", run)
        command.append(str(folder / f"{kind}.toml"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for event in ("plan", "sample", "saved", "done"):
        assert sum(one["event"] == event for one in told) >= len(KINDS), event
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_in_the_webuis_folder(kind: str, webuis: dict[str, Path]) -> None:
    (placed,) = (webuis[kind] / "models" / "Lora").rglob("*.safetensors")
    facts = inspect_file(placed)
    assert (facts.kind, facts.family) == ("lora", "sd2" if kind == "sd2 v" else "sdxl")
    notes = json.loads(placed.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["sd version"] == ("SD2" if kind == "sd2 v" else "SDXL")
    assert placed.with_name(f"{placed.stem}.preview.png").is_file()
