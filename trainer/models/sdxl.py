"""SDXL: two text encoders side by side, and a UNet that is also told the whole text and the picture's sizes."""

from __future__ import annotations

from typing import Any

from trainer.models.configs import Rules
from trainer.models.keys import SDXL_CLIP, SDXL_OPEN_CLIP
from trainer.models.protocol import Cond
from trainer.models.stable_diffusion import StableDiffusion
from trainer.models.text_encoders import TextEncoder


def _told(cond: Cond) -> dict[str, Any]:
    """The pooled text (B, P) and six numbers of pixels (B, 6), which the UNet turns into sinusoids itself."""
    assert cond.pooled is not None and cond.sizes is not None, "SDXL needs the pooled text and the sizes"
    return {"added_cond_kwargs": {"text_embeds": cond.pooled, "time_ids": cond.sizes}}


FAMILY = StableDiffusion(
    name="sdxl",
    title="SDXL",
    native_resolution=1024,
    architectures={"epsilon": "stable-diffusion-xl-v1-base", "v_prediction": "stable-diffusion-xl-v1-base"},
    base_versions={"epsilon": "sdxl_base_v1-0", "v_prediction": "sdxl_base_v1-0"},
    text_encoders=(
        TextEncoder("text_encoder", (SDXL_CLIP,), names="clip", lora="lora_te1", layer=2, norm=False),
        TextEncoder(
            "text_encoder_2", (SDXL_OPEN_CLIP,), names="open_clip", lora="lora_te2", layer=2, norm=False, pooled=True, pad=0
        ),
    ),
    rules=Rules(sample_size=128, unet_head_width=64, size_width=256, vae_scale=0.13025, vae_needs_fp32=True),
    sai_lora=True,
    told=_told,
    pipeline="StableDiffusionXLPipeline",
    pipeline_entries={"force_zeros_for_empty_prompt": True, "add_watermarker": None},
    scheduler="EulerDiscreteScheduler",
)
