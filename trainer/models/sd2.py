"""Stable Diffusion 2.x: OpenCLIP-H without its last layer, linear ends of the transformers, heads of 64."""

from __future__ import annotations

from trainer.models.configs import Rules
from trainer.models.keys import LDM_OPEN_CLIP
from trainer.models.stable_diffusion import StableDiffusion
from trainer.models.text_encoders import TextEncoder

FAMILY = StableDiffusion(
    name="sd2",
    title="Stable Diffusion 2.x",
    native_resolution=512,
    architectures={"epsilon": "stable-diffusion-v2-512", "v_prediction": "stable-diffusion-v2-768-v"},
    inpainting_architecture="stable-diffusion-v2-inpainting",
    base_versions={"epsilon": "sd_v2", "v_prediction": "sd_v2_v"},
    text_encoders=(
        TextEncoder(
            "text_encoder", (LDM_OPEN_CLIP,), names="open_clip", lora="lora_te", unused_layers=1, full_layers=24, pad=0
        ),
    ),
    rules=Rules(unet_head_width=64, upcast_attention=True, vae_scale=0.18215),
    pipeline_entries={
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
)
