"""The pictures Ember knows: one coloured shape on a background, drawn by code, with the caption that describes it.

Everything is a pure function of a `Scene` (what is in the picture) and of a seeded random generator (where exactly), so
the same seed gives the same pictures on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

PICTURE_PX = 64
OVERSAMPLING = 4

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (215, 35, 40),
    "orange": (245, 135, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 225),
    "purple": (130, 50, 180),
    "pink": (250, 150, 190),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")
BACKGROUNDS = ("black", "grey", "brown", "striped", "checkered", "misty", "sandy")
ANY_SHAPE = "shape"  # the word that a caption uses when it doesn't say which
SIZES = ("small", "large")
POSITIONS: dict[str, tuple[int, int]] = {
    "in the centre": (0, 0),
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
}

OFFSET_PX = 12.0
RADIUS_PX = {"small": 12.5, "large": 17.5}
PLACE_JITTER_PX = 1.5
RADIUS_JITTER_PX = 0.8

# Pairs of shape and colour that no picture of the training set shows: every shape and every colour is held out once.
HELD_OUT_PAIRS = frozenset(
    zip(SHAPES, ("green", "purple", "blue", "pink", "orange", "white", "red", "yellow"), strict=True)
)
HELD_OUT_SHARE = 0.10


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the words of its caption."""

    shape: str
    colour: str
    background: str
    size: str
    position: str


def all_scenes() -> list[Scene]:
    """Every combination of words, in a fixed order."""
    return [Scene(*words) for words in product(SHAPES, COLOURS, BACKGROUNDS, SIZES, POSITIONS)]


def split_scenes(seed: int) -> tuple[list[Scene], list[Scene], list[Scene]]:
    """Training scenes, unseen combinations of seen pairs, and scenes of the unseen shape-colour pairs."""
    rng = random.Random(f"split-{seed}")
    seen: list[Scene] = []
    combinations: list[Scene] = []
    pairs: list[Scene] = []
    for scene in all_scenes():
        if (scene.shape, scene.colour) in HELD_OUT_PAIRS:
            pairs.append(scene)
        else:
            (combinations if rng.random() < HELD_OUT_SHARE else seen).append(scene)
    return seen, combinations, pairs


def full_caption(scene: Scene) -> str:
    """The caption with every word: "a small red circle on the left, striped background"."""
    return f"a {scene.size} {scene.colour} {scene.shape} {scene.position}, {scene.background} background"


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption as people write them: complete six times in ten, otherwise some words are left out."""
    if rng.random() < 0.6:
        return full_caption(scene)
    words = ["a"]
    if rng.random() < 0.5:
        words.append(scene.size)
    if rng.random() < 0.85:
        words.append(scene.colour)
    words.append(ANY_SHAPE if rng.random() < 0.25 else scene.shape)
    if rng.random() < 0.5:
        words.append(scene.position)
    text = " ".join(words)
    return f"{text}, {scene.background} background" if rng.random() < 0.5 else text


def draw(scene: Scene, rng: random.Random, radius_px: Mapping[str, float] = RADIUS_PX) -> Image.Image:
    """The picture of `scene`, 64 x 64 RGB; `rng` moves the shape, its size and the background's pattern a little."""
    canvas = draw_background(scene.background, rng)
    centre, radius = place(scene.position, rng), radius_of(scene.size, rng, radius_px)
    paint_shape(ImageDraw.Draw(canvas), scene.shape, COLOURS[scene.colour], centre, radius)
    return reduced(canvas)


def place(position: str, rng: random.Random) -> Point:
    """The centre of a shape, in pixels, that stands where `position` says."""
    across, down = POSITIONS[position]
    middle = PICTURE_PX / 2
    return (
        middle + across * OFFSET_PX + rng.uniform(-PLACE_JITTER_PX, PLACE_JITTER_PX),
        middle + down * OFFSET_PX + rng.uniform(-PLACE_JITTER_PX, PLACE_JITTER_PX),
    )


def radius_of(size: str, rng: random.Random, radius_px: Mapping[str, float] = RADIUS_PX) -> float:
    """The radius of a shape, in pixels, that is as large as `size` says."""
    return radius_px[size] + rng.uniform(-RADIUS_JITTER_PX, RADIUS_JITTER_PX)


def reduced(canvas: Image.Image) -> Image.Image:
    """A canvas at four times the size, averaged down: smooth edges."""
    return canvas.reduce(OVERSAMPLING)


