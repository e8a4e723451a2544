"""Reads a LoRA that training is to go on from, whoever wrote it, under kohya's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models.lora_begin import read_beginning
from trainer.models.lora_layers import UNET_PREFIX
from trainer.models.lora_names import ALPHA, DOWN
from trainer.models.protocol import Components, Family
from trainer.models.tensor_file import read_tensor


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
    try:
        found, alphas = read_beginning(path, family.name, family.lora_speller(components))
    except BadInput as error:
        what = say("Training cannot go on from {path}: {problem}", path=str(path), problem=error.what)
        raise BadInput(what, error.todo) from error
    with path.open("rb", buffering=0) as handle:
        tensors = {name: read_tensor(handle, info, torch.float32) for name, info in found.items()}
    for name in sorted({name.split(".")[0] for name in tensors}):
        alpha = alphas.find(name, len(tensors[f"{name}.{DOWN}"]))
        if f"{name}.{ALPHA}" not in tensors and alpha is not None:
            tensors[f"{name}.{ALPHA}"] = torch.tensor(alpha)
    return BegunLora(path, tensors)
