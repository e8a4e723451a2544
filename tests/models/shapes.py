"""Names and shapes of whole models of every family, made from a tiny SD 1.x one, and files that hold only holes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from trainer.models.keys import LDM_CLIP, LDM_UNET, LDM_VAE
from trainer.models.safetensors_file import header_bytes

Shapes = dict[str, tuple[int, ...]]


def write(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None, dtype: str = "F16") -> Path:
    """A safetensors file of these shapes whose data is a hole: gigabytes cost nothing."""
    head = header_bytes({name: (dtype, shape) for name, shape in shapes.items()}, dict(metadata or {}))
    table = json.loads(head[8:])
    size = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
    with path.open("wb") as handle:
        handle.write(head)
        handle.truncate(len(head) + size)
    return path


def part(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def without(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


def linear_unet(sd1: Shapes) -> Shapes:
    """The UNet with projections that are matrices, as SD 2.x and SDXL have them."""
    unet = part(sd1, LDM_UNET)
    return {
        name: shape[:2] if name.endswith(("proj_in.weight", "proj_out.weight")) else shape
        for name, shape in unet.items()
    }


def open_clip(prefix: str, width: int = 32, layers: int = 3) -> Shapes:
    shapes: Shapes = {
        f"{prefix}token_embedding.weight": (49408, width),
        f"{prefix}positional_embedding": (77, width),
        f"{prefix}text_projection": (width, width),
        f"{prefix}ln_final.weight": (width,),
        f"{prefix}ln_final.bias": (width,),
    }
    for layer in range(layers):
        block = f"{prefix}transformer.resblocks.{layer}"
        shapes |= {f"{block}.{name}.{end}": (width,) for name in ("ln_1", "ln_2") for end in ("weight", "bias")}
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{block}.attn.out_proj.weight": (width, width), f"{block}.attn.out_proj.bias": (width,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (2 * width, width), f"{block}.mlp.c_fc.bias": (2 * width,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (width, 2 * width), f"{block}.mlp.c_proj.bias": (width,)}
    return shapes


def sd2(sd1: Shapes) -> Shapes:
    return linear_unet(sd1) | part(sd1, LDM_VAE) | open_clip("cond_stage_model.model.")


def sdxl(sd1: Shapes) -> Shapes:
    clip = {f"conditioner.embedders.0.{name.removeprefix('cond_stage_model.')}": shape
            for name, shape in part(sd1, LDM_CLIP).items()}  # fmt: skip
    label = {f"{LDM_UNET}label_emb.0.0.weight": (128, 32 + 6 * 256), f"{LDM_UNET}label_emb.0.0.bias": (128,)}
    label |= {f"{LDM_UNET}label_emb.0.2.weight": (128, 128), f"{LDM_UNET}label_emb.0.2.bias": (128,)}
    return linear_unet(sd1) | label | part(sd1, LDM_VAE) | clip | open_clip("conditioner.embedders.1.model.")


def refiner(sd1: Shapes) -> Shapes:
    label = {f"{LDM_UNET}label_emb.0.0.weight": (128, 32 + 5 * 256)}
    return linear_unet(sd1) | label | part(sd1, LDM_VAE) | open_clip("conditioner.embedders.0.model.")


def inpainting(shapes: Shapes, channels: int = 9) -> Shapes:
    name = f"{LDM_UNET}input_blocks.0.0.weight"
    first = shapes[name]
    return {**shapes, name: (first[0], channels, *first[2:])}
