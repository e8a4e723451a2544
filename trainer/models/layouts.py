"""Recognises what a set of tensor names and shapes is: signs in a table, most telling first. No torch, no weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.messages import Message, say
from trainer.models import adapter_layouts, configs
from trainer.models.adapter_layouts import Adapter
from trainer.models.configs import Rules, Shapes
from trainer.models.folder_files import weight_files as weight_files
from trainer.models.keys import (
    LDM_CLIP,
    LDM_CLIP_SHORT,
    LDM_EMA,
    LDM_OPEN_CLIP,
    LDM_UNET,
    LDM_VAE,
    SDXL_CLIP,
    SDXL_OPEN_CLIP,
    plain_names,
)

REFINER_OPEN_CLIP = "conditioner.embedders.0.model."


@dataclass(frozen=True)
class Found:
    """What tensors look like.

    Attributes:
        kind: see `header.Kind`.
        family: as far as it can be told.
        parts: of a base model those present; of an adapter those that it changes.
        in_channels: of a UNet.
        latent_channels: of a VAE.
        name: of a stranger: what it is called ("Stable Cascade"); of a folder: the class that it names.
        averaged: whether the averaged weights (EMA) of the UNet are in it too.
        adapter: of an adapter.
        vectors: of an embedding, how many.
        prediction, zero_snr, native_resolution: what the configs of a folder say.
        lacks: what is missing in a folder.
    """

    kind: Any
    family: str | None = None
    parts: frozenset[str] = frozenset()
    in_channels: int | None = None
    latent_channels: int | None = None
    name: str = ""
    averaged: bool = False
    adapter: Adapter | None = None
    vectors: int | None = None
    prediction: str | None = None
    zero_snr: bool | None = None
    native_resolution: int | None = None
    lacks: Message | None = None


Names = Mapping[str, tuple[int, ...]]
_Make = Callable[[Shapes, Mapping[str, str]], Found]


def recognise(shapes: Names, metadata: Mapping[str, str]) -> Found:
    """What a single file holds; kind "unknown" if no row of the table fits."""
    for test, make in _ROWS:
        if test(shapes):
            return make(shapes, metadata)
    return Found("unknown")


def strip(shapes: Names, prefix: str) -> dict[str, tuple[int, ...]]:
    """The tensors under a prefix, without it."""
    return {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}


def clip_prefix(shapes: Names) -> str | None:
    """Under which prefix a file keeps its CLIP-L text encoder (SD 1.x has two ways), None if it has none."""
    for prefix in (LDM_CLIP, LDM_CLIP_SHORT, SDXL_CLIP):
        if f"{prefix}embeddings.token_embedding.weight" in shapes:
            return prefix
    return None


def check_whole(shapes: Names, found: Found) -> None:
    """Raise UnknownLayout where the parts that are present are not laid out as those of its family."""
    rules = Rules()
    if not _has_unet(shapes):
        shapes = _with_unet(shapes)
    try:
        if "unet" in found.parts:
            configs.unet_config(strip(shapes, LDM_UNET), rules)
        if f"{LDM_VAE}encoder.conv_in.weight" in shapes:
            configs.vae_config(strip(shapes, LDM_VAE), rules)
        prefix = clip_prefix(shapes)
        if prefix is not None:
            configs.clip_config(strip(shapes, prefix), rules)
        for prefix in (LDM_OPEN_CLIP, SDXL_OPEN_CLIP):
            if prefix + _OPEN_CLIP_SIGN in shapes:
                configs.open_clip_config(strip(shapes, prefix), rules)
    except configs.UnknownLayout:
        raise
    except (ValueError, TypeError, LookupError, ZeroDivisionError, OverflowError, MemoryError) as error:
        raise configs.UnknownLayout(say("the sizes of its tensors do not fit each other")) from error


# --- tests of rows ---


def _any(*fragments: str) -> Callable[[Shapes], bool]:
    """A test: each of the fragments stands in some name."""
    return lambda shapes: all(any(fragment in name for name in shapes) for fragment in fragments)


def _starts(*prefixes: str) -> Callable[[Shapes], bool]:
    """A test: some name begins with one of the prefixes."""
    return lambda shapes: any(name.startswith(prefixes) for name in shapes)


def _has(*names: str) -> Callable[[Shapes], bool]:
    """A test: all of the names are there."""
    return lambda shapes: all(name in shapes for name in names)


def _kind(kind: str, family: str | None = None, name: str = "", parts: tuple[str, ...] = ()) -> _Make:
    return lambda shapes, metadata: Found(kind, family, frozenset(parts), name=name)


# --- adapters, embeddings, hypernetworks ---


def _adapter(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    adapter = adapter_layouts.recognise(shapes, metadata)
    return Found("lora", adapter.family, adapter.parts, adapter=adapter)


_EMBEDDING_NAMES = {"emb_params", "clip_l", "clip_g", "*", "emp_params", "emp_params_out", "t5_out", "t5"}


def _is_embedding(shapes: Shapes) -> bool:
    if not shapes or len(shapes) > 8 or any(not 1 <= len(shape) <= 2 for shape in shapes.values()):
        return False
    return all(name in _EMBEDDING_NAMES or "string_to_param" in name or _is_token(name) for name in shapes)


def _is_token(name: str) -> bool:
    """Whether a tensor is named as diffusers names a learnt word: <cat>."""
    return name.startswith("<") and name.endswith(">")


def _embedding(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    shape = next(iter(shapes.values()))
    vectors = shape[0] if len(shape) == 2 else 1
    if "clip_g" in shapes:
        return Found("embedding", "sdxl", vectors=vectors)
    return Found("embedding", {768: "sd1", 1024: "sd2"}.get(shape[-1]), vectors=vectors)


_HYPERNETWORK = re.compile(r"\d+\.[01]\.linear\d?\.")


def _is_hypernetwork(shapes: Shapes) -> bool:
    return any(_HYPERNETWORK.match(name) for name in shapes)


def _hypernetwork(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    sizes = {name.split(".")[0] for name in shapes}
    return Found("hypernetwork", "sd1" if "768" in sizes else "sd2" if "1024" in sizes else None)


def _is_aesthetic(shapes: Shapes) -> bool:
    return set(shapes) == {"tensor"} and shapes["tensor"][-1:] in ((768,), (1024,)) and len(shapes["tensor"]) <= 2


# --- VAEs and base models ---


def _is_vae(shapes: Shapes) -> bool:
    bare = {name.removeprefix(LDM_VAE) for name in shapes}
    return {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= bare and not _has_unet(shapes)


def _vae(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    shape = next(shape for name, shape in shapes.items() if name.endswith("decoder.conv_in.weight"))
    return Found("vae", None, frozenset({"vae"}), latent_channels=_at(shape, 1))


def _at(shape: tuple[int, ...], place: int) -> int:
    """A size of a shape, 0 where it has fewer."""
    return shape[place] if len(shape) > place else 0


def _has_unet(shapes: Shapes) -> bool:
    return f"{LDM_UNET}input_blocks.0.0.weight" in shapes


def _unet_base(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    """A checkpoint with an LDM UNet: SD 1, SD 2, SDXL or its refiner, told by layout and never by width."""
    family = _ldm_family(shapes)
    found = Found("base", family, _ldm_parts(shapes, family))
    name = next((title for sign, title in _UNET_STRANGERS if sign in shapes), "")
    if not name and family == "sdxl" and _is_distilled(shapes):
        name = DISTILLED_SDXL
    channels = _at(shapes[f"{LDM_UNET}input_blocks.0.0.weight"], 1)
    averaged = any(key.startswith(LDM_EMA) for key in shapes)
    return Found("base", None if name else found.family, found.parts, channels, name=name, averaged=averaged)


def _is_distilled(shapes: Shapes) -> bool:
    """Whether a UNet has transformers, but none in its middle."""
    deep = [name for name in shapes if name.startswith(LDM_UNET) and ".transformer_blocks." in name]
    return bool(deep) and not any(name.startswith(f"{LDM_UNET}middle_block.1.") for name in deep)


DISTILLED_SDXL = "distilled SDXL (SSD-1B, Vega, KOALA)"
_UNET_STRANGERS = (
    (f"{LDM_UNET}input_blocks.1.0.time_stack.in_layers.0.weight", "Stable Video Diffusion"),
    ("noise_augmentor.data_mean", "Stable Diffusion 2.x unCLIP"),
    (f"{LDM_UNET}label_emb.weight", "Stable Diffusion x4 upscaler"),
)


def _ldm_family(shapes: Shapes) -> str:
    if _starts("conditioner.embedders.1.")(shapes):
        return "sdxl"
    if _starts(REFINER_OPEN_CLIP)(shapes):
        return "sdxl_refiner"
    label = shapes.get(f"{LDM_UNET}label_emb.0.0.weight")
    context = shapes.get(f"{LDM_UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight", ())
    if label is not None:
        return "sdxl_refiner" if _at(label, 1) == _at(context, 1) + 5 * 256 else "sdxl"
    projections = (
        shape for name, shape in shapes.items() if name.startswith(LDM_UNET) and name.endswith("1.proj_in.weight")
    )
    return "sd1" if len(next(projections, ())) == 4 else "sd2"


def _ldm_parts(shapes: Shapes, family: str) -> frozenset[str]:
    """The parts that an LDM file holds; a text encoder counts only in its family's own form."""
    parts = {"unet"}
    if f"{LDM_VAE}encoder.conv_in.weight" in shapes and f"{LDM_VAE}decoder.conv_in.weight" in shapes:
        parts.add("vae")
    for part, signs in _TEXT_SIGNS.get(family, {}).items():
        if any(sign in shapes for sign in signs):
            parts.add(part)
    return frozenset(parts)


