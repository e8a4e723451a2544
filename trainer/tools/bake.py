"""Writes a model that has LoRAs built in: each weight plus what the LoRAs add to it, computed in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models.header import FAMILY_TITLES
from trainer.tools import provenance
from trainer.tools.catalog import BakeSettings, LoraEntry
from trainer.tools.checkpoint import Checkpoint, architecture_of, open_checkpoint, part_of
from trainer.tools.lora_file import Layer, LoraFile, open_loras, weight_of
from trainer.tools.model_out import MODEL_SUFFIXES, computed, copied, write_model
from trainer.tools.output import Row, check_output
from trainer.tools.places import Files
from trainer.tools.targets import Target, targets_by_name
from trainer.tools.watch import Result, Watch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Change:
    """What one layer of a LoRA adds to a tensor: at which rows, and how strongly."""

    name: str
    layer: Layer
    target: Target
    weight: float
    lora: Path


@dataclass
class Changes:
    """All changes by LDM tensor name, and by LoRA the layers that have no place in the model."""

    weights: dict[str, list[Change]] = field(default_factory=dict)
    biases: dict[str, list[Change]] = field(default_factory=dict)
    homeless: dict[Path, list[str]] = field(default_factory=dict)


def run(settings: BakeSettings, watch: Watch) -> Result:
    """Write the model. Raises BadInput if a LoRA is for another family or of other sizes."""
    model = open_checkpoint(settings.model, "Model")
    loras = open_loras(settings.loras, model)
    output = Path(settings.output)
    check_output(output, [model.path, *(lora.path for lora in loras)], MODEL_SUFFIXES, settings.overwrite)
    changes = find_changes(model, loras, settings.loras)
    with Files() as files:
        rows = list(_rows(model, changes, settings.precision, files))
        write_model(output, rows, _metadata(model, loras, settings), watch, model)
    num_changed = len(changes.weights)
    return Result(
        say("{count} weights changed, written to {path}.", count=num_changed, path=str(output)),
        (output,),
        tuple(_notes(changes, loras)),
        {"changed": num_changed, "tensors": len(rows)},
    )


def find_changes(model: Checkpoint, loras: Sequence[LoraFile], entries: Sequence[LoraEntry]) -> Changes:
    """Where each layer belongs. Raises BadInput if nothing of a LoRA does, or something has another size."""
    changes = Changes()
    targets = targets_by_name(model)
    for lora, entry in zip(loras, entries, strict=True):
        _same_family(model, lora)
        for name, layer in lora.layers.items():
            target = targets.get(name)
            if target is None:
                changes.homeless.setdefault(lora.path, []).append(name)
                continue
            change = Change(name, layer, target, weight_of(entry, target.part), lora.path)
            _check_size(model, change)
            if change.weight == 0:
                continue
            if layer.method != "diff" or "diff" in layer.tensors:
                changes.weights.setdefault(target.weight, []).append(change)
            if "diff_b" in layer.tensors or "b_norm" in layer.tensors:
                changes.biases.setdefault(target.bias, []).append(change)
        if len(changes.homeless.get(lora.path, ())) == len(lora.layers):
            raise BadInput(
                say(
                    "None of the {count} layers of {path} has a place in the model, for example {name}.",
                    count=len(lora.layers),
                    path=str(lora.path),
                    name=next(iter(lora.layers), "?"),
                )
            )
    return changes


def _same_family(model: Checkpoint, lora: LoraFile) -> None:
    family, wanted = lora.facts.family, model.facts.family
    if family is not None and wanted is not None and family != wanted:
        raise BadInput(
            say(
                "{path} is a LoRA for {family}, the model is {wanted}.",
                path=str(lora.path),
                family=FAMILY_TITLES.get(family, family),
                wanted=FAMILY_TITLES.get(wanted, wanted),
            )
        )


def _check_size(model: Checkpoint, change: Change) -> None:
    """Raise BadInput if a plain LoRA's layer is too wide or too narrow for its weight; other methods show when computed."""
    if change.layer.method != "lora":
        return
    tensors, shape = change.layer.tensors, _shape(model, change.target)
    up, down = tensors["lora_up.weight"].shape, tensors["lora_down.weight"].shape
    middle = tensors["lora_mid.weight"].shape[2:] if "lora_mid.weight" in tensors else ()
    row = math.prod(down[1:]) * math.prod(middle)
    if up[0] != shape[0] or row != math.prod(shape[1:]) or math.prod(up[1:]) != (down[0]):
        raise _misfit(change, f"{list(down)}, {list(up)}", shape)


