"""Where in a model the layers lie that LoRA files name: kohya's name → LDM tensor. Needs names and shapes only, no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models import configs, keys, layouts
from trainer.models.configs import Rules, Shapes, UnknownLayout
from trainer.models.header import TRAINABLE
from trainer.models.lora_layers import text_layers, unet_layers
from trainer.tools.checkpoint import Checkpoint, family_of, part_of

_CLIP = re.compile(r"(?P<prefix>.+?)transformer\.(?P<path>text_model\..+)\.weight")
_OPEN_CLIP = re.compile(r"(?P<prefix>.+?)model\.transformer\.resblocks\.(?P<layer>\d+)\.(?P<path>.+)")
_OPEN_CLIP_MODULES = {
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
}


@dataclass(frozen=True)
class Target:
    """A layer of a model.

    Attributes:
        part: "unet", "text_encoder", "text_encoder_2".
        weight, bias: LDM names of its tensors (the bias may not be there).
        start, stop: its rows, where several layers share one tensor; stop is None for a layer with its own.
        in_resnet: whether a plain LoRA leaves it out, and one with convolutions does not.
    """

    part: str
    weight: str
    bias: str
    start: int = 0
    stop: int | None = None
    in_resnet: bool = False


def targets_by_name(model: Checkpoint) -> dict[str, Target]:
    """Every layer of the model by every name that files have for it: diffusers' and SAI's, te and te1."""
    found: dict[str, Target] = {}
    for ldm, diffusers, target in _unet_layers(model.shapes):
        found[_flat("lora_unet", diffusers)] = target
        found.setdefault(_flat("lora_unet", ldm), target)
    for path, target in _text_layers(model.shapes):
        for prefix in ("lora_te", "lora_te1") if target.part == "text_encoder" else ("lora_te2",):
            found[_flat(prefix, path)] = target
    return found


def lora_layers(model: Checkpoint) -> dict[str, Target]:
    """The layers that a LoRA acts on by the name that kohya's programs write for the model's family, in file order.

    Raises BadInput for a family that is not trained here.
    """
    if model.facts.family not in TRAINABLE:
        raise BadInput(say("What a LoRA for this model is called is not known. {summary}", summary=model.facts.summary))
    family, shapes, known = family_of(model.facts.family), model.shapes, targets_by_name(model)
    names: list[str] = []
    for encoder in family.text_encoders:
        prefix = encoder.prefix_in(shapes)
        if prefix is not None:
            names += text_layers(encoder.config(layouts.strip(shapes, prefix), family.rules), encoder.lora)
    found = {name: known[name] for name in names if name in known}
    config = _unet_config(shapes)
    if config is not None:
        plain = unet_layers(config, sai=family.sai_lora)
        every = unet_layers(config, sai=family.sai_lora, convolutions=True)
        found |= {name: replace(known[name], in_resnet=name not in plain) for name in every if name in known}
    return found


def _flat(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"


def _unet_layers(shapes: Shapes) -> Iterator[tuple[str, str, Target]]:
    """LDM module name, diffusers module name and target of everything in the UNet that has a weight."""
    config = _unet_config(shapes)
    for ldm, diffusers in keys.unet_modules(config).items() if config is not None else ():
        weight, bias = f"{keys.LDM_UNET}{ldm}.weight", f"{keys.LDM_UNET}{ldm}.bias"
        if weight in shapes:
            yield ldm, diffusers, Target("unet", weight, bias)


def unet_config_of(model: Checkpoint) -> configs.Config | None:
    """The model's UNet as far as the names of its layers need it, None if it has none of this kind."""
    return _unet_config(model.shapes)


def _unet_config(shapes: Shapes) -> configs.Config | None:
    """The UNet's config as far as its names need it, None if there is none of this kind."""
    try:
        return configs.unet_config(layouts.strip(shapes, keys.LDM_UNET), Rules())
    except UnknownLayout:
        return None


def _text_layers(shapes: Shapes) -> Iterator[tuple[str, Target]]:
    """Path as kohya's names have it (`text_model.encoder.layers.0.…`) and target of each layer of the text encoders."""
    for name, shape in shapes.items():
        part = part_of(name)
        if part not in ("text_encoder", "text_encoder_2"):
            continue
        if clip := _CLIP.fullmatch(name):
            yield clip["path"], Target(part, name, name.removesuffix("weight") + "bias")
        elif layer := _OPEN_CLIP.fullmatch(name):
            yield from _open_clip_layers(part, name, layer, shape)


def _open_clip_layers(
    part: str, name: str, found: re.Match[str], shape: tuple[int, ...]
) -> Iterator[tuple[str, Target]]:
    path = f"text_model.encoder.layers.{found['layer']}"
    if found["path"] == "attn.in_proj_weight":
        rows = shape[0] // 3
        bias = name.removesuffix("weight") + "bias"
        for number, letter in enumerate("qkv"):
            target = Target(part, name, bias, rows * number, rows * (number + 1))
            yield f"{path}.self_attn.{letter}_proj", target
        return
    module, _, last = found["path"].rpartition(".")
    if last == "weight" and module in _OPEN_CLIP_MODULES:
        yield f"{path}.{_OPEN_CLIP_MODULES[module]}", Target(part, name, name.removesuffix("weight") + "bias")
