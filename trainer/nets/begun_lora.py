"""Reads a LoRA that training is to go on from, whoever wrote it, under kohya's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models.header import inspect_file, lora_problem
from trainer.models.lora_layers import UNET_PREFIX
from trainer.models.lora_names import ALPHA, DOWN, UP, Speller, read_alphas
from trainer.models.protocol import Components, Family
from trainer.models.safetensors_file import Header
from trainer.models.tensor_file import read_tensor
from trainer.models.weights_file import read_header

PLAIN = ("lora", "locon")  # products of two matrices, with convolutions or without


@dataclass(frozen=True)
class BegunLora:
    """A LoRA file's weights: `NAME.lora_down.weight`, `NAME.lora_up.weight` and `NAME.alpha` for each layer."""

    path: Path
    tensors: Mapping[str, Tensor]

    @property
    def layers(self) -> frozenset[str]:
        return frozenset(name.split(".")[0] for name in self.tensors)

    def goes_beyond(self, targets: Mapping[str, object]) -> bool:
        """Whether it has layers of the UNet that are not among these."""
        return any(name.startswith(UNET_PREFIX) and name not in targets for name in self.layers)


def read_begun(path: Path, components: Components, family: Family) -> BegunLora:
    """Read a LoRA for this model. Raises BadInput if it is none, of another family or kind, or has what none has."""
    facts = inspect_file(path)
    problem = lora_problem(facts, family.name)
    says_nothing = facts.kind == "lora" and facts.family is None  # then its names and sizes must fit, as always
    if problem is not None and not says_nothing:
        raise _refused(path, problem)
    method = facts.adapter.method if facts.adapter else "lora"
    if method not in PLAIN:
        raise _refused(
            path,
            say("It is a LoRA of the kind {kind}; only plain ones (with convolutions too) can be continued.", kind=method),
        )
    speller = family.lora_speller(components)
    header = read_header(path)
    tensors = _translated(path, header, speller)
    alphas = read_alphas(path, header.metadata, header.tensors, speller)
    for name in sorted({name.split(".")[0] for name in tensors}):
        alpha = alphas.find(name, len(tensors[f"{name}.{DOWN}"]))
        if f"{name}.{ALPHA}" not in tensors and alpha is not None:
            tensors[f"{name}.{ALPHA}"] = torch.tensor(alpha)
    return BegunLora(path, tensors)


def _translated(path: Path, header: Header, speller: Speller) -> dict[str, Tensor]:
    """The tensors under kohya's names, in float32."""
    found: dict[str, Tensor] = {}
    strangers, twice = [], []
    with path.open("rb", buffering=0) as handle:
        for name, info in header.tensors.items():
            spelled = speller.tensor(name)
            if spelled is None:
                strangers.append(name)
                continue
            new = ".".join(spelled)
            if new in found:
                twice.append(name)
            found[new] = read_tensor(handle, info, torch.float32)
    if strangers or twice:
        raise _strange(path, strangers or twice, len(header.tensors))
    _check_pairs(path, found)
    return found


def _check_pairs(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise BadInput for a layer with one of its two matrices only."""
    ends: dict[str, set[str]] = {}
    for name in tensors:
        layer, _, end = name.partition(".")
        ends.setdefault(layer, set()).add(end)
    halves = [layer for layer, have in ends.items() if not {DOWN, UP} <= have]
    if halves:
        raise _strange(path, halves, len(ends))


def _strange(path: Path, names: list[str], total: int) -> BadInput:
    return _refused(
        path,
        say(
            "{count} of its {total} entries are none of a plain LoRA, or only half of one, for example {name}.",
            count=len(names),
            total=total,
            name=names[0],
        ),
    )


def _refused(path: Path, problem: Message) -> BadInput:
    return BadInput(say("Training cannot go on from {path}: {problem}", path=str(path), problem=problem))
