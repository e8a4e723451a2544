"""Draws pictures from prompts in batches, quickly: DDIM, 64 px, on the CPU. Scores are made of hundreds of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from trainer.models.protocol import Components, Family

STEPS = 20
GUIDANCE = 5.0
BATCH = 50


def draw_prompts(
    family: Family, components: Components, prompts: Sequence[str], seeds: Sequence[int], steps: int = STEPS
) -> list[Image.Image]:
    """One 64 x 64 picture for each prompt; its noise depends on its seed alone, not on its neighbours."""
    drawn: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        drawn += _draw_batch(family, components, prompts[part], seeds[part], steps)
    return drawn


@torch.no_grad()
def _draw_batch(
    family: Family, components: Components, prompts: Sequence[str], seeds: Sequence[int], steps: int
) -> list[Image.Image]:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    cond = family.encode_text(components, [*prompts, ""])
    cond = torch.cat([cond[:-1], cond[-1:].expand(len(prompts), -1, -1)])
    noise = [torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.stack(noise)  # (B, 4, 8, 8)
    for timestep in scheduler.timesteps:
        both = family.predict(components, torch.cat([latents, latents]), timestep.expand(2 * len(prompts)), cond)
        with_text, without = both.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (with_text - without), timestep, latents).prev_sample
    pixels = ((family.decode(components.vae, latents).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())) for picture in pixels]
