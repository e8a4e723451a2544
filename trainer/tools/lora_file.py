"""A LoRA file as tools see it: its layers by kohya's names, each with its tensors and its method. No torch at import."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models.header import FAMILY_TITLES, TRAINABLE, ModelFacts, inspect_file
from trainer.models.lora_names import Alphas, Speller, read_alphas, speller
from trainer.models.weights_file import read_header
from trainer.tools.catalog import LoraEntry
from trainer.tools.checkpoint import Checkpoint, family_of
from trainer.tools.places import Files, Place
from trainer.tools.targets import unet_config_of

if TYPE_CHECKING:
    import torch

DOWN, UP, MID, ALPHA, DORA = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale"
_METHODS = {  # the tensor by which a layer's method is told
    DOWN: "lora",
    "hada_w1_a": "loha",
    "lokr_w1": "lokr",
    "lokr_w1_a": "lokr",
    "diff": "diff",
    "w_norm": "norm",
    "diff_b": "diff",
}
_ENDS = (
    DOWN, UP, MID, ALPHA, DORA, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "diff", "diff_b",
    "w_norm", "b_norm", "bias",
)  # fmt: skip
_MAGNITUDE = re.compile(r"\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?$")  # PEFT's word for DoRA's
_USUAL_UNETS: dict[str, dict[str, Any]] = {  # what names depend on, as all published models of the families have it
    "sd1": {
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "sdxl": {
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
    },
}
_USUAL_UNETS["sd2"] = _USUAL_UNETS["sd1"]


@dataclass(frozen=True)
class Layer:
    """One layer of a LoRA: the method ("lora", "loha", "lokr", "diff", "norm") and its tensors by the end of their name."""

    method: str
    tensors: Mapping[str, Place]

    def read(self, files: Files) -> dict[str, torch.Tensor]:
        """Its tensors in float32."""
        import torch

        return {end: files.read(place, torch.float32) for end, place in self.tensors.items()}

    @property
    def rank(self) -> int:
        """Of a "lora" layer."""
        return self.tensors[DOWN].shape[0]

    @property
    def is_convolution(self) -> bool:
        """Whether it is a "lora" layer of a kernel wider than 1×1."""
        return any(size > 1 for part in (DOWN, MID) if part in self.tensors for size in self.tensors[part].shape[2:])


@dataclass(frozen=True)
class LoraFile:
    """A LoRA: its layers by kohya's names in the file's order, and its header's strings."""

    path: Path
    facts: ModelFacts
    layers: Mapping[str, Layer]
    metadata: Mapping[str, str]

    @property
    def dtype(self) -> str:
        """The dtype of most of its tensors ("F16")."""
        names = [place.dtype for layer in self.layers.values() for end, place in layer.tensors.items() if end != ALPHA]
        return max(sorted(set(names)), key=names.count)


def open_lora(path: str, what: str, model: Checkpoint | None = None) -> LoraFile:
    """Read the header of a LoRA, in whose names ever: kohya's, diffusers', PEFT's, OneTrainer's.

    Args:
        path: the file.
        what: the setting's label, for sentences.
        model: the one that it is for, if it is at hand: it knows the names of its layers best.

    Raises BadInput if it is something else, damaged, of a method that no tool knows, or has tensors without a meaning.
    """
    facts = inspect_file(Path(path))
    if facts.kind != "lora":
        reason = facts.problem if facts.kind in ("missing", "broken", "pickle") and facts.problem else facts.summary
        raise BadInput(say("{what}: a LoRA is needed, {path} is none. {reason}", what=what, path=path, reason=reason))
    header = read_header(facts.path)
    names = _speller(facts, model)
    grouped: dict[str, dict[str, Place]] = {}
    strange = []
    for name, info in header.tensors.items():
        module, end = _split(name, names)
        if end is None:
            strange.append(name)
            continue
        column = (math.prod(info.shape), 1) if _MAGNITUDE.search(name) else None  # one length for each output
        grouped.setdefault(module, {})[end] = Place.of(facts.path, info, column)
    _add_alphas(grouped, read_alphas(facts.path, header.metadata, names))
    layers = {module: Layer(_method(tensors), tensors) for module, tensors in grouped.items()}
    strange += [module for module, layer in layers.items() if not layer.method]
    if strange:
        raise BadInput(
            say(
                "{path} has {count} tensors of a kind that the tools do not know, for example {name}.",
                path=path,
                count=len(strange),
                name=strange[0],
            ),
            say("Known are LoRA (with convolutions, DoRA), LoHa, LoKr and full differences."),
        )
    return LoraFile(facts.path, facts, layers, header.metadata)


