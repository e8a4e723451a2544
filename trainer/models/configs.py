"""A model's sizes, read from the shapes of its tensors and its family's rules; a config beside the file has the last word.

What shapes cannot tell (head counts, norm groups, the VAE's scale) is the family's rule: `Rules`. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import foreign_json
from trainer.models.opening import NotWeights, read_small, shown

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """What a family fixes and tensors do not show."""

    sample_size: int = 64  # side of the latents that the family was made for
    unet_heads: int = 8
    unet_head_width: int = 0  # above 0: heads are so wide at every level, instead of so many
    upcast_attention: bool = False  # its attention overflows in fp16, where the kernel keeps scores
    size_width: int = 256  # sinusoids for each of the numbers of `Cond.sizes`
    clip_head_width: int = 64
    norm_groups: int = 32
    vae_scale: float = 0.18215
    vae_needs_fp32: bool = False  # overflows in fp16, unless its config says `force_upcast` = false
    clip_activation: str = "quick_gelu"
    prediction: str = "epsilon"


_COUNTS = (
    "num_hidden_layers", "layers_per_block", "transformer_layers_per_block", "num_layers", "num_attention_heads",
)  # fmt: skip
_MAX_JSON_BYTES = 4 * 1024 * 1024
_MAX_YAML_BYTES = 32 * 1024  # the longest of LDM's is 4 KB
_MAX_YAML_BRACKETS = 500


class UnknownLayout(ValueError):
    """The tensors are not laid out as the family's are: `why`."""

    def __init__(self, why: Message) -> None:
        super().__init__(str(why))
        self.why = why


def unet_config(shapes: Shapes, rules: Rules) -> Config:
    """diffusers' config of an LDM UNet; `shapes` without prefix. Raises UnknownLayout."""
    width, in_channels = _shape(shapes, "input_blocks.0.0.weight")[:2]
    samplers = sorted(int(name.split(".")[1]) for name in shapes if _matches(name, "input_blocks.", ".0.op.weight"))
    num_inputs = 1 + _count(shapes, "input_blocks.")
    layers = (samplers[0] if samplers else num_inputs) - 1
    levels = len(samplers) + 1
    first = [level * (layers + 1) + 1 for level in range(levels)]
    channels = [_shape(shapes, f"input_blocks.{block}.0.out_layers.3.weight")[0] for block in first]
    depths = [_count(shapes, f"input_blocks.{block}.1.transformer_blocks.") + 1 for block in first]
    text_width = _shape(shapes, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]
    if _count(shapes, "middle_block.1.transformer_blocks.") + 1 != max(depths[-1], 1):
        _refuse(say("its middle block is as deep as in no known model"))
    config = {
        "in_channels": in_channels,
        "out_channels": _shape(shapes, "out.2.weight")[0],
        "block_out_channels": channels if channels[0] == width else _refuse(say("its first level has another width")),
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": 1 if max(depths) <= 1 else [max(depth, 1) for depth in depths],
        "cross_attention_dim": text_width,
        "use_linear_projection": len(_shape(shapes, "middle_block.1.proj_in.weight")) == 2,
        "attention_head_dim": _heads(channels, rules),
        "norm_num_groups": rules.norm_groups,
        "sample_size": rules.sample_size,
    }
    return config | ({"upcast_attention": True} if rules.upcast_attention else {}) | _size_config(shapes, rules)