_CLIP_SIGN, _OPEN_CLIP_SIGN = "embeddings.token_embedding.weight", "token_embedding.weight"
_TEXT_SIGNS: dict[str, dict[str, tuple[str, ...]]] = {
    "sd1": {"text_encoder": (LDM_CLIP + _CLIP_SIGN, LDM_CLIP_SHORT + _CLIP_SIGN)},
    "sd2": {"text_encoder": (LDM_OPEN_CLIP + _OPEN_CLIP_SIGN,)},
    "sdxl": {"text_encoder": (SDXL_CLIP + _CLIP_SIGN,), "text_encoder_2": (SDXL_OPEN_CLIP + _OPEN_CLIP_SIGN,)},
    "sdxl_refiner": {"text_encoder_2": (REFINER_OPEN_CLIP + _OPEN_CLIP_SIGN,)},
}


def unet_names(names: Collection[str]) -> dict[str, str]:
    """Names that stand for the UNet's own → its own; none where a file has these.

    A UNet alone lacks the level that checkpoints have above it; a model may have averaged weights alone.
    """
    if f"{LDM_UNET}input_blocks.0.0.weight" in names:
        return {}
    for prefix in ("diffusion_model.", ""):
        if f"{prefix}input_blocks.0.0.weight" in names:
            return {name: LDM_UNET + name[len(prefix) :] for name in names if name.startswith(prefix)}
    return plain_names(name for name in names if name.startswith(LDM_EMA))


