"""Writes a changed model: the dtype of each tensor, the container by the file's ending, and the config beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput, RunFailed
from trainer.files import write_json
from trainer.messages import say
from trainer.models import predictions, saving
from trainer.models.header import TRAINABLE, ModelFacts
from trainer.models.predictions import V_MARKER, ZERO_SNR_MARKER
from trainer.models.safetensors_file import Header, TensorInfo
from trainer.tools.checkpoint import Checkpoint, architecture_of, family_of, part_of, untold_configs
from trainer.tools.output import Row, write_safetensors
from trainer.tools.places import FILE_NAMES, PRECISIONS, Files, Place
from trainer.tools.watch import Watch

if TYPE_CHECKING:
    import torch

MODEL_SUFFIXES = (".safetensors", ".ckpt")
_GREATEST = {"F16": 65504.0, "F8_E4M3": 448.0, "F8_E5M2": 57344.0}  # of the dtypes that values can be too large for


def file_dtype(name: str, place: Place, precision: str, is_base: bool = True) -> str:
    """The dtype in which a tensor is written. A base model's marker keys and schedules stay as they are."""
    is_weight = place.is_float and (part_of(name) is not None or not is_base)
    return PRECISIONS.get(precision, place.dtype) if is_weight else place.dtype


def in_dtype(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """The tensor, if its values can be written in a dtype. Raises RunFailed where that would make them infinite."""
    own = FILE_NAMES[str(tensor.dtype).removeprefix("torch.")]
    is_wider = _GREATEST.get(own, math.inf) > _GREATEST.get(dtype, math.inf)
    if is_wider and tensor.numel() and (size := _size(tensor)) != math.inf:
        _check_size(size, dtype, name)
    return tensor


def in_numbers(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    """The same of what was computed, which has to be numbers. Raises RunFailed where it is NaN or infinite too."""
    if tensor.numel():
        size = _size(tensor)
        if not math.isfinite(size):
            raise RunFailed(
                say("{name} would be no numbers (NaN or infinite): one of the files is damaged there.", name=name),
                say("Take another version of that file."),
            )
        _check_size(size, dtype, name)
    return tensor


def _size(tensor: torch.Tensor) -> float:
    """The greatest absolute value, NaN if there is one."""
    low, high = (float(value) for value in tensor.aminmax())
    return max(-low, high)


def _check_size(size: float, dtype: str, name: str) -> None:
    if size > _GREATEST.get(dtype, math.inf):
        raise RunFailed(
            say(
                "{name} has values up to {most}, too large for {dtype}.",
                name=name,
                most=f"{size:.4g}",
                dtype="fp16" if dtype == "F16" else "fp8",
            ),
            say("Write bf16 or fp32."),
        )


def copied(name: str, place: Place, precision: str, files: Files, is_base: bool = True) -> Row:
    """A row that writes a tensor as it is, or in another precision."""
    dtype = file_dtype(name, place, precision, is_base)
    return Row(name, place.shape, dtype, lambda: in_dtype(files.read(place), dtype, name))


def computed(name: str, place: Place, precision: str, give: Callable[[], torch.Tensor]) -> Row:
    """A row that writes what `give` computes, in the shape of `place`."""
    dtype = file_dtype(name, place, precision)
    return Row(name, place.shape, dtype, lambda: in_numbers(give(), dtype, name))


def write_model(path: Path, rows: Sequence[Row], metadata: Mapping[str, str], watch: Watch, source: Checkpoint) -> None:
    """Write a model file, and beside it what of its config a reader could not tell from it.

    Args:
        path: the file, its container told by its ending.
        rows, metadata: what is in it; only .safetensors holds metadata.
        watch: asked before every tensor.
        source: the model that gives the configs, and what it predicts.

    Raises OSError, RunFailed, Stopped, BadInput; `path` is then as it was.
    """
    is_ckpt = path.suffix.lower() == ".ckpt"
    entries = {} if is_ckpt else {**metadata, **_spec(source, metadata, path.stem)}
    rows = [*rows, *_markers(source, rows, entries)]
    beside = _notes_beside(path, _untold(source, rows, entries), source.path)
    if is_ckpt:
        from trainer.tools.torch_zip import write_ckpt

        write_ckpt(path, rows, watch)
    else:
        write_safetensors(path, rows, entries, watch)
    if beside:
        write_json(path.with_suffix(".json"), beside, indent=2)


def _spec(source: Checkpoint, metadata: Mapping[str, str], title: str) -> dict[str, str]:
    """What the header is to say of a base model where `metadata` does not: what it is, and what it predicts."""
    facts = source.facts
    if not _is_known(facts):
        return {}
    side = facts.native_resolution if facts.prediction else None  # of SD 2.x nobody knows the one without the other
    entries = saving.spec(title, architecture_of(facts), facts.prediction, f"{side}x{side}" if side else None)
    if "modelspec.architecture" not in entries:
        return {}
    says_so = predictions.said(metadata) == facts.prediction
    predicted = "modelspec.prediction_type"  # what another program called wrong is put right
    return {name: text for name, text in entries.items() if name not in metadata or (name == predicted and not says_so)}


def _markers(source: Checkpoint, rows: Sequence[Row], metadata: Mapping[str, str]) -> list[Row]:
    """Marker tensors for what a reader would not be told: zero terminal SNR; v-prediction, also where a config said it.

    Programs look for the latter's marker in families that mostly predict noise, and not into metadata.
    """
    facts, told = source.facts, _told(source, rows, metadata)
    if not _is_known(facts):
        return []
    names = [ZERO_SNR_MARKER] if facts.zero_snr and not told.zero_snr else []
    is_odd = facts.prediction_source == "config" and len(set(family_of(facts.family).architectures.values())) == 1
    if facts.prediction == "v_prediction" and (is_odd or told.prediction != "v_prediction"):
        names += [] if any(row.name == V_MARKER for row in rows) else [V_MARKER]
    return [Row(name, (0,), "F32", _nothing) for name in names]


def _untold(source: Checkpoint, rows: Sequence[Row], metadata: Mapping[str, str]) -> dict[str, Any]:
    """What of the parts' configs and of the prediction a reader could not tell from the file."""
    facts, configs = source.facts, dict(untold_configs(source))
    if _is_known(facts) and facts.prediction and _told(source, rows, metadata).prediction != facts.prediction:
        configs["model"] = {**configs.get("model", {}), "prediction": facts.prediction}
    return configs


def _is_known(facts: ModelFacts) -> bool:
    """Whether it is a base model of a family that trains here."""
    return facts.kind == "base" and facts.family in TRAINABLE


def _told(source: Checkpoint, rows: Sequence[Row], metadata: Mapping[str, str]) -> predictions.Told:
    """What a reader of a file with these tensors and entries would be told."""
    tensors = {row.name: TensorInfo(row.dtype, row.shape, 0, row.num_bytes) for row in rows}
    return predictions.tell(source.facts.family or "", Header(tensors, metadata, 0, 0), {})


def _nothing() -> torch.Tensor:
    import torch

    return torch.empty(0)


def _notes_beside(target: Path, configs: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """What `<stem>.json` is to hold: configs by part, and what is there (the WebUI keeps notes there); nothing if it stays.

    Raises BadInput for a file of that name which is something else.
    """
    found = {part: config for part, config in configs.items() if config}
    if not found or source.with_suffix("") == target.with_suffix(""):
        return {}
    beside = target.with_suffix(".json")
    try:
        notes = json.loads(beside.read_text(encoding="utf-8-sig")) if beside.exists() else {}
    except (OSError, ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise BadInput(
            say("{path} is in the way: it holds something else than notes on a model.", path=str(beside)),
            say("Move it away or choose another name."),
        )
    return {**notes, **found}
