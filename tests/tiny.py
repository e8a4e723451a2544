"""Tiny models of every family in their real layout, random but fixed, for every test that needs one; and full-size ones.

Each is made once in a process, and so is each of its files: who asks gets a copy.
"""

from __future__ import annotations

import copy
import importlib
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from trainer.models import libraries
from trainer.models.protocol import Components
from trainer.models.stable_diffusion import StableDiffusion
from trainer.temporary import TemporaryFolder

FAMILIES = ("sd1", "sd2", "sdxl")
TINY_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
TINY_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 64,
}
TINY_CLIP: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
}
_TINY_UNETS: dict[str, dict[str, Any]] = {
    "sd1": TINY_UNET,
    "sd2": TINY_UNET | {"use_linear_projection": True, "attention_head_dim": [1, 1], "upcast_attention": True},
    "sdxl": TINY_UNET
    | {
        "use_linear_projection": True,
        "attention_head_dim": [1, 1],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 32 + 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
}
_TINY_TEXTS: dict[str, list[dict[str, Any]]] = {
    "sd1": [TINY_CLIP],
    "sd2": [TINY_CLIP | {"hidden_act": "gelu"}],
    "sdxl": [TINY_CLIP, TINY_CLIP | {"hidden_act": "gelu", "hidden_size": 64, "projection_dim": 64}],
}
_FULL_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 768},
    "sd2": {
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "attention_head_dim": [5, 10, 20, 20],
        "upcast_attention": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_FULL_TEXTS: dict[str, list[dict[str, Any]]] = {
    "sd1": [_CLIP_L],
    "sd2": [_CLIP_H | {"hidden_act": "gelu"}],
    "sdxl": [_CLIP_L, _CLIP_G | {"hidden_act": "gelu", "projection_dim": 1280}],
}


def family_of(name: str) -> StableDiffusion:
    """The family's object."""
    found: StableDiffusion = importlib.import_module(f"trainer.models.{name}").FAMILY
    return found


def tiny_model(
    name: str = "sd1", seed: int = 0, in_channels: int = 4, prediction: str = "epsilon", zero_snr: bool = False
) -> Components:
    """A random model of 2 to 5 M weights: 4 latent channels, 8 × reduction, CLIP's real tokenizer and vocabulary.

    9 `in_channels` make it an inpainting model.
    """
    modules = copy.deepcopy(_tiny_modules(name, seed, in_channels))
    return Components(**modules, tokenizer=_tokenizer(name), prediction=prediction, zero_snr=zero_snr)


@cache
def _tiny_modules(name: str, seed: int, in_channels: int) -> dict[str, Any]:
    family = family_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = libraries.unet_class()(**{**_TINY_UNETS[name], "in_channels": in_channels, "sample_size": 64})
        scale = {"scaling_factor": family.rules.vae_scale}
        vae = libraries.vae_class()(**TINY_VAE, **({} if name == "sd1" else scale))
        texts = {}
        for encoder, sizes in zip(family.text_encoders, _TINY_TEXTS[name], strict=True):
            clip, clip_config = libraries.clip_classes(encoder.pooled)
            texts[encoder.part] = clip(clip_config(**sizes))
            torch.nn.init.normal_(texts[encoder.part].get_input_embeddings().weight, std=0.2)
    modules = {"unet": unet, "vae": vae, **texts}
    for module in modules.values():
        module.requires_grad_(False).eval()
    return modules


@cache
def _tokenizer(name: str) -> Any:
    return family_of(name).load_tokenizer(Path())


def tiny_sd1(seed: int = 0) -> Components:
    """A tiny SD 1.x model."""
    return tiny_model("sd1", seed)


def save_tiny_file(
    folder: Path, name: str = "tiny", dtype: torch.dtype = torch.float32, seed: int = 0, family: str = "sd1", **facts: Any
) -> Path:
    """A tiny model as one LDM .safetensors, with the .json beside it that its norm groups need. `facts`: of `tiny_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _tiny_file(name, dtype, seed, family, tuple(facts.items()))
    for path in (made, made.with_suffix(".json")):
        shutil.copyfile(path, folder / path.name)
    return folder / made.name


@cache
def _tiny_file(name: str, dtype: torch.dtype, seed: int, family: str, facts: tuple[tuple[str, Any], ...]) -> Path:
    path = _place() / f"{name}.safetensors"
    family_of(family).save(tiny_model(family, seed, **dict(facts)), path, dtype, {"modelspec.resolution": "64x64"})
    return path


_kept = cache(TemporaryFolder)


def _place() -> Path:
    """A new folder that stays as long as this process."""
    return Path(tempfile.mkdtemp(dir=_kept().path))


def save_tiny_folder(folder: Path, seed: int = 0, family: str = "sd1", variant: str | None = None, **facts: Any) -> Path:
    """A tiny model as a diffusers folder, written by the libraries themselves."""
    shutil.copytree(_tiny_folder(seed, family, variant, tuple(facts.items())), folder, dirs_exist_ok=True)
    return folder


@cache
def _tiny_folder(seed: int, family: str, variant: str | None, facts: tuple[tuple[str, Any], ...]) -> Path:
    parts = tiny_model(family, seed, **dict(facts))
    if variant == "fp16":
        for module in parts.modules().values():
            module.half()
    path = _place()
    pipeline_of(family, parts).save_pretrained(path, variant=variant)
    return path


def pipeline_of(family: str, parts: Components) -> Any:
    """diffusers' pipeline of a model's parts."""
    import diffusers

    inpaints = parts.unet.config.in_channels == 9
    name = family_of(family).pipeline
    make = getattr(diffusers, name.replace("Pipeline", "InpaintPipeline") if inpaints else name)
    tokenizers = [
        libraries.clip_tokenizer(Path(parts.tokenizer.name_or_path)) for encoder in family_of(family).text_encoders
    ]
    for tokenizer, encoder in zip(tokenizers, family_of(family).text_encoders, strict=True):
        tokenizer.pad_token = "!" if encoder.pad == 0 else tokenizer.eos_token
    given = {
        "vae": parts.vae, "unet": parts.unet, "text_encoder": parts.text_encoder, "tokenizer": tokenizers[0],
        "scheduler": scheduler_of(parts),
    }  # fmt: skip
    if parts.text_encoder_2 is not None:
        return make(**given, text_encoder_2=parts.text_encoder_2, tokenizer_2=tokenizers[1], add_watermarker=False)
    return make(**given, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def scheduler_of(parts: Components) -> Any:
    """DDIM as the models were trained, with the model's prediction."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=parts.prediction,
        rescale_betas_zero_snr=parts.zero_snr,
    )


