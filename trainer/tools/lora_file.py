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
from trainer.messages import Message, say
from trainer.models.header import FAMILY_TITLES, TRAINABLE, ModelFacts, inspect_file
from trainer.models.lora_names import RANKED, Alphas, Speller, read_alphas, speller
from trainer.models.opening import shown
from trainer.models.safetensors_file import Header
from trainer.models.weights_file import read_header
from trainer.tools.catalog import LoraEntry
from trainer.tools.checkpoint import Checkpoint, family_of
from trainer.tools.deltas import ALPHA, BIASES, DORA, DOWN, ENDS, IA3_OUT, METHODS, MID, OFT_R, SWITCHES, UP, method_of
from trainer.tools.peft_config import FACTORS, add_settings
from trainer.tools.places import Files, Place
from trainer.tools.targets import unet_config_of

if TYPE_CHECKING:
    import torch

_BUNDLED = "bundle_emb."  # OneTrainer's and the WebUI's: embeddings in a LoRA's file
_IA3 = "weight"  # what other names end in too
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
        "addition_embed_type": "text_time",
    },
}
_USUAL_UNETS["sd2"] = _USUAL_UNETS["sd1"]


@dataclass(frozen=True)
class Layer:
    """One layer of a LoRA: its method (of `deltas.METHODS`) and its tensors by the end of their name."""

    method: str
    tensors: Mapping[str, Place]

    @property
    def changes_weight(self) -> bool:
        return self.method != "diff" or "diff" in self.tensors

    @property
    def changes_bias(self) -> bool:
        return any(end in self.tensors for end in BIASES)

    @property
    def scales_bias(self) -> bool:
        """Whether it multiplies the bias, if there is one."""
        return IA3_OUT in self.tensors

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
    """A LoRA: its layers by kohya's names in the file's order, its header's strings, and embeddings that lie beside."""

    path: Path
    facts: ModelFacts
    layers: Mapping[str, Layer]
    metadata: Mapping[str, str]
    embeddings: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """The dtype of most of its tensors ("F16")."""
        names = [place.dtype for layer in self.layers.values() for end, place in layer.tensors.items() if end != ALPHA]
        return max(sorted(set(names)), key=names.count)

    def read(self, name: str, files: Files) -> dict[str, torch.Tensor]:
        """A layer's tensors in float32. Raises BadInput where values are no numbers: nothing can be made of such a layer."""
        import torch

        tensors = {
            end: files.read(place, torch.float32).float() for end, place in self.layers[name].tensors.items()
        }
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise BadInput(
                say(
                    "The layer {name} of {path} holds values that are no numbers (NaN or infinite).",
                    name=name,
                    path=str(self.path),
                ),
                say("Its training went wrong before it was saved; take an earlier version of it."),
            )
        return tensors


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
    names = _speller(facts, model).of_parts(facts.adapter.parts if facts.adapter else ())
    grouped, strange = _grouped(facts.path, header, names)
    add_settings(facts.path, grouped, {names.layer(module): module for module in map(_module, header.tensors)})
    _add_alphas(grouped, read_alphas(facts.path, header.metadata, header.tensors, names))
    layers = {module: Layer(method_of(tensors) or "", tensors) for module, tensors in grouped.items()}
    strange += [f"{module}.{min(layer.tensors)}" for module, layer in layers.items() if not layer.method]
    if strange:
        raise BadInput(
            say(
                "{path} has {count} tensors of a kind that the tools do not know, for example {name}.",
                path=path,
                count=len(strange),
                name=strange[0],
            ),
            say("Known are LoRA (with convolutions, DoRA), LoHa, LoKr, IA3, GLoRA, OFT, BOFT and full differences."),
        )
    _check_whole(facts.path, layers)
    bundled = dict.fromkeys(name.split(".")[1] for name in header.tensors if name.startswith(_BUNDLED))
    return LoraFile(facts.path, facts, layers, header.metadata, tuple(bundled))


def _grouped(path: Path, header: Header, names: Speller) -> tuple[dict[str, dict[str, Place]], list[str]]:
    """The tensors by layer and end of name, and those that no name is known for. Raises BadInput if two have one name."""
    grouped: dict[str, dict[str, Place]] = {}
    strange = []
    for name, info in header.tensors.items():
        if name.startswith(_BUNDLED):
            continue
        module, end = _split(name, names)
        if end is None:
            strange.append(name)
            continue
        tensors = grouped.setdefault(module, {})
        if end in tensors:
            raise BadInput(
                say("{path} has the layer {name} more than once, in different spellings.", path=str(path), name=module)
            )
        column = (math.prod(info.shape), 1) if _MAGNITUDE.search(name) else None  # one length for each output
        tensors[end] = Place.of(path, info, column)
    return grouped, strange


def _check_whole(path: Path, layers: Mapping[str, Layer]) -> None:
    """Raise BadInput if layers lack tensors, or have some that fit no model of any size."""
    damages = {name: damage for name, layer in layers.items() if (damage := _damage(layer)) is not None}
    if damages:
        name, damage = next(iter(damages.items()))
        raise BadInput(
            say(
                "{count} of {total} layers of {path} are damaged, for example {name}: {reason}.",
                count=len(damages),
                total=len(layers),
                path=str(path),
                name=name,
                reason=damage,
            ),
            say("Download or copy it again."),
        )


