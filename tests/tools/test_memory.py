"""Tools work on files that memory could not hold twice: the peak over the imports against the size of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tools.material import UNET, Tensors, base_file, changed, lora_file
from trainer.models.safetensors_file import read_header
from trainer.paths import ROOT

COUNT, NUM_ITEMS = 20, 5_000_000  # tensors of 20 MB
TOOLS = ("convert to ckpt", "convert to safetensors", "merge", "bake")
# Each tool has a process of its own for its peak, split off from one that has imported everything.
_CHILD = """
import json, os, sys
from pathlib import Path
from tests.benchmarks.children import peak_memory
from tests.tools.material import use
from trainer.tools.catalog import LoraEntry

folder = Path(sys.argv[1])

def run(tool, size):
    model = folder / f"{size}.safetensors"
    name, _, ending = tool.partition(" to ")
    output = folder / f"{size} {name}.{ending or 'safetensors'}"
    settings = {
        "convert": {"model": model, "precision": "fp16"},
        "merge": {"model_a": model, "model_b": model},
        "bake": {"model": model, "loras": (LoraEntry(path=str(folder / "lora.safetensors")),)},
    }
    use(name, output=output, **settings[name])
    output.unlink()

for tool in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        run(tool, "small")
        before = peak_memory()
        run(tool, "large")
        print(json.dumps([tool, peak_memory() - before]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, tool
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """By tool: how much memory it needs more for a large model than it has needed for a small one, of the model's size."""

    def grow(tensors: Tensors) -> None:
        tensors |= {f"{UNET}more.{number}.weight": torch.ones(NUM_ITEMS) for number in range(COUNT)}

    folder = tmp_path_factory.mktemp("models")
    small = base_file(folder, "small")
    large = changed(small, folder / "large.safetensors", grow)
    lora_file(folder / "lora.safetensors", small)
    size = sum(info.num_bytes for info in read_header(large).tensors.values())
    line = [sys.executable, "-c", _CHILD, str(folder), *TOOLS]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    large.unlink()
    return {tool: peak / size for tool, peak in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
@pytest.mark.parametrize("tool", TOOLS)
def test_no_file_is_ever_held_whole(peaks: dict[str, float], tool: str) -> None:
    assert 0 < peaks[tool] < 0.35, f"{peaks[tool]:.2f} of the file"