def _speller(facts: ModelFacts, model: Checkpoint | None) -> Speller:
    """What translates the file's names to kohya's. A family's usual blocks stand in where no model is at hand."""
    family = model.facts.family if model is not None else facts.family
    if family not in TRAINABLE:
        return speller(None, (), sai=False)
    known = family_of(family)
    config = unet_config_of(model) if model is not None else _USUAL_UNETS.get(family)
    return speller(config, tuple(encoder.lora for encoder in known.text_encoders), sai=known.sai_lora)


def _split(name: str, names: Speller) -> tuple[str, str | None]:
    """A tensor's layer by kohya's name, and the end of its name by kohya's or LyCORIS'; None if it is not known."""
    for end in _ENDS:
        if name.endswith(f".{end}"):
            return names.layer(name[: -len(end) - 1]), end
    if match := _MAGNITUDE.search(name):
        return names.layer(name[: match.start()]), DORA
    return names.tensor(name) or (name, None)


def _add_alphas(grouped: dict[str, dict[str, Place]], alphas: Alphas) -> None:
    """Give plain layers without an alpha of their own the one that the file's metadata has for them."""
    for name, tensors in grouped.items():
        alpha = alphas.find(name, tensors[DOWN].shape[0]) if DOWN in tensors and ALPHA not in tensors else None
        if alpha is not None:
            tensors[ALPHA] = Place.made((), "F32", partial(_scalar, alpha))


def _scalar(value: float) -> torch.Tensor:
    import torch

    return torch.tensor(value)


def _method(tensors: Mapping[str, Place]) -> str:
    method = next((method for end, method in _METHODS.items() if end in tensors), "")
    if method == "lora" and UP not in tensors:
        return ""
    return method


def open_loras(entries: Sequence[LoraEntry], model: Checkpoint | None = None) -> list[LoraFile]:
    """All LoRAs of a list, of one family as far as they say. Raises BadInput."""
    loras = [open_lora(entry.path, "LoRA", model) for entry in entries]
    known = {lora.path.name: lora.facts.family for lora in loras if lora.facts.family}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{name}: {FAMILY_TITLES.get(family or '', '?')}" for name, family in known.items())
        raise BadInput(say("The LoRAs are for different families ({listed}).", listed=listed))
    return loras


def only_plain(lora: LoraFile) -> None:
    """Raise BadInput unless every layer is a product of two matrices: LoHa, LoKr and DoRA are none."""
    other = [name for name, layer in lora.layers.items() if layer.method != "lora" or DORA in layer.tensors]
    if other:
        raise BadInput(
            say(
                "{count} of {total} layers of {path} are not those of a plain LoRA, for example {name}.",
                count=len(other),
                total=len(lora.layers),
                path=str(lora.path),
                name=other[0],
            ),
            say("LoHa, LoKr, DoRA and full differences can be merged into a model (bake) only."),
        )


def weight_of(entry: LoraEntry, part: str) -> float:
    """How strongly a LoRA counts in a part of the model."""
    if part == "unet":
        return entry.weight if entry.unet is None else entry.unet
    first = entry.weight if entry.text_encoder is None else entry.text_encoder
    return entry.text_encoder_2 if part == "text_encoder_2" and entry.text_encoder_2 is not None else first


def part_of_layer(name: str) -> str:
    """The part of the model that a layer belongs to by kohya's name."""
    if name.startswith("lora_te2_"):
        return "text_encoder_2"
    return "text_encoder" if name.startswith("lora_te") else "unet"
