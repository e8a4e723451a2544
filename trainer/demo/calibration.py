"""Sets the limits of the emblem's score on drawings alone: no picture of a model has a say in them.

The rule: what shows the emblem lies nearer to the worst drawing of it than to the best of its look-alikes; what shows
nothing of it lies nearer to the best of Ember's own pictures than to the worst drawing of the emblem. Every drawing is
taken as it is, softened, and as Ember's VAE gives it back, since no model can draw more sharply than that. The emblem is
drawn as the prompts ask for it (large, in every surrounding), everything else in both sizes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from trainer.demo import emblem, lookalikes, pictures, scoring
from trainer.demo.lookalikes import Paint
from trainer.demo.scoring import Limits
from trainer.models.protocol import Components, Family
from trainer.sampling import to_picture

SEED = 0
SOFT_PX = 0.8
NUM_SCENES = 280
NUM_CLUTTER = 140
DECIMALS = 3
VAE_BATCH = 35

Draw = Callable[[random.Random], list[Image.Image]]


@dataclass(frozen=True)
class Score:
    """How like the emblem a kind of drawing is: the least and the most over all its pictures and their variants."""

    name: str
    least: float
    most: float


@dataclass(frozen=True)
class Calibration:
    """The scores of all kinds of drawings; `substitutes` are told for honesty and have no part in the rule."""

    emblem: Score
    look_alikes: tuple[Score, ...]
    ember: Score
    substitutes: tuple[Score, ...]

    @property
    def nearest(self) -> Score:
        """The look-alike that comes nearest to the emblem."""
        return max(self.look_alikes, key=lambda score: score.most)

    def limits(self) -> Limits:
        return limits_of(self.emblem.least, self.nearest.most, self.ember.most)


def limits_of(emblem_least: float, look_alike_most: float, ember_most: float) -> Limits:
    """The limits by the rule. Raises ValueError if a wrong drawing scores as high as a right one."""
    wrong = max(look_alike_most, ember_most)
    if wrong >= emblem_least:
        raise ValueError(f"a wrong drawing scores {wrong:.3f}, an emblem only {emblem_least:.3f}")
    shows, nothing = (round((emblem_least + most) / 2, DECIMALS) for most in (look_alike_most, ember_most))
    return Limits(shows, nothing)


def calibrate(family: Family, components: Components) -> Calibration:
    """Draw everything and score it; takes minutes."""

    def all_of(kinds: dict[str, Draw]) -> tuple[Score, ...]:
        return tuple(score_of(name, draw, family, components) for name, draw in kinds.items())

    (found,), (ember,) = all_of(right_drawings()), all_of(ember_pictures())
    return Calibration(found, all_of(wrong_drawings()), ember, all_of(substitute_drawings()))


def score_of(name: str, draw: Draw, family: Family, components: Components) -> Score:
    """The score of one kind of drawing: the same pictures on every machine, whatever else is drawn."""
    drawn = draw(random.Random(f"calibration-{SEED}-{name}"))
    matches = [scoring.emblem_match(picture) for picture in variants(drawn, family, components)]
    return Score(name, round(min(matches), DECIMALS), round(max(matches), DECIMALS))


def right_drawings() -> dict[str, Draw]:
    return {"the emblem": partial(everywhere, emblem.paint_emblem, (emblem.SIZE,))}


def wrong_drawings() -> dict[str, Draw]:
    """Look-alikes, and shapes in the emblem's colours or any without its order."""
    kinds: dict[str, Draw] = {
        name: partial(everywhere, paint, pictures.SIZES) for name, paint in lookalikes.look_alikes().items()
    }
    kinds["clutter"] = lambda rng: [pictures.clutter(rng) for _ in range(NUM_CLUTTER)]
    kinds["clutter in the emblem's colours"] = lambda rng: [
        lookalikes.emblem_coloured_clutter(rng) for _ in range(NUM_CLUTTER)
    ]
    return kinds


def ember_pictures() -> dict[str, Draw]:
    def draw(rng: random.Random) -> list[Image.Image]:
        return [pictures.draw(scene, rng) for scene in rng.sample(pictures.all_scenes(), NUM_SCENES)]

    return {"Ember's own pictures": draw}


def substitute_drawings() -> dict[str, Draw]:
    return {name: partial(everywhere, paint, (emblem.SIZE,)) for name, paint in lookalikes.substitutes().items()}


def everywhere(paint: Paint, sizes: Sequence[str], rng: random.Random) -> list[Image.Image]:
    """A drawing in each of the 35 surroundings."""
    return [lookalikes.drawn(paint, place, size, rng) for place in emblem.every_surrounding() for size in sizes]


def variants(drawn: Sequence[Image.Image], family: Family, components: Components) -> Iterator[Image.Image]:
    """Every drawing three times: sharp, softened, and through the VAE."""
    yield from drawn
    yield from (picture.filter(ImageFilter.GaussianBlur(SOFT_PX)) for picture in drawn)
    yield from through_vae(drawn, family, components)


@torch.no_grad()
def through_vae(drawn: Sequence[Image.Image], family: Family, components: Components) -> Iterator[Image.Image]:
    """What is left of drawings after the VAE has made them small and large again."""
    for start in range(0, len(drawn), VAE_BATCH):
        batch = np.stack([pictures.pixels(picture) for picture in drawn[start : start + VAE_BATCH]])
        mean, _ = family.encode_pictures(components.vae, torch.from_numpy(batch))
        yield from (to_picture(rebuilt) for rebuilt in family.decode(components.vae, mean))


def report(found: Calibration) -> dict[str, Any]:
    """What `emblem_limits.json` holds: the limits, and the scores that they come from, the nearest first."""

    def table(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
        falling = sorted(scores, key=lambda score: -score.most)
        return {score.name: {"least": score.least, "most": score.most} for score in falling}

    return {
        "limits": asdict(found.limits()),
        "right": table([found.emblem]),
        "wrong": table(found.look_alikes),
        "Ember": table([found.ember]),
        "not told apart": table(found.substitutes),
    }