def full_size_model(name: str = "sd1", device: str = "cpu", dtype: torch.dtype = torch.float32) -> Components:
    """A random model of the family's real sizes, of plausible deviations so that it computes sanely; on "meta" empty.

    In float32 SD 1.5 has 4.3 GB, SD 2.x 5.2 GB, SDXL 13.9 GB.
    """
    family = family_of(name)
    with torch.device("meta"):
        unet = libraries.unet_class()(**_FULL_UNETS[name])
        vae = libraries.vae_class()(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=family.rules.vae_scale,
        )
        texts = {}
        for encoder, sizes in zip(family.text_encoders, _FULL_TEXTS[name], strict=True):
            clip, clip_config = libraries.clip_classes(encoder.pooled)
            texts[encoder.part] = clip(clip_config(**sizes))
    block = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    for module in (unet, vae, *texts.values()):
        module.to(dtype).requires_grad_(False).eval()
        if device != "meta":
            module.to_empty(device=device)
            for weight in module.parameters():
                _fill(weight, block)
    return Components(unet, vae, **texts)


def full_size_sd1() -> Components:
    """A random model of SD 1.5's real sizes (4.3 GB in float32)."""
    return full_size_model("sd1")


@torch.no_grad()
def _fill(weight: torch.Tensor, block: torch.Tensor) -> None:
    """Vectors (biases, norms) in [0, 1), matrices with the deviation of a fresh layer; `block` over and over, for speed."""
    for piece in weight.view(-1).split(block.numel()):
        piece.copy_(block[: piece.numel()])
    if weight.dim() > 1:
        bound = (3 / weight[0].numel()) ** 0.5
        weight.sub_(0.5).mul_(2 * bound)