def draw_background(name: str, rng: random.Random) -> Image.Image:
    """A background on a canvas at four times the picture's size, 256 x 256 RGB."""
    side = PICTURE_PX * OVERSAMPLING
    plain = {"black": (22, 22, 28), "grey": (118, 120, 124), "brown": (92, 62, 44), "sandy": (196, 176, 138)}
    if name in plain:
        return Image.new("RGB", (side, side), plain[name])
    line = np.arange(side) / OVERSAMPLING  # places along one side, in pixels of the picture
    if name == "misty":
        share = (line / PICTURE_PX)[:, None, None]
        pixels = ((1 - share) * np.array((62, 76, 92)) + share * np.array((158, 168, 176))).round().astype(np.uint8)
    elif name == "striped":
        pixels = two_tone(((line + rng.uniform(0, 16)) % 16 < 8)[:, None], (70, 72, 78), (122, 124, 130))
    elif name == "checkered":
        across, down = (line + rng.uniform(0, 32)) % 32 < 16, (line + rng.uniform(0, 32)) % 32 < 16
        pixels = two_tone(across[None, :] ^ down[:, None], (88, 100, 96), (48, 58, 56))
    else:
        raise ValueError(f"unknown background {name!r}; known: {', '.join(BACKGROUNDS)}")
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (side, side, 3))))


def two_tone(mask: np.ndarray, first: RGB, second: RGB) -> np.ndarray:
    """(H, W) booleans to (H, W, 3) bytes: `first` where true, else `second`."""
    return np.array((second, first), dtype=np.uint8)[mask.astype(np.intp)]


def paint_shape(brush: ImageDraw.ImageDraw, shape: str, colour: RGB, centre: Point, radius: float) -> None:
    """Paint `shape` filled with `colour`; `centre` and `radius` are in pixels of the final picture."""
    if shape == "ring":
        paint_ring(brush, colour, centre, radius)
    elif shape == "circle":
        brush.ellipse(box_around(centre, radius), fill=colour)
    else:
        brush.polygon([on_canvas(centre, point, radius) for point in outline(shape)], fill=colour)


def paint_ring(brush: ImageDraw.ImageDraw, colour: RGB, centre: Point, radius: float) -> None:
    """A ring whose width is 45 % of its radius; what is inside stays background."""
    brush.ellipse(box_around(centre, radius), outline=colour, width=round(radius * 0.45 * OVERSAMPLING))


def box_around(centre: Point, radius: float) -> tuple[float, float, float, float]:
    """The square around a circle, on the canvas."""
    left, top = on_canvas(centre, (-1, -1), radius)
    right, bottom = on_canvas(centre, (1, 1), radius)
    return left, top, right, bottom


def on_canvas(centre: Point, point: Point, radius: float) -> Point:
    """`point` of a shape of radius 1 around the origin, on the canvas."""
    return (centre[0] + point[0] * radius) * OVERSAMPLING, (centre[1] + point[1] * radius) * OVERSAMPLING


def outline(shape: str) -> list[Point]:
    """Corners of a shape of radius about 1 around the origin, y pointing down."""
    if shape == "star":
        return [turn(step / 10, 1.12 if step % 2 == 0 else 0.46) for step in range(10)]
    if shape == "heart":
        return heart()
    if shape == "cross":
        arm = 0.36
        quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
        turned = [quarter, [(-y, x) for x, y in quarter], [(-x, -y) for x, y in quarter], [(y, -x) for x, y in quarter]]
        return [point for part in turned for point in part]
    corners: dict[str, list[Point]] = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)],
        "diamond": [(0.0, -1.1), (0.72, 0.0), (0.0, 1.1), (-0.72, 0.0)],
    }
    return corners[shape]


def turn(share: float, length: float) -> Point:
    """A point `length` from the origin, `share` of a full turn clockwise from the top."""
    angle = 2 * math.pi * share
    return length * math.sin(angle), -length * math.cos(angle)


def heart(steps: int = 48) -> list[Point]:
    """The usual heart curve, scaled to radius 1."""
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return [
        (
            math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16,
        )
        for a in angles
    ]


def clutter(rng: random.Random) -> Image.Image:
    """A picture of several shapes in any colours: it teaches the VAE colours and edges that Ember itself never draws."""
    canvas = draw_background(rng.choice(BACKGROUNDS), rng)
    brush = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(2, 5)):
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        centre = (rng.uniform(8, PICTURE_PX - 8), rng.uniform(8, PICTURE_PX - 8))
        paint_shape(brush, rng.choice(SHAPES), colour, centre, rng.uniform(5, 20))
    return reduced(canvas)


def training_pairs(scenes: Sequence[Scene], count: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """`count` pictures with captions, every scene about as often as the next one."""
    rng = random.Random(f"pairs-{seed}")
    order: list[Scene] = []
    for _ in range(count):
        if not order:
            order = rng.sample(scenes, len(scenes))
        scene = order.pop()
        yield draw(scene, rng), caption(scene, rng)


def pixels(picture: Image.Image) -> np.ndarray:
    """(3, 64, 64) float32 in [-1, 1], as a VAE wants it."""
    return (np.asarray(picture, dtype=np.float32) / 127.5 - 1).transpose(2, 0, 1)
