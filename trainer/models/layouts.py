"""Recognises what a set of tensor names and shapes is: signs in a table, most telling first. No torch, no weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.messages import Message, say
from trainer.models import configs
from trainer.models.configs import Rules, Shapes
from trainer.models.keys import LDM_CLIP, LDM_CLIP_SHORT, LDM_UNET, LDM_VAE
from trainer.models.safetensors_file import NotSafetensors, read_header


@dataclass(frozen=True)
class Found:
    """What tensors look like; of a folder, also the `name` that it gives itself and what it `lacks`."""

    kind: Any
    family: str | None = None
    parts: frozenset[str] = frozenset()
    in_channels: int | None = None
    latent_channels: int | None = None
    prediction: str | None = None
    native_resolution: int | None = None
    name: str = ""
    lacks: Message | None = None


Names = Mapping[str, tuple[int, ...]]


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
    """Under which of its two prefixes a file of SD 1.x keeps the text encoder, None if it has none."""
    for prefix in (LDM_CLIP, LDM_CLIP_SHORT):
        if f"{prefix}embeddings.token_embedding.weight" in shapes:
            return prefix
    return None


def check_sd1(shapes: Names, found: Found) -> None:
    """Raise UnknownLayout where the parts that are present are not laid out as those of SD 1.x."""
    rules = Rules()
    if "unet" in found.parts:
        configs.unet_config(strip(shapes, LDM_UNET), rules)
    if "vae" in found.parts:
        configs.vae_config(strip(shapes, LDM_VAE), rules)
    prefix = clip_prefix(shapes)
    if prefix is not None:
        configs.clip_config(strip(shapes, prefix), rules)


def _any(*fragments: str) -> Callable[[Shapes], bool]:
    """A test: each of the fragments stands in some name."""
    return lambda shapes: all(any(fragment in name for name in shapes) for fragment in fragments)


def _starts(*prefixes: str) -> Callable[[Shapes], bool]:
    """A test: some name begins with one of the prefixes."""
    return lambda shapes: any(name.startswith(prefixes) for name in shapes)


def _kind(kind: str, family: str | None = None) -> Callable[[Shapes, Mapping[str, str]], Found]:
    return lambda shapes, metadata: Found(kind, family)


_LORA_ENDS = (
    ".lora_down.weight", ".lora_up.weight", ".lora_A.weight", ".lora_B.weight", ".lora.down.weight", ".lora.up.weight",
    ".lora_A.default.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".oft_blocks",
    ".oft_diag", ".dora_scale", ".ia3.weight",
)  # fmt: skip


def _is_lora(shapes: Shapes) -> bool:
    return any(name.endswith(_LORA_ENDS) for name in shapes) or _starts("lora_unet_", "lora_te", "lycoris_")(shapes)


def _lora(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    return Found("lora", _lora_family(shapes, metadata))


def _lora_family(shapes: Shapes, metadata: Mapping[str, str]) -> str | None:
    """By what the file says of itself, then by its names, then by the shape of proj_in."""
    said = metadata.get("modelspec.architecture", "") + " " + metadata.get("ss_base_model_version", "")
    for sign, family in _LORA_SIGNS:
        if sign in said:
            return family
    if _any("lora_te2_")(shapes) or _any("input_blocks_4_1_")(shapes) or _any("text_encoder_2.")(shapes):
        return "sdxl"
    if _any("single_blocks")(shapes) or _any("single_transformer_blocks")(shapes):
        return "flux"
    if _any("joint_blocks")(shapes):
        return "sd3"
    if not (_starts("lora_unet_", "lora_te", "unet.", "text_encoder.", "lycoris_")(shapes)):
        return None
    return _lora_generation(shapes)


_LORA_SIGNS = (
    ("stable-diffusion-xl", "sdxl"), ("sdxl_", "sdxl"), ("stable-diffusion-v1", "sd1"), ("sd_v1", "sd1"),
    ("stable-diffusion-v2", "sd2"), ("sd_v2", "sd2"), ("stable-diffusion-3", "sd3"), ("flux-1", "flux"), ("flux1", "flux"),
)  # fmt: skip


def _lora_generation(shapes: Shapes) -> str:
    """SD 1 or 2 by layout (proj_in is a 1×1 convolution in SD 1), by the count of text layers where that is missing."""
    for name, shape in shapes.items():
        if "proj_in" in name and ("down" in name.rsplit("proj_in", 1)[1] or name.endswith("lora_A.weight")):
            return "sd1" if len(shape) == 4 else "sd2"
    deep = any(f"layers_{layer}_" in name for layer in range(12, 24) for name in shapes)
    wide = any("attn2_to_k" in name and "down" in name and shape[-1] == 1024 for name, shape in shapes.items())
    return "sd2" if deep or wide else "sd1"


def _is_embedding(shapes: Shapes) -> bool:
    small = len(shapes) <= 4 and all(len(shape) == 2 for shape in shapes.values())
    return small and any(
        name in ("emb_params", "clip_l", "clip_g", "*") or "string_to_param" in name for name in shapes
    )


def _embedding(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    if "clip_g" in shapes:
        return Found("embedding", "sdxl")
    widths = {768: "sd1", 1024: "sd2"}
    return Found("embedding", widths.get(next(iter(shapes.values()))[-1]))


def _is_vae(shapes: Shapes) -> bool:
    bare = {name.removeprefix(LDM_VAE) for name in shapes}
    return {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= bare and not _has_unet(shapes)


def _vae(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    shape = next(shape for name, shape in shapes.items() if name.endswith("decoder.conv_in.weight"))
    return Found("vae", None, frozenset({"vae"}), latent_channels=shape[1])


def _has_unet(shapes: Shapes) -> bool:
    return f"{LDM_UNET}input_blocks.0.0.weight" in shapes


def _unet_base(shapes: Shapes, metadata: Mapping[str, str]) -> Found:
    """A checkpoint with an LDM UNet: SD 1, SD 2, SDXL or its refiner, told by layout and never by width."""
    parts = {"unet"} | ({"vae"} if _starts(LDM_VAE)(shapes) else set())
    proj_in = next(
        (shape for name, shape in shapes.items() if name.startswith(LDM_UNET) and name.endswith("1.proj_in.weight")), ()
    )
    if _starts("conditioner.embedders.1.")(shapes):
        family = "sdxl"
    elif _starts("conditioner.embedders.0.model.")(shapes):
        family = "sdxl_refiner"
    elif f"{LDM_UNET}label_emb.0.0.weight" in shapes:
        family = "sdxl"
    else:
        family = "sd1" if len(proj_in) == 4 else "sd2"
    if clip_prefix(shapes) or _starts("cond_stage_model.", "conditioner.embedders.")(shapes):
        parts.add("text_encoder")
    if family == "sd1" and clip_prefix(shapes) is None:
        parts.discard("text_encoder")
    return Found("base", family, frozenset(parts), in_channels=shapes[f"{LDM_UNET}input_blocks.0.0.weight"][1])


_ROWS: tuple[tuple[Callable[[Shapes], bool], Callable[[Shapes, Mapping[str, str]], Found]], ...] = (
    (_any("lllite_"), _kind("controlnet")),
    (_is_lora, _lora),
    (_starts("control_model."), _kind("controlnet")),
    (_any("controlnet_cond_embedding"), _kind("controlnet")),
    (_any("input_hint_block"), _kind("controlnet")),
    (_any("controlnet_blocks."), _kind("controlnet")),
    (_any("motion_modules."), _kind("adapter")),
    (_starts("ip_adapter.", "image_proj."), _kind("adapter")),
    (_any("body.0.block1."), _kind("adapter")),
    (_any("double_blocks.0.img_attn"), _kind("base", "flux")),
    (_any("single_transformer_blocks.", "transformer_blocks.0.norm1_context"), _kind("base", "flux")),
    (_any("joint_blocks."), _kind("base", "sd3")),
    (_any("transformer_blocks.0.norm1_context"), _kind("base", "sd3")),
    (_has_unet, _unet_base),
    (_is_vae, _vae),
    (_is_embedding, _embedding),
    (_any("rdb1.conv1"), _kind("upscaler")),
    (_any("RDB1.conv1"), _kind("upscaler")),
    (_any("relative_position_bias_table"), _kind("upscaler")),
    (_starts("text_model.encoder."), _kind("text_encoder")),
    (_any("SelfAttention.relative_attention_bias"), _kind("text_encoder")),
    (_starts("transformer.resblocks."), _kind("text_encoder")),
)


_PIPELINES = (
    ("StableDiffusionXLImg2Img", "sdxl_refiner"), ("StableDiffusionXL", "sdxl"), ("StableDiffusion3", "sd3"),
    ("Flux", "flux"), ("StableDiffusion", "sd1"),
)  # fmt: skip


def recognise_folder(folder: Path) -> Found | None:
    """What a diffusers folder holds, None if it is none. Raises OSError and what `json` raises for broken configs."""
    if not (folder / "model_index.json").is_file():
        return _vae_folder(folder)
    name = str(_json(folder / "model_index.json").get("_class_name", "?"))
    family = next((family for sign, family in _PIPELINES if name.startswith(sign)), None)
    if family != "sd1":
        return Found("base", family, name=name)
    unet = _json(folder / "unet/config.json") if (folder / "unet/config.json").is_file() else {}
    if unet.get("use_linear_projection"):
        return Found("base", "sd2")
    parts = frozenset(part for part in ("unet", "vae", "text_encoder") if (folder / part / "config.json").is_file())
    lacks = next((text for part in sorted(parts) if (text := _weights_missing(folder / part))), None)
    scheduler = folder / "scheduler/scheduler_config.json"
    prediction = _json(scheduler).get("prediction_type", "epsilon") if scheduler.is_file() else "epsilon"
    resolution = 8 * unet["sample_size"] if isinstance(unet.get("sample_size"), int) else 512
    return Found("base", "sd1", parts, unet.get("in_channels", 4), None, prediction, resolution, name, lacks)


def _vae_folder(folder: Path) -> Found | None:
    config = folder / "config.json"
    if not config.is_file() or _json(config).get("_class_name") != "AutoencoderKL":
        return None
    return Found("vae", None, frozenset({"vae"}), latent_channels=int(_json(config).get("latent_channels", 4)))


def _weights_missing(folder: Path) -> Message | None:
    """What is wrong with the weights of one part, None if nothing is."""
    files = weight_files(folder)
    if not files:
        return say("{folder}/ has no .safetensors weights", folder=folder.name)
    for path in files:
        try:
            read_header(path)
        except NotSafetensors as error:
            return say("{file}: {reason}", file=f"{folder.name}/{path.name}", reason=error.why)
    return None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part of a diffusers folder: the full version if present, else fp16; shards together."""
    found = sorted(folder.glob("*.safetensors"))
    full = [path for path in found if ".fp16" not in path.name and "non_ema" not in path.name]
    whole = [path for path in full or found if "-of-" not in path.name]
    return whole[:1] or (full or found)


def _json(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(data, dict):
        raise TypeError(f"{path.name} is not a table")
    return data
