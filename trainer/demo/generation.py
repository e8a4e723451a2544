"""Draws the hundreds of pictures that scores are made of: the product's own sampler, many at once."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from trainer.config.run import Prompt
from trainer.demo.pictures import PICTURE_PX
from trainer.models.protocol import Components, Family
from trainer.sampling import sample

STEPS = 20
GUIDANCE = 5.0
BATCH = 40


def draw_prompts(
    family: Family, components: Components, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """One 64 x 64 picture for each prompt and seed."""
    requests = [
        Prompt(prompt=text, width=PICTURE_PX, height=PICTURE_PX, steps=STEPS, cfg=GUIDANCE, seed=seed, sampler="ddim")
        for text, seed in zip(prompts, seeds, strict=True)
    ]
    return sample(components, family, requests, batch_size=BATCH)
