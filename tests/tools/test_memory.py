"""Tools work on files that memory could not hold twice: the peak over the imports against the size of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tools.material import UNET, Tensors, base_file, changed, lora_file
from trainer.models.safetensors_file import read_header
from trainer.paths import ROOT

COUNT, NUM_ITEMS = 20, 5_000_000  # tensors of 20 MB
_CHILD = """
import json, sys
from pathlib import Path
from tests.benchmarks.children import peak_memory
from tests.tools.material import use
from trainer.tools.catalog import LoraEntry

def run(tool, settings, name):
    loras = settings.pop("loras", None)
    more = {"loras": (LoraEntry(path=loras),)} if loras else {}
    use(tool, output=str(Path(settings[next(iter(settings))]).with_name(name)), **settings, **more)

tool, small, large = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
run(tool, small, "small." + sys.argv[4])
before = peak_memory()
run(tool, large, "large." + sys.argv[4])
print(peak_memory() - before)
"""


def peak_of(tool: str, small: dict[str, str], large: dict[str, str], ending: str) -> int:
    """Bytes that a tool needs more for the large model than it has needed for the small one, in a process of its own."""
    line = [sys.executable, "-c", _CHILD, tool, json.dumps(small), json.dumps(large), ending]
    done = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", env=os.environ.copy(), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
@pytest.mark.parametrize(("tool", "ending"), [("convert", "ckpt"), ("convert", "safetensors"), ("merge", "safetensors"),
                                              ("bake", "safetensors")])  # fmt: skip
def test_no_file_is_ever_held_whole(tool: str, ending: str, tmp_path: Path) -> None:
    def grow(tensors: Tensors) -> None:
        tensors |= {f"{UNET}more.{number}.weight": torch.ones(NUM_ITEMS) for number in range(COUNT)}

    small = base_file(tmp_path, "base")
    large = changed(small, tmp_path / "big.safetensors", grow)
    more = {
        "merge": {},
        "convert": {"precision": "fp16"},
        "bake": {"loras": str(lora_file(tmp_path / "lora.safetensors", small))},
    }
    settings = []
    for path in (small, large):
        models = {"model_a": str(path), "model_b": str(path)} if tool == "merge" else {"model": str(path)}
        settings.append({**models, **more[tool]})
    size = sum(info.num_bytes for info in read_header(large).tensors.values())
    peak = peak_of(tool, *settings, ending)
    assert peak < 0.35 * size, f"{peak / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"
