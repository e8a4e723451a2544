"""The layers that a LoRA acts on, by the names that kohya's files have for them, generated from a model's config. No torch.

SD 1.x and 2.x name the UNet's layers as diffusers does, SDXL as the original code does ("SAI"). Counts at full size: SD 1.x
192 + 72, SD 2.x 192 + 138, SDXL 722 + 72 + 192; with convolutions 278, 278 and 788 in the UNet.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainer.models import keys
from trainer.models.keys import CLIP_LINEARS, TRANSFORMER_LINEARS, Config

UNET_PREFIX = "lora_unet"
_RESNET_ENDS = ("in_layers.2", "out_layers.3", "emb_layers.1", "skip_connection")


def unet_layers(config: Config, *, sai: bool, convolutions: bool = False) -> dict[str, str]:
    """kohya's name → diffusers' module name, the transformers' layers first, then those of resnets and samplers.

    Args:
        config: diffusers' config of the UNet.
        sai: whether the names follow the original code's (SDXL) or diffusers'.
        convolutions: with resnets and samplers, as kohya's `conv_dim` has them.
    """
    table = keys.unet_modules(config)
    chosen = [(ldm, path) for ldm, path in table.items() if _in_transformer(ldm)]
    if convolutions:
        without = set(_missing_shortcuts(config))
        chosen += [(ldm, path) for ldm, path in table.items() if _in_resnet_or_sampler(ldm) and path not in without]
    return {kohya_name(UNET_PREFIX, ldm if sai else path): path for ldm, path in chosen}


def text_layers(config: Config, prefix: str) -> dict[str, str]:
    """kohya's name → name in a text encoder's file without the `text_model` level, in file order."""
    paths = [f"encoder.layers.{layer}.{name}" for layer in range(config["num_hidden_layers"]) for name in CLIP_LINEARS]
    return {kohya_name(prefix, f"text_model.{path}"): path for path in paths}


def kohya_name(prefix: str, path: str) -> str:
    """A module's path as kohya's files write it."""
    return f"{prefix}_{path.replace('.', '_')}"


def _in_transformer(ldm: str) -> bool:
    return ldm.endswith((".proj_in", ".proj_out")) or ldm.endswith(tuple(f".{name}" for name in TRANSFORMER_LINEARS))


def _in_resnet_or_sampler(ldm: str) -> bool:
    if not ldm.startswith(("input_blocks.", "middle_block.", "output_blocks.")) or ldm == "input_blocks.0.0":
        return False
    return ldm.endswith((*(f".{end}" for end in _RESNET_ENDS), ".op", ".conv"))


def _missing_shortcuts(config: Config) -> Iterator[str]:
    """Resnets that leave the number of channels as it is have none: all of the middle, most of the way down."""
    widths = list(config["block_out_channels"])
    for level, width in enumerate(widths):
        for layer in range(config["layers_per_block"]):
            if layer or width == widths[max(level - 1, 0)]:
                yield f"down_blocks.{level}.resnets.{layer}.conv_shortcut"
    yield from (f"mid_block.resnets.{number}.conv_shortcut" for number in (0, 1))
