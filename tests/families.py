"""Every way in which tiny models of the families differ for a run, as files; the models themselves are in `tests.tiny`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import save_tiny_file
from trainer.models.tensor_file import read_file, write_file

V, ZERO = {"prediction": "v_prediction"}, {"prediction": "v_prediction", "zero_snr": True}
KINDS: dict[str, dict[str, Any]] = {
    "sd1 inpainting": {"family": "sd1", "in_channels": 9},
    "sd2": {"family": "sd2"},
    "sd2 v": {"family": "sd2", **V},
    "sd2 v zero": {"family": "sd2", **ZERO},
    "sdxl": {"family": "sdxl"},
    "sdxl v zero": {"family": "sdxl", **ZERO},
}


def save_kind(folder: Path, kind: str) -> Path:
    """The model as one LDM file that says what it predicts."""
    return save_tiny_file(folder, kind.replace(" ", "_"), **KINDS[kind])


def silenced(path: Path) -> Path:
    """The same file without a word on what it predicts."""
    tensors = {name: tensor for name, tensor in read_file(path).items() if name not in ("v_pred", "ztsnr")}
    kinds = {"torch.float32": "F32", "torch.int64": "I64"}
    rows = [
        (name, tuple(tensor.shape), kinds[str(tensor.dtype)], lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    ]
    write_file(path, rows, {"format": "pt"})
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text(encoding="utf-8"))
    told.pop("model", None)
    beside.write_text(json.dumps(told), encoding="utf-8")
    return path
