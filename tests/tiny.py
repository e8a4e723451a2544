"""Tiny models of the real layout, random but fixed, for every test that needs one."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.models import libraries
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY

TINY_UNET = {
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
TINY_VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 64,
}
TINY_CLIP = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
}


def tiny_sd1(seed: int = 0) -> Components:
    """A random SD 1.x model of 1.7 M weights: 4 latent channels, 8 × reduction, CLIP's real tokenizer and vocabulary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, clip_config = libraries.clip_classes()
        unet = libraries.unet_class()(**TINY_UNET)
        vae = libraries.vae_class()(**TINY_VAE)
        text_encoder = clip(clip_config(**TINY_CLIP))
        torch.nn.init.normal_(text_encoder.embeddings.token_embedding.weight, std=0.2)
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False).eval()
    return Components(unet, vae, text_encoder, FAMILY.load_tokenizer(Path()))


def save_tiny_file(folder: Path, name: str = "tiny", dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """A tiny model as one LDM .safetensors, with the .json beside it that its norm groups need."""
    path = folder / f"{name}.safetensors"
    FAMILY.save(tiny_sd1(seed), path, dtype, {"modelspec.resolution": "64x64"})
    return path


def save_tiny_folder(folder: Path, seed: int = 0) -> Path:
    """A tiny model as a diffusers folder, written by the libraries themselves."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts = tiny_sd1(seed)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=parts.vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=parts.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def full_size_sd1() -> Components:
    """A random model of SD 1.5's real sizes (4.3 GB in float32), of plausible deviations so that it computes sanely."""
    clip, clip_config = libraries.clip_classes()
    with torch.device("meta"):
        unet = libraries.unet_class()(cross_attention_dim=768)
        vae = libraries.vae_class()(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = clip(clip_config(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    block = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0))
    for module in (unet, vae, text):
        module.to_empty(device="cpu")
        for weight in module.parameters():
            _fill(weight, block)
        module.requires_grad_(False).eval()
    return Components(unet, vae, text)


@torch.no_grad()
def _fill(weight: torch.Tensor, block: torch.Tensor) -> None:
    """Vectors (biases, norms) in [0, 1), matrices with the deviation of a fresh layer; `block` over and over, for speed."""
    for piece in weight.view(-1).split(block.numel()):
        piece.copy_(block[: piece.numel()])
    if weight.dim() > 1:
        bound = (3 / weight[0].numel()) ** 0.5
        weight.sub_(0.5).mul_(2 * bound)