def _heads(channels: list[int], rules: Rules) -> int | list[int]:
    """The number of heads, which diffusers calls `attention_head_dim` for historical reasons."""
    if not rules.unet_head_width:
        return rules.unet_heads
    return [max(1, width // rules.unet_head_width) for width in channels]


def _size_config(shapes: Shapes, rules: Rules) -> Config:
    """What a UNet's config says of a second embedding of pooled text and picture sizes, if there is one."""
    if "label_emb.0.0.weight" not in shapes:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": rules.size_width,
        "projection_class_embeddings_input_dim": _shape(shapes, "label_emb.0.0.weight")[1],
    }


def vae_config(shapes: Shapes, rules: Rules) -> Config:
    """diffusers' config of an LDM VAE; `shapes` without prefix. Raises UnknownLayout."""
    levels = _count(shapes, "encoder.down.") + 1
    layers = _count(shapes, "encoder.down.0.block.") + 1
    return {
        "in_channels": _shape(shapes, "encoder.conv_in.weight")[1],
        "out_channels": _shape(shapes, "decoder.conv_out.weight")[0],
        "block_out_channels": [_shape(shapes, f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)],
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": _shape(shapes, "post_quant_conv.weight")[1],
        "norm_num_groups": rules.norm_groups,
        "scaling_factor": rules.vae_scale,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in shapes,
        "sample_size": 512,
        "force_upcast": True,
    }


def clip_config(shapes: Shapes, rules: Rules) -> Config:
    """transformers' config of a CLIP text encoder; `shapes` begin after `text_model.`. Raises UnknownLayout."""
    vocabulary, width = _shape(shapes, "embeddings.token_embedding.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _shape(shapes, "encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": _count(shapes, "encoder.layers.") + 1,
        "num_attention_heads": max(1, width // rules.clip_head_width),
        "max_position_embeddings": _shape(shapes, "embeddings.position_embedding.weight")[0],
        "hidden_act": rules.clip_activation,
        "layer_norm_eps": 1e-5,
    }


def open_clip_config(shapes: Shapes, rules: Rules) -> Config:
    """transformers' config of a text encoder with OpenCLIP's names. Raises UnknownLayout."""
    vocabulary, width = _shape(shapes, "token_embedding.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _shape(shapes, "transformer.resblocks.0.mlp.c_fc.weight")[0],
        "num_hidden_layers": _count(shapes, "transformer.resblocks.") + 1,
        "num_attention_heads": max(1, width // rules.clip_head_width),
        "max_position_embeddings": _shape(shapes, "positional_embedding")[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": shapes.get("text_projection", (width, width))[1],
    }


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    return shapes[name] if name in shapes else _refuse(say("{name} is missing", name=name))


def _refuse(why: Message) -> Any:
    raise UnknownLayout(why)


def _matches(name: str, start: str, end: str) -> bool:
    return name.startswith(start) and name.endswith(end)


def _count(shapes: Shapes, prefix: str) -> int:
    """The highest number that follows `prefix` in any name, or -1. Raises UnknownLayout where no model has so many."""
    found = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    numbers = [number for number in found if number.isdecimal()]
    if any(len(number) > 3 for number in numbers):
        _refuse(say("it has more layers than any model"))
    return max(map(int, numbers), default=-1)


def refuse_endless(config: Mapping[str, Any], most: int) -> None:
    """Raise UnknownLayout where a config has fewer layers than none, or more than `most`: it would be built for hours."""
    found = [config[name] for name in _COUNTS if name in config]
    counts = [count for value in found for count in (value if isinstance(value, list | tuple) else [value])]
    if any(isinstance(count, int | float) and not 0 <= count <= most for count in counts):
        _refuse(say("it has more layers than any model"))


def config_beside(model: Path) -> dict[str, Config]:
    """What a config file of the same stem says: {"unet": {...}, "vae": {...}, "text_encoder": {...}, "model": {...}}.

    `.json` holds diffusers' configs by part; `.yaml` is what LDM programs keep beside a model. An unrelated .json (the
    WebUI's notes on a model) is ignored. Raises BadInput for a file that cannot be read.
    """
    for suffix, read in ((".json", _read_json), (".yaml", _read_yaml)):
        beside = model.with_suffix(suffix)
        if beside.is_file():
            try:
                if found := read(beside):
                    return found
            except (
                OSError,
                ValueError,
                ArithmeticError,
                AttributeError,
                TypeError,
                LookupError,
                RecursionError,
            ) as error:
                raise BadInput(
                    say(
                        "The config file {path} beside the model cannot be read: {reason}.",
                        path=str(beside),
                        reason=error.why if isinstance(error, NotWeights) else shown(str(error), 300),
                    ),
                    say("Repair it, or take it away if the model is of the usual sizes."),
                ) from error
    return {}


def _read_json(path: Path) -> dict[str, Config]:
    data = _table(foreign_json.parse(read_small(path, _MAX_JSON_BYTES)))
    return {
        part: dict(data[part])
        for part in ("unet", "vae", "text_encoder", "text_encoder_2", "model")
        if isinstance(data.get(part), dict)
    }


def _table(value: Any, *names: str) -> dict[Any, Any]:
    """A table, or the one that lies in it under these names; an empty one where something else lies there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> dict[str, Config]:
    """What LDM's config says. Its reader needs time and memory without bound for brackets and for references."""
    import yaml

    text = read_small(path, _MAX_YAML_BYTES).decode("utf-8-sig")
    if text.count("[") + text.count("{") > _MAX_YAML_BRACKETS or ("&" in text and "*" in text):
        raise ValueError("it is no model's config")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    params = _table(data, "model", "params")
    found: dict[str, Config] = {"unet": {}, "vae": {}, "model": {}}
    unet = _table(params, "unet_config", "params")
    if unet.get("num_heads", -1) > 0:
        found["unet"]["attention_head_dim"] = unet["num_heads"]
    elif unet.get("num_head_channels", -1) > 0:
        widths = [unet["model_channels"] * factor for factor in unet["channel_mult"]]
        found["unet"]["attention_head_dim"] = [width // unet["num_head_channels"] for width in widths]
    if "scale_factor" in params:
        found["vae"]["scaling_factor"] = float(params["scale_factor"])
    scaling = str(_table(params, "denoiser_config", "params", "scaling_config").get("target", ""))
    if params.get("parameterization") == "v" or scaling.endswith("VScaling"):
        found["model"]["prediction"] = "v_prediction"
    return found
