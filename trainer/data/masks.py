"""Masks for inpainting models: which part of a picture is to be painted, drawn at random from a key. No torch.

A picture gets several variants, each encoded once and kept. Variant 0 is its own opaque part where it has transparency,
else rectangles; variant 1 is all of it; 2 are brush strokes, 3 both, and so on in turn.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.order import keyed_random

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]  # (H, W): 1 where it is to be painted

MASKS_VERSION = "masks 1"  # changes with anything that draws another mask for the same key
OWN, FULL = 0, 1  # variants: the picture's own opaque part; all of it, as in a preview


def draw_mask(width: int, height: int, key: str, variant: int) -> Mask:
    """The mask (H, W) of a variant: a function of its arguments alone. `key` is the picture's content, as a word."""
    if variant == FULL:
        return np.ones((height, width), np.uint8)
    dice = keyed_random(MASKS_VERSION, key, variant, width, height)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    if variant % 4 != 2:
        _rectangles(draw, dice, width, height)
    if variant % 4 >= 2:
        _strokes(draw, dice, width, height)
    return np.asarray(image).copy()


def opaque_part(opacity: Mask) -> Mask | None:
    """The mask of a picture's own opaque part from its opacity (H, W) 0 … 255; None if all or nothing is opaque."""
    mask = (opacity >= 128).astype(np.uint8)
    return mask if 0 < int(mask.sum()) < mask.size else None


def shrink(mask: Mask, factor: int) -> NDArray[np.float32]:
    """The mask at the latents' size (H ÷ factor, W ÷ factor) float32: of each cell its upper left pixel, as in diffusers."""
    return mask[::factor, ::factor].astype(np.float32)


def _rectangles(draw: ImageDraw.ImageDraw, dice: random.Random, width: int, height: int) -> None:
    """One to three rectangles, each of a tenth to six tenths of either side."""
    for _ in range(dice.randint(1, 3)):
        across, down = (max(1, round(side * dice.uniform(0.1, 0.6))) for side in (width, height))
        left, top = dice.randint(0, width - across), dice.randint(0, height - down)
        draw.rectangle((left, top, left + across - 1, top + down - 1), fill=1)


def _strokes(draw: ImageDraw.ImageDraw, dice: random.Random, width: int, height: int) -> None:
    """One to four strokes of a round brush that wander through the picture."""
    for _ in range(dice.randint(1, 4)):
        thick = max(2, round(min(width, height) * dice.uniform(0.06, 0.2)))
        x, y, angle = dice.uniform(0, width), dice.uniform(0, height), dice.uniform(0, 2 * math.pi)
        for _ in range(dice.randint(3, 10)):
            angle += dice.uniform(-1.0, 1.0)
            length = min(width, height) * dice.uniform(0.08, 0.25)
            to_x = min(max(x + length * math.cos(angle), 0.0), width - 1.0)
            to_y = min(max(y + length * math.sin(angle), 0.0), height - 1.0)
            draw.line((x, y, to_x, to_y), fill=1, width=thick)
            for end_x, end_y in ((x, y), (to_x, to_y)):
                draw.ellipse((end_x - thick / 2, end_y - thick / 2, end_x + thick / 2, end_y + thick / 2), fill=1)
            x, y = to_x, to_y