def _damage(layer: Layer) -> Message | None:
    tensors = layer.tensors
    missing = [end for end in METHODS[layer.method].needed if end not in tensors]
    if missing:
        return say("it lacks {tensor}", tensor=missing[0])
    strange = [end for end, place in tensors.items() if not place.is_float and end not in SWITCHES]
    if strange:
        return say("{tensor} holds numbers of the kind {dtype}", tensor=strange[0], dtype=tensors[strange[0]].dtype)
    if any(tensors[end].num_items != 1 for end in SWITCHES if end in tensors):
        return say("its alpha is not one number")
    if layer.method == "lora" and not _are_factors(tensors):
        sizes = "; ".join(str(list(tensors[end].shape)) for end in (DOWN, MID, UP) if end in tensors)
        return say("its factors ({sizes}) do not fit each other", sizes=sizes)
    return None


def _are_factors(tensors: Mapping[str, Place]) -> bool:
    """Whether up, middle (Tucker's) and down of a plain layer can be multiplied."""
    up, down = tensors[UP].shape, tensors[DOWN].shape
    if min(len(up), len(down)) < 2 or 0 in (*up, *down):
        return False
    if MID not in tensors:
        return math.prod(up[1:]) == down[0]
    middle = tensors[MID].shape
    return len(middle) == 4 and middle[:2] == (math.prod(up[1:]), down[0]) and math.prod(down[2:]) == 1


def _speller(facts: ModelFacts, model: Checkpoint | None) -> Speller:
    """What translates the file's names to kohya's. A family's usual blocks stand in where no model is at hand."""
    family = model.facts.family if model is not None else facts.family
    if family not in TRAINABLE:
        return speller(None, ("lora_te", "lora_te2"), sai=False)
    known = family_of(family)
    config = unet_config_of(model) if model is not None else _USUAL_UNETS.get(family)
    return speller(config, tuple(encoder.lora for encoder in known.text_encoders), sai=known.sai_lora)


def _split(name: str, names: Speller) -> tuple[str, str | None]:
    """A tensor's layer by kohya's name, and the end of its name by kohya's or LyCORIS'; None if it is not known."""
    for count in (2, 1):
        module, end = _parted(name, count)
        if (end in ENDS and end != _IA3) or end == FACTORS:
            return names.layer(module), end
    if match := _MAGNITUDE.search(name):
        return names.layer(name[: match.start()]), DORA
    spelled = names.tensor(name)
    if spelled is None and (found := _parted(name, 1))[1] == _IA3:
        return names.layer(found[0]), _IA3
    return spelled or (name, None)


def _module(name: str) -> str:
    """The layer of one of PEFT's tensors, as the file calls it."""
    return next((name.removesuffix(f".{end}") for end in (FACTORS, OFT_R) if name.endswith(f".{end}")), name)


def _parted(name: str, count: int) -> tuple[str, str]:
    """A name without its last words, and so many of these."""
    words = name.split(".")
    return ".".join(words[:-count]), ".".join(words[-count:])


def _add_alphas(grouped: dict[str, dict[str, Place]], alphas: Alphas) -> None:
    """Give layers of a rank without an alpha of their own the one that the file's metadata has for them."""
    for name, tensors in grouped.items():
        ranks = [tensors[end].shape[0] for end in (DOWN, *RANKED) if end in tensors and tensors[end].shape]
        alpha = alphas.find(name, ranks[0]) if ranks and ALPHA not in tensors else None
        if alpha is not None:
            tensors[ALPHA] = Place.made((), "F32", partial(_scalar, alpha))


def _scalar(value: float) -> torch.Tensor:
    import torch

    return torch.tensor(value)


def open_loras(entries: Sequence[LoraEntry], model: Checkpoint | None = None) -> list[LoraFile]:
    """All LoRAs of a list, of one family as far as they say. Raises BadInput."""
    loras = [open_lora(entry.path, "LoRA", model) for entry in entries]
    known = {lora.path.name: lora.facts.family for lora in loras if lora.facts.family}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{name}: {FAMILY_TITLES.get(family or '', '?')}" for name, family in known.items())
        raise BadInput(say("The LoRAs are for different families ({listed}).", listed=listed))
    return loras


def left_out_embeddings(loras: Sequence[LoraFile]) -> tuple[Message, ...]:
    """That embeddings in the files have no place in what is made of them."""
    return tuple(
        say(
            "The embeddings in {name} were left out: {embeddings}.",
            name=lora.path.name,
            embeddings=shown(", ".join(lora.embeddings), 120),
        )
        for lora in loras
        if lora.embeddings
    )


def only_plain(lora: LoraFile) -> None:
    """Raise BadInput unless every layer is a product of two matrices and nothing else."""
    other = [name for name, layer in lora.layers.items() if not {DOWN, UP, MID, ALPHA} >= set(layer.tensors)]
    if other:
        raise BadInput(
            say(
                "{count} of {total} layers of {path} are not those of a plain LoRA, for example {name}.",
                count=len(other),
                total=len(lora.layers),
                path=str(lora.path),
                name=other[0],
            ),
            say(
                "LoHa, LoKr, DoRA, IA3, GLoRA, OFT, full differences and biases are no products of two matrices: merge it "
                "into its model (bake) and extract a LoRA of the result (extract)."
            ),
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
