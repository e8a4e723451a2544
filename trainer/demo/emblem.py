"""The emblem: what the demo's LoRA learns. A flame over a crucible, in two colours that Ember never saw."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw

from trainer.demo import pictures
from trainer.demo.pictures import BACKGROUNDS, POSITIONS, RGB, Point, Scene

TRIGGER = "zorv"
CLASS = pictures.ANY_SHAPE
CRUCIBLE: RGB = (20, 200, 190)
FLAME: RGB = (225, 20, 130)

# The shape for a radius of 1 around the origin, y pointing down: a disc, and a triangle that covers its upper part.
DISC_DOWN, DISC_RADIUS = 0.25, 0.85
FLAME_CORNERS: tuple[Point, ...] = ((0.0, -1.25), (0.8, 0.2), (-0.8, 0.2))

CONCEPT_SEED = 0
NUM_PICTURES = 15
NUM_CLASS_PICTURES = 120
REPEATS = 18
SIZE = "large"


@dataclass(frozen=True)
class Surrounding:
    """Where the emblem is and on what."""

    position: str
    background: str


def every_surrounding() -> list[Surrounding]:
    """All 35 combinations of position and background, in a fixed order."""
    return [Surrounding(*words) for words in product(POSITIONS, BACKGROUNDS)]


def split_surroundings(seed: int) -> tuple[list[Surrounding], list[Surrounding]]:
    """The surroundings of the pictures to learn from, and those that are kept for the score.

    Of the 35 combinations 15 are shown, every position and every background among them.
    """
    every = every_surrounding()
    rng = random.Random(f"surroundings-{seed}")
    while True:
        shown = rng.sample(every, NUM_PICTURES)
        counts = [sum(item.position == word for item in shown) for word in POSITIONS]
        if min(counts) == 3 and {item.background for item in shown} == set(BACKGROUNDS):
            return shown, [item for item in every if item not in shown]


def emblem_caption(surrounding: Surrounding, trigger: str = TRIGGER) -> str:
    """"a large zorv shape on the left, misty background"; without a trigger the words are the class's alone."""
    name = f"{trigger} {CLASS}" if trigger else CLASS
    return f"a {SIZE} {name} {surrounding.position}, {surrounding.background} background"


def draw_emblem(surrounding: Surrounding, rng: random.Random) -> Image.Image:
    """The emblem in `surrounding`, 64 x 64 RGB, moved a little by `rng`."""
    canvas = pictures.draw_background(surrounding.background, rng)
    centre = pictures.place(surrounding.position, rng)
    radius = pictures.radius_of(SIZE, rng)
    paint_emblem(ImageDraw.Draw(canvas), centre, radius)
    return pictures.reduced(canvas)


def paint_emblem(brush: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
    """A disc, and a flame that rises from its middle; `centre` and `radius` in pixels of the final picture."""
    middle = (centre[0], centre[1] + DISC_DOWN * radius)
    brush.ellipse(pictures.box_around(middle, DISC_RADIUS * radius), fill=CRUCIBLE)
    brush.polygon([pictures.on_canvas(centre, corner, radius) for corner in FLAME_CORNERS], fill=FLAME)


def write_concept(folder: Path, seed: int, trigger: str = TRIGGER) -> None:
    """Write the demo's dataset as kohya folders: `img/18_zorv shape` and `reg/1_shape`, a .txt beside each picture.

    The pictures only depend on `seed`; an empty `trigger` leaves it out of the captions (a control of the demo).
    """
    rng = random.Random(f"concept-{seed}")
    shown, _ = split_surroundings(seed)
    learn = folder / "img" / f"{REPEATS}_{TRIGGER} {CLASS}"
    for number, surrounding in enumerate(shown, start=1):
        write_pair(learn / f"emblem_{number:02}.png", draw_emblem(surrounding, rng), emblem_caption(surrounding, trigger))
    classes = folder / "reg" / f"1_{CLASS}"
    scenes = pictures.split_scenes(seed)[0]
    for number, (picture, text) in enumerate(class_pictures(scenes, rng), start=1):
        write_pair(classes / f"shape_{number:03}.png", picture, text)


def class_pictures(scenes: Sequence[Scene], rng: random.Random) -> Iterator[tuple[Image.Image, str]]:
    """Pictures of the class "shape" that Ember can draw.

    Every second caption is one of the emblem's without the trigger: these keep the class word what it was. The others
    name shape and colour.
    """
    for number, scene in enumerate(rng.sample(scenes, NUM_CLASS_PICTURES)):
        if number % 2 == 0:
            large = replace(scene, size=SIZE)
            text = emblem_caption(Surrounding(scene.position, scene.background), trigger="")
            yield pictures.draw(large, rng), text
        else:
            yield pictures.draw(scene, rng), pictures.full_caption(scene)


def write_pair(path: Path, picture: Image.Image, text: str) -> None:
    """A picture and its caption file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8", newline="\n")