def _misfit(change: Change, given: str, shape: tuple[int, ...]) -> BadInput:
    return BadInput(
        say(
            "The layer {name} of {path} ({given}) does not fit the model's weight of {shape}.",
            name=change.name,
            path=str(change.lora),
            given=given,
            shape=" × ".join(map(str, shape)),
        ),
        say("It was made for a model of other sizes."),
    )


def _shape(model: Checkpoint, target: Target) -> tuple[int, ...]:
    shape = model.places[target.weight].shape
    return shape if target.stop is None else (target.stop - target.start, *shape[1:])


def _rows(model: Checkpoint, changes: Changes, precision: str, files: Files) -> Iterator[Row]:
    for name, place in model.places.items():
        if part_of(name) == "ema":
            continue  # they know nothing of the LoRA
        if name in changes.weights or name in changes.biases:
            yield computed(name, place, precision, lambda name=name: changed(model, name, changes, files))  # type: ignore[misc]
        else:
            yield copied(name, place, precision, files)


def changed(model: Checkpoint, name: str, changes: Changes, files: Files) -> torch.Tensor:
    """A tensor of the model with everything added that LoRAs add to it, float32. Raises BadInput if one does not fit."""
    import torch

    weight = files.read(model.places[name], torch.float32)
    for change in changes.weights.get(name, ()):
        rows = weight if change.target.stop is None else weight[change.target.start : change.target.stop]
        _add(rows, change, files)
    for change in changes.biases.get(name, ()):
        from trainer.tools.deltas import bias_delta

        addition = bias_delta(change.layer.read(files))
        if addition is None or addition.numel() != weight.numel():
            raise _misfit(change, str(None if addition is None else list(addition.shape)), tuple(weight.shape))
        weight.add_(addition.reshape(weight.shape), alpha=change.weight)
    return weight


def _add(weight: torch.Tensor, change: Change, files: Files) -> None:
    """Add a layer's change to a weight (or to its rows of one) in place; DoRA's is measured on the weight as it is."""
    from trainer.tools import deltas

    tensors = change.layer.read(files)
    if change.layer.method == "lora" and not deltas.is_decomposed(tensors) and "lora_mid.weight" not in tensors:
        up, down, _ = deltas.factors(tensors)
        weight.flatten(1).addmm_(up, down, alpha=change.weight * deltas.scale(tensors, down.shape[0]))
        return
    try:
        addition = deltas.delta(change.layer, tensors, tuple(weight.shape))
    except (ValueError, RuntimeError, KeyError) as error:
        raise _misfit(change, change.layer.method, tuple(weight.shape)) from error
    if deltas.is_decomposed(tensors):
        addition = deltas.decomposed(weight, addition, tensors["dora_scale"])
    weight.add_(addition, alpha=change.weight)


def _metadata(model: Checkpoint, loras: Sequence[LoraFile], settings: BakeSettings) -> Mapping[str, str]:
    inputs = {"Model": model.path} | {f"LoRA {number}": lora.path for number, lora in enumerate(loras, 1)}
    return provenance.of_model(
        model.metadata, architecture_of(model.facts), Path(settings.output), "bake", inputs,
        weights=provenance.weights(settings.loras), precision=settings.precision,
    )  # fmt: skip


def _notes(changes: Changes, loras: Sequence[LoraFile]) -> Iterator[Message]:
    for lora in loras:
        homeless = changes.homeless.get(lora.path)
        if homeless:
            yield say(
                "{count} of {total} layers of {name} have no place in the model and were left out, for example {layer}.",
                count=len(homeless),
                total=len(lora.layers),
                name=lora.path.name,
                layer=homeless[0],
            )
