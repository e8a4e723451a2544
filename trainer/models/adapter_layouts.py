"""Tells adapters (LoRA and its kin) apart by names and shapes of tensors: method, spelling, rank, family. No torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainer.models import foreign_json

Shapes = Mapping[str, tuple[int, ...]]

# The tensor by which a layer's method is told, most telling first.
_METHODS = (
    (".hada_w1_a", "loha"), (".lokr_w1", "lokr"), (".lokr_w1_a", "lokr"), (".lokr_w2", "lokr"), (".lokr_w2_a", "lokr"),
    (".on_input", "ia3"), (".ia3.weight", "ia3"), (".ia3_l", "ia3"), (".oft_blocks", "oft"), (".oft_diag", "oft"),
    (".oft_R.weight", "oft"), (".oft_r", "oft"), (".a1.weight", "glora"), (".dora_scale", "dora"),
    (".lora_magnitude_vector", "dora"), (".lora_magnitude_vector.weight", "dora"), (".lora_down.weight", "lora"),
    (".lora_A.weight", "lora"), (".lora_A.default.weight", "lora"), (".lora.down.weight", "lora"),
    ("_lora.down.weight", "lora"), (".lora_linear_layer.down.weight", "lora"), (".diff", "full"), (".diff_b", "full"),
    (".w_norm", "norm"),
)  # fmt: skip
_TELLING = tuple(ending for ending, method in _METHODS if method not in ("full", "glora", "norm"))  # in any file
_DOWN = (
    ".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", "_lora.down.weight",
    ".lora_linear_layer.down.weight",
)  # fmt: skip
_RANK_IN_ROWS = (*_DOWN, ".hada_w1_b", ".lokr_w1_b", ".lokr_w2_b", ".a2.weight", ".b2.weight")
_PREFIXES = ("lora_unet_", "lora_te", "lycoris_", "lora_unet.")
_SIGNS = (  # what metadata says of the base, most telling first
    ("stable-diffusion-xl-v1-refiner", "sdxl_refiner"), ("stable-diffusion-xl", "sdxl"), ("sdxl_", "sdxl"),
    ("stable-diffusion-v1", "sd1"), ("sd_v1", "sd1"), ("stable-diffusion-v2", "sd2"), ("sd_v2", "sd2"),
    ("stable-diffusion-3", "sd3"), ("sd3", "sd3"), ("flux-1", "flux"), ("flux1", "flux"),
)  # fmt: skip
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of the text states that the UNet attends to
_CROSS_KEYS = ("attn2_to_k", "attn2.to_k", "attn2.processor.to_k")
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
_WRAPPED_TEXT = (  # a text encoder alone, as PEFT and LyCORIS' own wrapper name it: which one, only its width can tell
    "base_model.model.text_model", "base_model.model.encoder.layers", "lycoris_text_model", "lycoris_encoder_layers",
)  # fmt: skip
_SECOND_WIDTH = 1280  # of SDXL's second text encoder
_DEEPER = re.compile(r"transformer_blocks_[1-9]")
_LATER_LAYER = re.compile(r"layers_(1[2-9]|2\d)_")


@dataclass(frozen=True)
class Adapter:
    """What an adapter is.

    Attributes:
        method: "lora", "locon" (with convolutions), "dora", "loha", "lokr", "ia3", "dylora", "glora", "oft", "boft",
            "full" (whole differences), "norm".
        spelling: whose names it has: "kohya", "sai" (kohya's with SDXL's original UNet names), "diffusers", "peft",
            "onetrainer", "lycoris" (its own wrapper's); None for others.
        family: what it was made for, None if it doesn't say.
        parts: what it changes, of "unet", "text_encoder", "text_encoder_2", "transformer".
        ranks: those that occur, most frequent first; empty for methods without one.
        alpha: as its metadata says, None if they don't.
        num_layers: how many layers it changes.
    """

    method: str
    spelling: str | None
    family: str | None
    parts: frozenset[str]
    ranks: tuple[int, ...]
    alpha: float | None
    num_layers: int


def is_adapter(shapes: Shapes) -> bool:
    """Whether the tensors are those of a LoRA or one of its kin."""
    return any(name.endswith(_TELLING) or name.startswith(_PREFIXES) for name in shapes)


def recognise(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter:
    """What an adapter is, of which `is_adapter` is true."""
    flat = [name.replace(".", "_") for name in shapes]
    return Adapter(
        _method(shapes, metadata),
        _spelling(shapes),
        _family(shapes, flat, metadata),
        _parts(shapes),
        _ranks(shapes),
        _alpha(metadata),
        len({layer for name in shapes if (layer := _layer(name)) is not None}),
    )


def _layer(name: str) -> str | None:
    return next((name[: -len(ending)] for ending, _ in _METHODS if name.endswith(ending)), None)


def _method(shapes: Shapes, metadata: Mapping[str, str]) -> str:
    said = metadata.get("ss_network_args", "") + metadata.get("ss_network_module", "")
    if "dylora" in said:
        return "dylora"
    ends = {ending for name in shapes for ending, _ in _METHODS if name.endswith(ending)}
    method = next((method for ending, method in _METHODS if ending in ends), "lora")
    if method == "oft":
        wide = any(name.endswith(".oft_blocks") and len(shape) == 4 for name, shape in shapes.items())
        return "boft" if wide else "oft"
    if method == "lora" and any(_is_kernel(name, shape) for name, shape in shapes.items()):
        return "locon"
    return method


def _is_kernel(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith((*_DOWN, ".lora_mid.weight")) and len(shape) == 4 and max(shape[2:]) > 1


def _spelling(shapes: Shapes) -> str | None:
    names = list(shapes)
    if _starts(names, "base_model.model."):
        return "peft"
    if _starts(names, "lora_unet.", "lora_te.", "lora_te1.", "lora_te2.", "clip_l.", "clip_g."):
        return "onetrainer"
    if _starts(names, "lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_"):
        return "sai"
    if _starts(names, "lora_unet_", "lora_te", "oft_unet_"):
        return "kohya"
    if _starts(names, "lycoris_"):
        return "lycoris"
    if _starts(names, "unet.", "text_encoder.", "text_encoder_2.", "transformer.", *_bare("")):
        return "diffusers"
    return None


def _parts(shapes: Shapes) -> frozenset[str]:
    signs = {
        "unet": ("lora_unet", "unet.", "base_model.model.down_blocks", "base_model.model.up_blocks",
                 "base_model.model.mid_block", "lycoris_unet", "oft_unet", *_bare("lycoris_"), *_bare("")),
        "text_encoder": ("lora_te_", "lora_te1", "lora_te.", "text_encoder.", "clip_l."),
        "text_encoder_2": ("lora_te2", "text_encoder_2.", "clip_g."),
        "transformer": ("transformer.", "diffusion_model."),
    }  # fmt: skip
    wrapped = "text_encoder_2" if _text_width(shapes) == _SECOND_WIDTH else "text_encoder"
    signs[wrapped] += _WRAPPED_TEXT
    return frozenset(part for part, prefixes in signs.items() if _starts(shapes, *prefixes))


def _bare(prefix: str) -> tuple[str, ...]:
    """What the UNet's layers begin with where no word says that they are its."""
    return tuple(f"{prefix}{side}" for side in ("down_blocks", "mid_block", "up_blocks"))


def _ranks(shapes: Shapes) -> tuple[int, ...]:
    counts = Counter(shape[0] for name, shape in shapes.items() if name.endswith(_RANK_IN_ROWS) and shape)
    return tuple(rank for rank, _ in counts.most_common(16))


def _alpha(metadata: Mapping[str, str]) -> float | None:
    """kohya's ss_network_alpha, or PEFT's lora_alpha in what diffusers writes."""
    try:
        if "ss_network_alpha" in metadata:
            found = [metadata["ss_network_alpha"]]
        else:
            said = foreign_json.parse(metadata.get("lora_adapter_metadata", "{}"))
            found = [value for key, value in said.items() if key.endswith("lora_alpha")]
        alpha = float(found[0]) if found else math.nan
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
    return alpha if math.isfinite(alpha) else None


def _family(shapes: Shapes, flat: list[str], metadata: Mapping[str, str]) -> str | None:
    """By what the file says of itself, then by its names, then by the shapes of the tensors that tell."""
    said = " ".join(metadata.get(f"{key}", "") for key in ("modelspec.architecture", "ss_base_model_version"))
    for sign, family in _SIGNS:
        if sign in said:
            return family
    if _any(flat, "double_blocks_", "single_blocks_", "single_transformer_blocks_"):
        return "flux"
    if _any(flat, "joint_blocks_", "attn_add_q_proj"):
        return "sd3"
    if _starts(shapes, "lora_te2", "text_encoder_2.", "clip_g.") or _any(flat, "input_blocks_4_1_", "middle_block_1_"):
        return "sdxl"
    if _starts(shapes, "lora_te1"):
        return "sdxl"
    if _starts(shapes, *_WRAPPED_TEXT):  # CLIP-L is in SD 1.x and in SDXL
        width = _text_width(shapes)
        return None if width == 768 else _TEXT_WIDTHS.get(width)
    if not _any(flat, "lora_unet_", "lora_te_", "unet_", "text_encoder_", "text_model_", *_bare("")):
        return None
    return _by_layout(shapes, flat)


def _by_layout(shapes: Shapes, flat: list[str]) -> str | None:
    """SD 1, 2 or SDXL under diffusers' names: proj_in is a 1×1 convolution in SD 1, SDXL has deeper transformers."""
    if _any(flat, "down_blocks_", "up_blocks_", "mid_block_") and any(_DEEPER.search(name) for name in flat):
        return "sdxl"
    for name, shape in shapes.items():
        if "proj_in" in name and name.endswith(_DOWN):
            return "sd1" if len(shape) == 4 else "sd2"
    for name, shape in shapes.items():
        if _any((name,), *_CROSS_KEYS) and name.endswith((*_DOWN, ".hada_w1_b")) and shape:
            return _WIDTHS.get(shape[-1], "sd1")
    if any(_LATER_LAYER.search(name) for name in flat):
        return "sd2"
    return _TEXT_WIDTHS.get(_text_width(shapes), "sd1")


def _text_width(shapes: Shapes) -> int:
    """What the narrowest of the text encoders' attentions takes, as far as factors tell it."""
    widths = {shape[-1] for name, shape in shapes.items() if name.endswith(_DOWN) and "q_proj" in name and shape}
    return min(widths, default=768)


def _starts(names: Iterable[str], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in names)


def _any(names: Iterable[str], *fragments: str) -> bool:
    return any(fragment in name for name in names for fragment in fragments)
