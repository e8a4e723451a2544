"""Writes a LoRA that a tool has made: kohya's names and shapes, alpha, the network's metadata and the file's hashes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.models.tensor_file import TORCH_NAMES
from trainer.tools.deltas import ALPHA, DOWN, UP
from trainer.tools.model_out import in_dtype
from trainer.tools.output import SSHS, Row, write_safetensors
from trainer.tools.watch import Watch

LORA_SUFFIXES = (".safetensors",)


class Made(NamedTuple):
    """A layer: its change is up (out, r) · down (r, n) · scale; `row` is the shape of a row of down."""

    up: Tensor
    down: Tensor
    row: tuple[int, ...]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def is_convolution(self) -> bool:
        return any(size > 1 for size in self.row[1:])


def write_lora(path: Path, layers: Mapping[str, Made], metadata: Mapping[str, str], dtype: str, watch: Watch) -> None:
    """Write the file atomically, hashes included. Raises OSError, RunFailed, Stopped; `path` is then as it was."""
    rows = [
        Row(name, tuple(tensor.shape), dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
        for module, layer in layers.items()
        for name, tensor in _tensors(module, layer, dtype).items()
    ]
    write_safetensors(path, rows, {**metadata, **dict.fromkeys(SSHS, "")}, watch)


def _tensors(name: str, layer: Made, dtype: str) -> dict[str, Tensor]:
    """kohya's three tensors. alpha is rounded to what the dtype holds, and what that loses is put into up."""
    wanted = layer.scale * layer.rank
    alpha = torch.tensor(wanted).to(_torch_dtype(dtype)).float()
    up = layer.up if float(alpha) == wanted else layer.up * (wanted / float(alpha))
    ones = [1] * (len(layer.row) - 1)
    found = {
        f"{name}.{ALPHA}": alpha,
        f"{name}.{DOWN}": layer.down.reshape(layer.rank, *layer.row),
        f"{name}.{UP}": up.reshape(len(up), layer.rank, *ones),
    }
    return {key: in_dtype(tensor.contiguous(), dtype, key) for key, tensor in found.items()}


def _torch_dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, TORCH_NAMES[name])
    return dtype


def network_metadata(layers: Mapping[str, Made]) -> dict[str, str]:
    """The entries by which programs know the network; ranks that differ are called "Dynamic", as kohya's programs do."""
    linear = {(layer.rank, layer.scale * layer.rank) for layer in layers.values() if not layer.is_convolution}
    wide = {(layer.rank, layer.scale * layer.rank) for layer in layers.values() if layer.is_convolution}
    rank, alpha = _one(linear or wide)
    conv_rank, conv_alpha = _one(wide)
    arguments = {"conv_dim": conv_rank, "conv_alpha": conv_alpha} if wide else None
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(arguments) if arguments else "None",
    }


def _one(pairs: set[tuple[int, float]]) -> tuple[str, str]:
    if len(pairs) != 1:
        return "Dynamic", "Dynamic"
    ((rank, alpha),) = pairs
    return str(rank), str(round(alpha, 6))


def ranks(layers: Mapping[str, Made]) -> dict[str, float]:
    """The least, mean and greatest rank, for the tool's answer."""
    values = [layer.rank for layer in layers.values()] or [0]
    return {"least": min(values), "mean": round(statistics.fmean(values), 2), "greatest": max(values)}
