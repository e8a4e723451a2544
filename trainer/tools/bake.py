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
from trainer.tools.checkpoint import (
    Checkpoint,
    architecture_of,
    check_numbers,
    left_out_averages,
    open_checkpoint,
    part_of,
)
from trainer.tools.deltas import DORA, DOWN, MID, UP
from trainer.tools.lora_file import Layer, LoraFile, left_out_embeddings, open_loras, weight_of
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
    lora: LoraFile
    target: Target
    weight: float

    @property
    def layer(self) -> Layer:
        return self.lora.layers[self.name]


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
        (*left_out_averages(model), *left_out_embeddings(loras), *_notes(changes, loras)),
        {"changed": num_changed, "tensors": len(rows)},
    )


def find_changes(model: Checkpoint, loras: Sequence[LoraFile], entries: Sequence[LoraEntry]) -> Changes:
    """Where each layer belongs. Raises BadInput if nothing of a LoRA does, or something has another size."""
    changes = Changes()
    targets = targets_by_name(model)
    for lora, entry in zip(loras, entries, strict=True):
        _same_family(model, lora)
        homeless = []
        for name in lora.layers:
            target = targets.get(name)
            change = Change(name, lora, target, weight_of(entry, target.part)) if target is not None else None
            if change is None or not _place(model, change, changes):
                homeless.append(name)
        if len(homeless) == len(lora.layers):
            raise BadInput(
                say(
                    "None of the {count} layers of {path} has a place in the model, for example {name}.",
                    count=len(lora.layers),
                    path=str(lora.path),
                    name=homeless[0] if homeless else "?",
                )
            )
        homeless += [f"{name} (bias)" for name in _without_bias(model, lora, targets)]
        if homeless:
            changes.homeless[lora.path] = homeless
    return changes


def _without_bias(model: Checkpoint, lora: LoraFile, targets: Mapping[str, Target]) -> Iterator[str]:
    """The layers of which the model has the weight, but not the bias that they change too."""
    for name, layer in lora.layers.items():
        if layer.changes_weight and layer.changes_bias and name in targets and targets[name].bias not in model.places:
            yield name


def _place(model: Checkpoint, change: Change, changes: Changes) -> bool:
    """Add a layer's change to all; False if the model has not what it changes. Raises BadInput if it has another size."""
    _check_size(model, change)
    layer, target = change.layer, change.target
    has_bias = (layer.changes_bias or layer.scales_bias) and target.bias in model.places
    if change.weight and layer.changes_weight:
        changes.weights.setdefault(target.weight, []).append(change)
    if change.weight and has_bias:
        changes.biases.setdefault(target.bias, []).append(change)
    return layer.changes_weight or has_bias


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
    check_numbers(model, change.target.weight)
    if change.layer.method != "lora":
        return
    tensors, shape = change.layer.tensors, _shape(model, change.target)
    up, down = tensors[UP].shape, tensors[DOWN].shape
    row = math.prod(down[1:]) * math.prod(tensors[MID].shape[2:] if MID in tensors else ())
    if up[0] != shape[0] or row != math.prod(shape[1:]):
        raise _misfit(change, f"{list(down)}, {list(up)}", shape)


def _misfit(change: Change, given: str, shape: tuple[int, ...]) -> BadInput:
    return BadInput(
        say(
            "The layer {name} of {path} ({given}) does not fit the model's weight of {shape}.",
            name=change.name,
            path=str(change.lora.path),
            given=given,
            shape=" × ".join(map(str, shape)),
        ),
        say("It was made for a model of other sizes."),
    )


def _incomplete(change: Change, tensor: str) -> BadInput:
    return BadInput(
        say(
            "The layer {name} of {path} is damaged: it lacks {tensor}.",
            name=change.name,
            path=str(change.lora.path),
            tensor=tensor,
        )
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

    tensor = files.read(model.places[name], torch.float32).float()
    for change in changes.weights.get(name, ()):
        _add(_own_rows(tensor, change.target), change, files)
    for change in changes.biases.get(name, ()):
        from trainer.tools.deltas import bias_delta

        bias = _own_rows(tensor, change.target)
        addition = bias_delta(change.lora.read(change.name, files), bias)
        if addition is None or addition.numel() != bias.numel():
            raise _misfit(change, str(None if addition is None else list(addition.shape)), tuple(bias.shape))
        bias.add_(addition.reshape(bias.shape), alpha=change.weight)
    return tensor


def _own_rows(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """What of a tensor that several layers may share is the target's."""
    return tensor if target.stop is None else tensor[target.start : target.stop]


def _add(weight: torch.Tensor, change: Change, files: Files) -> None:
    """Add a layer's change to a weight in place; methods that depend on the weight find it as the LoRAs before left it."""
    from trainer.tools import deltas

    tensors, method = change.lora.read(change.name, files), change.layer.method
    if method == "lora" and DORA not in tensors and MID not in tensors:
        up, down, _ = deltas.factors(tensors)
        weight.flatten(1).addmm_(up, down, alpha=change.weight * deltas.scale(tensors, down.shape[0]))
        return
    try:
        addition = deltas.delta(method, tensors, weight)
    except KeyError as error:
        raise _incomplete(change, str(error.args[0])) from error
    except deltas.MISFITS as error:
        raise _misfit(change, method, tuple(weight.shape)) from error
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
