"""Ember, the embedded SD 1.x-layout base model: its sizes, and its parts with fresh weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from trainer.paths import RESOURCES

TOKENIZER_FOLDER: Path = RESOURCES / "tokenizer" / "clip"
LATENT_SCALE = 0.18215

# What the file's config holds, in diffusers' and transformers' own names: sizes that tensors show and those they don't.
CONFIG: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [64, 64, 64, 64],
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "attention_head_dim": 8,
        "cross_attention_dim": 64,
        "norm_num_groups": 32,
    },
    "vae": {
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [16, 32, 64, 64],
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "norm_num_groups": 4,
        "scaling_factor": LATENT_SCALE,
    },
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
}


def fresh_vae() -> AutoencoderKL:
    """A VAE with random weights from the global generator."""
    return AutoencoderKL(**CONFIG["vae"])


def fresh_unet() -> UNet2DConditionModel:
    """A UNet with random weights from the global generator."""
    return UNet2DConditionModel(**CONFIG["unet"])


def fresh_text_encoder() -> CLIPTextModel:
    """A text encoder with random weights; its token vectors are spread wide (deviation 0.2) so that words differ."""
    model = CLIPTextModel(CLIPTextConfig(**CONFIG["text_encoder"]))
    for name, tensor in model.named_parameters():
        if name.endswith("token_embedding.weight"):
            torch.nn.init.normal_(tensor, std=0.2)
    return model
