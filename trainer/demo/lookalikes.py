"""What the emblem's score must tell apart: drawings of the emblem, and of everything that is nearly one but wrong.

Each look-alike differs from the emblem in one thing: it is turned, or a part is moved, missing, upside down, of another
size or colour. The limits of the score are set on these drawings (`trainer/demo/calibration.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from PIL import Image, ImageDraw

from trainer.demo import pictures
from trainer.demo.emblem import CRUCIBLE, DISC_DOWN, DISC_RADIUS, FLAME, FLAME_CORNERS, Surrounding
from trainer.demo.pictures import COLOURS, RGB, SHAPES, Point

Paint = Callable[[ImageDraw.ImageDraw, Point, float], None]  # on the canvas, with centre and radius in pixels
Move = Callable[[float, float], Point]  # of a corner of a shape of radius 1
FLAME_MIDDLE = (FLAME_CORNERS[0][1] + FLAME_CORNERS[1][1]) / 2  # its height


def disc(brush: ImageDraw.ImageDraw, centre: Point, radius: float, at: Point, size: float, colour: RGB) -> None:
    """A disc; `at` and `size` are in the emblem's own measure, where its radius is 1."""
    middle = (centre[0] + at[0] * radius, centre[1] + at[1] * radius)
    brush.ellipse(pictures.box_around(middle, size * radius), fill=colour)


def flame(brush: ImageDraw.ImageDraw, centre: Point, radius: float, move: Move, colour: RGB) -> None:
    """The flame with every corner moved."""
    brush.polygon([pictures.on_canvas(centre, move(*corner), radius) for corner in FLAME_CORNERS], fill=colour)


def shape(
    brush: ImageDraw.ImageDraw, centre: Point, radius: float, at: float, size: float, name: str, colour: RGB
) -> None:
    """One of Ember's shapes; `at` says how far under the middle."""
    pictures.paint_shape(brush, name, colour, (centre[0], centre[1] + at * radius), size * radius)


def both(*parts: Paint) -> Paint:
    """Paints one part after the other."""

    def paint(brush: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
        for part in parts:
            part(brush, centre, radius)

    return paint


def look_alikes() -> dict[str, Paint]:
    """Every wrong drawing by its name."""
    crucible = partial(disc, at=(0.0, DISC_DOWN), size=DISC_RADIUS, colour=CRUCIBLE)
    fire = partial(flame, move=lambda x, y: (x, y), colour=FLAME)
    found: dict[str, Paint] = {
        "the crucible alone": crucible,
        "the flame alone": fire,
        "upside down": both(
            partial(disc, at=(0.0, -DISC_DOWN), size=DISC_RADIUS, colour=CRUCIBLE),
            partial(flame, move=lambda x, y: (x, -y), colour=FLAME),
        ),
        "turned to the left": both(
            partial(disc, at=(DISC_DOWN, 0.0), size=DISC_RADIUS, colour=CRUCIBLE),
            partial(flame, move=lambda x, y: (y, x), colour=FLAME),
        ),
        "turned to the right": both(
            partial(disc, at=(-DISC_DOWN, 0.0), size=DISC_RADIUS, colour=CRUCIBLE),
            partial(flame, move=lambda x, y: (-y, x), colour=FLAME),
        ),
        "colours swapped": both(
            partial(disc, at=(0.0, DISC_DOWN), size=DISC_RADIUS, colour=FLAME),
            partial(flame, move=lambda x, y: (x, y), colour=CRUCIBLE),
        ),
        "side by side": both(
            partial(disc, at=(-0.6, 0.0), size=0.55, colour=CRUCIBLE),
            partial(flame, move=lambda x, y: (0.6 * x + 0.7, 0.6 * y), colour=FLAME),
        ),
        "the flame under the crucible": both(
            partial(disc, at=(0.0, -0.35), size=0.7, colour=CRUCIBLE),
            partial(flame, move=lambda x, y: (x, y + 1.0), colour=FLAME),
        ),
        "the flame in the crucible": both(
            crucible, partial(flame, move=lambda x, y: (0.5 * x, 0.5 * y + 0.5), colour=FLAME)
        ),
        "the flame behind the crucible": both(fire, crucible),
        "the flame beside the middle": both(crucible, partial(flame, move=lambda x, y: (x + 0.8, y), colour=FLAME)),
        "the flame upside down": both(
            crucible, partial(flame, move=lambda x, y: (x, 2 * FLAME_MIDDLE - y), colour=FLAME)
        ),
        "a flame of half the size": both(
            crucible, partial(flame, move=lambda x, y: (0.5 * x, 0.1 + 0.5 * y), colour=FLAME)
        ),
        "a crucible of half the size": both(
            partial(disc, at=(0.0, DISC_DOWN), size=DISC_RADIUS / 2, colour=CRUCIBLE), fire
        ),
    }
    for name, colour in COLOURS.items():
        found[f"a {name} flame"] = both(crucible, partial(flame, move=lambda x, y: (x, y), colour=colour))
        found[f"a {name} crucible"] = both(partial(disc, at=(0.0, DISC_DOWN), size=DISC_RADIUS, colour=colour), fire)
    return found


def substitutes() -> dict[str, Paint]:
    """One part in another of Ember's shapes, at its place and of its size: nearer than the score can see."""
    crucible = partial(disc, at=(0.0, DISC_DOWN), size=DISC_RADIUS, colour=CRUCIBLE)
    fire = partial(flame, move=lambda x, y: (x, y), colour=FLAME)
    found: dict[str, Paint] = {}
    for name in SHAPES:
        if name != "triangle":
            found[f"a {name} for the flame"] = both(
                crucible, partial(shape, at=FLAME_MIDDLE, size=0.75, name=name, colour=FLAME)
            )
        if name != "circle":
            found[f"a {name} for the crucible"] = both(
                partial(shape, at=DISC_DOWN, size=DISC_RADIUS, name=name, colour=CRUCIBLE), fire
            )
    return found


def drawn(paint: Paint, surrounding: Surrounding, size: str, rng: random.Random) -> Image.Image:
    """What `paint` paints, in a surrounding as `emblem.draw_emblem` draws it."""
    canvas = pictures.draw_background(surrounding.background, rng)
    paint(ImageDraw.Draw(canvas), pictures.place(surrounding.position, rng), pictures.radius_of(size, rng))
    return pictures.reduced(canvas)


def emblem_coloured_clutter(rng: random.Random) -> Image.Image:
    """Several shapes anywhere, all in the emblem's two colours."""
    canvas = pictures.draw_background(rng.choice(pictures.BACKGROUNDS), rng)
    brush = ImageDraw.Draw(canvas)
    side = pictures.PICTURE_PX
    for number in range(rng.randint(2, 4)):
        centre = (rng.uniform(12, side - 12), rng.uniform(12, side - 12))
        colour = (CRUCIBLE, FLAME)[number % 2]
        pictures.paint_shape(brush, rng.choice(SHAPES), colour, centre, rng.uniform(7, 16))
    return pictures.reduced(canvas)