def _with_unet(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes, those that stand for the UNet's own under its names too."""
    return {**shapes, **{new: shapes[name] for name, new in unet_names(shapes).items()}}


def _other_unet(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    return _unet_base(_with_unet(shapes), metadata)


def _library_unet(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    """The UNet of a diffusers folder, taken out of it."""
    family: str | None
    if any(name.startswith("encoder_hid_proj.") for name in shapes):
        family = None  # Kolors, Kandinsky, DeepFloyd IF: other text encoders
    elif "add_embedding.linear_1.weight" in shapes:
        family = "sdxl"
    else:
        proj_in = next((shape for name, shape in shapes.items() if name.endswith("attentions.0.proj_in.weight")), ())
        family = "sd1" if len(proj_in) == 4 else "sd2"
    return Found("part", family, frozenset({"unet"}), _at(shapes["conv_in.weight"], 1), name="unet")


_CLIP_NAMES = {768: "CLIP-L", 1024: "OpenCLIP-H", 1280: "OpenCLIP-bigG"}


def _text_encoder(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    widths = [shape[-1] for name, shape in shapes.items() if name.endswith("token_embedding.weight") and shape]
    return Found(
        "text_encoder", None, frozenset({"text_encoder"}), name=_CLIP_NAMES.get(widths[0] if widths else 0, "")
    )


_ROWS: tuple[tuple[Callable[[Shapes], bool], _Make], ...] = (
    (_any("lllite_"), _kind("controlnet")),
    (_starts("lora_controlnet"), _kind("controlnet")),
    (_any("motion_modules."), _kind("adapter", name="AnimateDiff")),
    (_starts("ip_adapter.", "image_proj."), _kind("adapter", name="IP-Adapter")),
    (adapter_layouts.is_adapter, _adapter),
    (_starts("control_model."), _kind("controlnet")),
    (_any("controlnet_cond_embedding"), _kind("controlnet")),
    (_any("input_hint_block"), _kind("controlnet")),
    (_any("controlnet_blocks."), _kind("controlnet")),
    (_any("body.0.block1."), _kind("adapter", name="T2I-Adapter")),
    (_any("body.0.resnets.0.block1."), _kind("adapter", name="T2I-Adapter")),
    (_is_hypernetwork, _hypernetwork),
    (_any("double_blocks.0.img_attn", "distilled_guidance_layer"), _kind("base", None, "Chroma")),
    (_any("double_blocks.0.img_attn", "txt_in.individual_token_refiner"), _kind("base", None, "HunyuanVideo")),
    (_any("double_blocks.0.img_attn"), _kind("base", "flux")),
    (_any("single_transformer_blocks.", "transformer_blocks.0.norm1_context"), _kind("base", "flux")),
    (_any("joint_blocks."), _kind("base", "sd3")),
    (_any("transformer_blocks.0.norm1_context"), _kind("base", "sd3")),
    (_any("double_layers.0.attn.w1q"), _kind("base", None, "AuraFlow")),
    (_any("transformer_blocks.0.img_mod.1"), _kind("base", None, "Qwen-Image")),
    (_any("clip_txt_mapper"), _kind("base", None, "Stable Cascade")),
    (_any("effnet_mapper"), _kind("base", None, "Stable Cascade")),
    (_any("adaln_single.emb.", "patchify_proj."), _kind("base", None, "LTX-Video")),
    (_any("adaln_single.emb."), _kind("base", None, "PixArt")),
    (_any("t_block.1.weight", "y_embedder."), _kind("base", None, "PixArt")),
    (_any("mlp_t5.0.weight"), _kind("base", None, "HunyuanDiT")),
    (_any("cap_embedder.", "layers.0.attention."), _kind("base", None, "Lumina")),
    (_any("blocks.0.self_attn.norm_q", "head.modulation"), _kind("base", None, "Wan")),
    (_any("blocks.0.attn1.norm_q", "condition_embedder.time_embedder"), _kind("base", None, "Wan")),
    (_has_unet, _unet_base),
    (_has("model_ema.diffusion_modelinput_blocks00weight"), _other_unet),
    (_has("input_blocks.0.0.weight"), _other_unet),
    (_has("diffusion_model.input_blocks.0.0.weight"), _other_unet),
    (_has("conv_in.weight", "time_embedding.linear_1.weight"), _library_unet),
    (_is_vae, _vae),
    (_has("1.weight", "3.conv.0.weight"), _kind("stranger", name="TAESD")),
    (_is_embedding, _embedding),
    (_is_aesthetic, _kind("aesthetic")),
    (_any("rdb1.conv1"), _kind("upscaler")),
    (_any("RDB1.conv1"), _kind("upscaler")),
    (_any("relative_position_bias_table"), _kind("upscaler")),
    (_any("stylegan_decoder"), _kind("stranger", name="GFPGAN")),
    (_has("quantize.embedding.weight", "position_emb"), _kind("stranger", name="CodeFormer")),
    (_any("visual_encoder.", "text_decoder."), _kind("stranger", name="BLIP")),
    (_has("n_Conv_0.weight"), _kind("stranger", name="DeepDanbooru")),
    (_any("vision_model.", "concept_embeds"), _kind("stranger", name="Safety checker")),
    (_any("vision_model.encoder.", "text_model.encoder."), _kind("stranger", name="CLIP")),
    (_any("visual.transformer.", "transformer.resblocks."), _kind("stranger", name="CLIP")),
    (_starts("vision_model.", "visual."), _kind("stranger", name="CLIP vision")),
    (_starts("text_model.encoder.", "text_model.embeddings."), _text_encoder),
    (_any("SelfAttention.relative_attention_bias"), _kind("text_encoder", name="T5")),
    (_starts("transformer.resblocks."), _text_encoder),
)
