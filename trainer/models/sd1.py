"""Stable Diffusion 1.x: CLIP-L's states in transformers whose ends are convolutions, eight heads everywhere."""

from __future__ import annotations

from trainer.models.configs import Rules
from trainer.models.keys import LDM_CLIP, LDM_CLIP_SHORT
from trainer.models.stable_diffusion import StableDiffusion
from trainer.models.text_encoders import TextEncoder

FAMILY = StableDiffusion(
    name="sd1",
    title="Stable Diffusion 1.x",
    native_resolution=512,
    architectures={"epsilon": "stable-diffusion-v1", "v_prediction": "stable-diffusion-v1"},
    inpainting_architecture="stable-diffusion-v1/inpaint",
    base_versions={"epsilon": "sd_v1", "v_prediction": "sd_v1_v"},
    text_encoders=(TextEncoder("text_encoder", (LDM_CLIP, LDM_CLIP_SHORT), names="clip", lora="lora_te"),),
    rules=Rules(unet_heads=8, vae_scale=0.18215),
    clip_skips=range(1, 13),
    pipeline_entries={
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
)
