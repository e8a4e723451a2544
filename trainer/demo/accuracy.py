"""How well Ember follows prompts that it never saw: measured on 100 held-out prompts of each kind, by pixels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.demo import generation, pictures, scoring
from trainer.demo.pictures import Scene
from trainer.models.protocol import Components, Family

SPLIT_SEED = 0
PROMPTS_OF_A_KIND = 100


@dataclass(frozen=True)
class Kind:
    """A kind of prompt and how many of its pictures were right."""

    name: str
    prompts: int
    shape_and_colour: float
    position_and_size: float


def held_out_scenes(seed: int = SPLIT_SEED, count: int = PROMPTS_OF_A_KIND) -> dict[str, list[Scene]]:
    """Scenes by kind: `seen`, `unseen combinations` of seen pairs, and `unseen pairs` of shape and colour."""
    kinds = dict(zip(("seen", "unseen combinations", "unseen pairs"), pictures.split_scenes(seed), strict=True))
    return {name: random.Random(f"prompts-{name}").sample(scenes, count) for name, scenes in kinds.items()}


def measure(family: Family, components: Components, count: int = PROMPTS_OF_A_KIND) -> tuple[list[Kind], Image.Image]:
    """The accuracy of each kind of prompt, and a sheet of the unseen ones' first pictures."""
    results, shown = [], []
    for number, (name, scenes) in enumerate(held_out_scenes(count=count).items()):
        prompts = [pictures.full_caption(scene) for scene in scenes]
        drawn = generation.draw_prompts(family, components, prompts, [1000 * number + i for i in range(len(scenes))])
        results.append(score(name, scenes, drawn))
        shown += drawn[:40]
    return results, tile(shown, columns=20)


def score(name: str, scenes: Sequence[Scene], drawn: Sequence[Image.Image]) -> Kind:
    """The shares of pictures that show what their scene says."""
    readings = [scoring.read_picture(picture) for picture in drawn]
    pairs = list(zip(readings, scenes, strict=True))
    return Kind(
        name,
        len(pairs),
        sum(scoring.shape_and_colour_right(*pair) for pair in pairs) / len(pairs),
        sum(scoring.place_and_size_right(*pair) for pair in pairs) / len(pairs),
    )


def report(results: Sequence[Kind], model: Path) -> dict[str, Any]:
    """What `ember_accuracy.json` holds: the figures, how they were made, and the file they belong to."""
    return {
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "sampler": f"DDIM, {generation.STEPS} steps, CFG {generation.GUIDANCE:g}",
        "kinds": {
            kind.name: {
                "prompts": kind.prompts,
                "shape and colour right": kind.shape_and_colour,
                "position and size right": kind.position_and_size,
            }
            for kind in results
        },
    }


def tile(drawn: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures side by side in rows of `columns`."""
    side = pictures.PICTURE_PX
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (255, 255, 255))
    for number, picture in enumerate(drawn):
        sheet.paste(picture, (number % columns * side, number // columns * side))
    return sheet
