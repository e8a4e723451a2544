"""The names that tensors have in LDM files and in kohya's, generated from the counts of a model's config.

File names come from these tables, never from the module paths of today's libraries: transformers 5 has dropped the
`text_model` level that every file carries, and diffusers has renamed the VAE's attention. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Config = Mapping[str, Any]

LDM_UNET = "model.diffusion_model."
LDM_VAE = "first_stage_model."
LDM_CLIP = "cond_stage_model.transformer.text_model."
LDM_CLIP_SHORT = "cond_stage_model.transformer."  # some early anime models lack the text_model level
LDM_OPEN_CLIP = "cond_stage_model.model."  # SD 2.x
SDXL_CLIP = "conditioner.embedders.0.transformer.text_model."
SDXL_OPEN_CLIP = "conditioner.embedders.1.model."
LDM_EMA = "model_ema."  # averaged weights of the UNet, beside it or in its place

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
TRANSFORMER_LINEARS = (
    *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
CLIP_LINEARS = (*(f"self_attn.{name}_proj" for name in "qkv"), "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def has_attention(block_type: str) -> bool:
    """Whether a UNet block of this diffusers type holds transformers ("CrossAttnDownBlock2D")."""
    return block_type.startswith("CrossAttn")


def transformer_depths(config: Config) -> list[int]:
    """Transformer blocks in each attention of each level, from the top level down."""
    depth = config.get("transformer_layers_per_block", 1)
    return [depth] * len(config["block_out_channels"]) if isinstance(depth, int) else list(depth)


def unet_modules(config: Config) -> dict[str, str]:
    """LDM module name → diffusers module name of a UNet (both without prefix). Optional shortcuts are included."""
    table = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    if config.get("addition_embed_type") == "text_time":
        table |= {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    depths = transformer_depths(config)
    for level in range(levels):
        for layer in range(layers):
            source, target = f"input_blocks.{level * (layers + 1) + layer + 1}", f"down_blocks.{level}"
            table.update(_resnet(f"{source}.0", f"{target}.resnets.{layer}"))
            if has_attention(config["down_block_types"][level]):
                table.update(_transformer(f"{source}.1", f"{target}.attentions.{layer}", depths[level]))
        if level < levels - 1:
            table[f"input_blocks.{(level + 1) * (layers + 1)}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    table.update(_resnet("middle_block.0", "mid_block.resnets.0"))
    table.update(_transformer("middle_block.1", "mid_block.attentions.0", depths[-1]))
    table.update(_resnet("middle_block.2", "mid_block.resnets.1"))
    table.update(_up_modules(config, depths[::-1]))
    return table


def _up_modules(config: Config, depths: list[int]) -> dict[str, str]:
    table: dict[str, str] = {}
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"] + 1
    for level in range(levels):
        attends = has_attention(config["up_block_types"][level])
        for layer in range(layers):
            source, target = f"output_blocks.{level * layers + layer}", f"up_blocks.{level}"
            table.update(_resnet(f"{source}.0", f"{target}.resnets.{layer}"))
            if attends:
                table.update(_transformer(f"{source}.1", f"{target}.attentions.{layer}", depths[level]))
        if level < levels - 1:
            last = f"output_blocks.{(level + 1) * layers - 1}.{2 if attends else 1}.conv"
            table[last] = f"up_blocks.{level}.upsamplers.0.conv"
    return table


def _resnet(source: str, target: str) -> dict[str, str]:
    return {f"{source}.{theirs}": f"{target}.{ours}" for theirs, ours in _RESNET.items()}


def _transformer(source: str, target: str, depth: int) -> dict[str, str]:
    inner = [
        f"transformer_blocks.{k}.{name}" for k in range(depth) for name in (*TRANSFORMER_LINEARS, "norm1", "norm2", "norm3")
    ]
    return {f"{source}.{name}": f"{target}.{name}" for name in ("norm", "proj_in", *inner, "proj_out")}


def vae_modules(config: Config) -> dict[str, str]:
    """LDM module name → diffusers module name of a VAE. Its attention is linear in diffusers and 1×1-conv in LDM."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, theirs, ours, resnets, sampler, sampled in (
        ("encoder", "down", "down_blocks", layers, "downsample", "downsamplers.0"),
        ("decoder", "up", "up_blocks", layers + 1, "upsample", "upsamplers.0"),
    ):
        table |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        table[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        for level in range(levels):
            source = f"{side}.{theirs}.{level if side == 'encoder' else levels - 1 - level}"
            target = f"{side}.{ours}.{level}"
            for layer in range(resnets):
                table.update(_vae_resnet(f"{source}.block.{layer}", f"{target}.resnets.{layer}"))
            table[f"{source}.{sampler}.conv"] = f"{target}.{sampled}.conv"
        for number in (1, 2):
            table.update(_vae_resnet(f"{side}.mid.block_{number}", f"{side}.mid_block.resnets.{number - 1}"))
        for name, new in _VAE_ATTENTION.items():
            table[f"{side}.mid.attn_1.{name}"] = f"{side}.mid_block.attentions.0.{new}"
    return table


def _vae_resnet(source: str, target: str) -> dict[str, str]:
    return {f"{source}.{theirs}": f"{target}.{ours}" for theirs, ours in _VAE_RESNET.items()}


def modern_vae_name(name: str) -> str:
    """A diffusers VAE tensor's name as of today: attention was once called query, key, value, proj_attn."""
    head, _, last = name.rpartition(".")
    block, _, module = head.rpartition(".")
    return f"{block}.{_OLD_VAE_ATTENTION[module]}.{last}" if module in _OLD_VAE_ATTENTION else name


def is_vae_attention(name: str) -> bool:
    """Whether a diffusers VAE tensor is a weight that LDM files keep as a 1×1 convolution."""
    return ".attentions.0.to_" in name and name.endswith(".weight")


def clip_modules(config: Config) -> dict[str, str]:
    """File module name (after `text_model.`) → transformers 5 module name of a CLIP text encoder: the same names."""
    names = ["embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"]
    for layer in range(config["num_hidden_layers"]):
        inner = (*CLIP_LINEARS, "layer_norm1", "layer_norm2")
        names += [f"encoder.layers.{layer}.{name}" for name in inner]
    return {name: name for name in names}


def ema_name(name: str) -> str:
    """Under which name LDM's averaging keeps a tensor of the UNet ("model.diffusion_model.out.2.bias")."""
    return LDM_EMA + name.removeprefix("model.").replace(".", "")


_AVERAGED = re.compile(
    r"diffusion_model(?:(?P<edge>time_embed|label_emb0|out)(?P<layer>\d)"
    r"|(?P<side>input_blocks|output_blocks|middle_block)(?P<block>\d*)(?P<member>\d)"
    r"(?:(?P<resnet>in_layers|emb_layers|out_layers)(?P<number>\d)|(?P<one>op|conv|skip_connection|norm|proj_in|proj_out)"
    r"|transformer_blocks(?P<deep>\d+)(?:(?P<attention>attn[12])(?P<linear>to_[qkv]|to_out0)"
    r"|(?P<feed>ffnet0proj|ffnet2)|(?P<norm>norm[123])))?)(?P<end>weight|bias)"
)
_FLAT = {"to_out0": "to_out.0", "ffnet0proj": "ff.net.0.proj", "ffnet2": "ff.net.2", "label_emb0": "label_emb.0"}


def plain_names(averaged: Iterable[str]) -> dict[str, str]:
    """Names of averaged weights ("model_ema.…", their dots lost) → names of the UNet's own; strangers are left out."""
    found = {}
    for name in averaged:
        match = _AVERAGED.fullmatch(name.removeprefix(LDM_EMA))
        if match and name.startswith(LDM_EMA):
            groups = match.groupdict()
            deep = groups["deep"] and f"transformer_blocks.{groups['deep']}"
            order = ("edge", "layer", "side", "block", "member", "resnet", "number", "one")
            pieces = [*(groups[piece] for piece in order), deep]
            pieces += [groups[piece] for piece in ("attention", "linear", "feed", "norm", "end")]
            found[name] = LDM_UNET + ".".join(_FLAT.get(piece, piece) for piece in pieces if piece)
    return found
