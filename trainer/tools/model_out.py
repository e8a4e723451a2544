"""Writes a changed model: the dtype of each tensor, the container by the file's ending, and the config beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput, RunFailed
from trainer.files import write_json
from trainer.messages import say
from trainer.tools.checkpoint import Checkpoint, part_of, untold_configs
from trainer.tools.output import Row, write_safetensors
from trainer.tools.places import PRECISIONS, Files, Place
from trainer.tools.watch import Watch

if TYPE_CHECKING:
    import torch

MODEL_SUFFIXES = (".safetensors", ".ckpt")
_MOST_FP16 = 65504.0


def file_dtype(name: str, place: Place, precision: str, is_base: bool = True) -> str:
    """The dtype in which a tensor is written. A base model's marker keys and schedules stay as they are."""
    is_weight = place.is_float and (part_of(name) is not None or not is_base)
    return PRECISIONS.get(precision, place.dtype) if is_weight else place.dtype


def in_dtype(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """The tensor, if its values can be written in a dtype. Raises RunFailed where fp16 would make them infinite."""
    if dtype != "F16" or tensor.numel() == 0 or tensor.element_size() < 2 or str(tensor.dtype) == "torch.float16":
        return tensor
    low, high = (float(value) for value in tensor.aminmax())
    if max(-low, high) > _MOST_FP16 and max(-low, high) != float("inf"):
        raise RunFailed(
            say("{name} has values up to {most}, too large for fp16.", name=name, most=f"{max(-low, high):.4g}"),
            say("Write bf16 or fp32."),
        )
    return tensor


def copied(name: str, place: Place, precision: str, files: Files, is_base: bool = True) -> Row:
    """A row that writes a tensor as it is, or in another precision."""
    dtype = file_dtype(name, place, precision, is_base)
    return Row(name, place.shape, dtype, lambda: in_dtype(files.read(place), dtype, name))


def computed(name: str, place: Place, precision: str, give: Callable[[], torch.Tensor]) -> Row:
    """A row that writes what `give` computes, in the shape of `place`."""
    dtype = file_dtype(name, place, precision)
    return Row(name, place.shape, dtype, lambda: in_dtype(give(), dtype, name))


def write_model(path: Path, rows: Sequence[Row], metadata: Mapping[str, str], watch: Watch, source: Checkpoint) -> None:
    """Write a model file, and beside it what of its config a reader could not tell from it.

    Args:
        path: the file, its container told by its ending.
        rows, metadata: what is in it; only .safetensors holds metadata.
        watch: asked before every tensor.
        source: the model that gives the configs.

    Raises OSError, RunFailed, Stopped; `path` is then as it was.
    """
    configs = untold_configs(source)
    if path.suffix.lower() == ".ckpt":
        from trainer.tools.torch_zip import write_ckpt

        write_ckpt(path, rows, watch)
    else:
        write_safetensors(path, rows, metadata, watch)
    _write_config(path, configs, source.path)


def _write_config(target: Path, configs: Mapping[str, Any], source: Path) -> None:
    """Write `<stem>.json` with configs by part; an existing one (the WebUI keeps notes there) keeps its other entries."""
    found = {part: config for part, config in configs.items() if config}
    if not found or source.with_suffix("") == target.with_suffix(""):
        return
    beside = target.with_suffix(".json")
    notes = {}
    if beside.is_file():
        try:
            notes = json.loads(beside.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise BadInput(say("{path} is in the way: it is no JSON.", path=str(beside))) from error
    write_json(beside, {**notes, **found} if isinstance(notes, dict) else found, indent=2)
