"""Draws the hundreds of pictures that scores are made of: the product's own sampler, many at once."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from trainer.config.run import Prompt
from trainer.demo.pictures import PICTURE_PX
from trainer.models.protocol import Components, Family
from trainer.sampling import sample

SAMPLER, STEPS, GUIDANCE = "ddim", 20, 5.0
QUICK_SAMPLER, QUICK_STEPS = "dpmpp_2m_karras", 10  # nearly the same pictures in half the time
BATCH = 40


def draw_prompts(
    family: Family, components: Components, prompts: Sequence[str], seeds: Sequence[int], quick: bool = False
) -> list[Image.Image]:
    """One 64 x 64 picture for each prompt and seed."""
    sampler, steps = (QUICK_SAMPLER, QUICK_STEPS) if quick else (SAMPLER, STEPS)
    side = PICTURE_PX
    requests = [
        Prompt(prompt=text, width=side, height=side, steps=steps, cfg=GUIDANCE, seed=seed, sampler=sampler)
        for text, seed in zip(prompts, seeds, strict=True)
    ]
    return sample(components, family, requests, batch_size=BATCH)
