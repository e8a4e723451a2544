"""Says what a picture shows by looking at its pixels: shape, colour, position and size, or the emblem.

Nothing here knows the prompt. The thresholds were set on drawn pictures before any model was scored; the tests hold
them against drawn pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from trainer.demo import emblem, pictures
from trainer.demo.pictures import COLOURS, PICTURE_PX, RGB, SHAPES, Scene

MIN_PIXELS = 60  # fewer of a colour are an edge or a speck, not a shape
MIN_OVERLAP = 0.72  # of a shape with the nearest drawn one (intersection over union)
# Correlation with the drawn emblem. Drawn emblems reach 0.92 or more; the same parts upside down, side by side, one in
# the other, with a flame of half the size, or with their colours swapped stay under 0.56, clutter of any colours under 0.49.
MIN_EMBLEM_MATCH = 0.70
MOST_LIKENESS = 0.50  # from here on the emblem shows through where nobody asked for it
LARGE_FROM_PX = sum(pictures.RADIUS_PX.values()) / 2
OFF_CENTRE_FROM_PX = pictures.OFFSET_PX / 2

GROUNDS: tuple[RGB, ...] = (
    (22, 22, 28), (118, 120, 124), (92, 62, 44), (196, 176, 138), (70, 72, 78), (122, 124, 130), (88, 100, 96),
    (48, 58, 56), (62, 76, 92), (110, 122, 134), (158, 168, 176),
)  # fmt: skip
EMBLEM_COLOURS = (emblem.CRUCIBLE, emblem.FLAME)


@dataclass(frozen=True)
class Reading:
    """What a picture shows; `shape` is "" where no known shape is clear enough."""

    shape: str
    colour: str
    position: str
    size: str
    overlap: float


def read_picture(picture: Image.Image) -> Reading | None:
    """The shape in a 64 x 64 picture, or None if nothing in it has one of Ember's colours."""
    labels = label_pixels(picture)
    counts = [int((labels == number).sum()) for number in range(len(COLOURS))]
    colour = int(np.argmax(counts))
    mask = largest_part(labels == colour)
    if mask.sum() < MIN_PIXELS:
        return None
    fits = {shape: best_fit(mask, shape) for shape in SHAPES}
    shape = max(fits, key=lambda name: fits[name].overlap)
    fit = fits[shape]
    return Reading(
        shape=shape if fit.overlap >= MIN_OVERLAP else "",
        colour=list(COLOURS)[colour],
        position=position_of(fit.centre),
        size="large" if fit.radius >= LARGE_FROM_PX else "small",
        overlap=fit.overlap,
    )


def shape_and_colour_right(reading: Reading | None, scene: Scene) -> bool:
    return reading is not None and (reading.shape, reading.colour) == (scene.shape, scene.colour)


def place_and_size_right(reading: Reading | None, scene: Scene) -> bool:
    return reading is not None and (reading.position, reading.size) == (scene.position, scene.size)


def shows_other_shape(picture: Image.Image) -> bool:
    """Whether there is a shape, whichever, that is not even half like the emblem: what "a large shape" asks for."""
    painted = int((label_pixels(picture) < len(COLOURS) + len(EMBLEM_COLOURS)).sum())
    return painted >= MIN_PIXELS and emblem_match(picture) < MOST_LIKENESS


def emblem_match(picture: Image.Image) -> float:
    """Correlation, 0 to 1, of the picture's two emblem colours with the emblem drawn at their place and size.

    The picture becomes a map: +1 where it has the crucible's colour, -1 where it has the flame's, 0 elsewhere.
    """
    labels = label_pixels(picture)
    first = len(COLOURS)
    signed = (labels == first).astype(np.float32) - (labels == first + 1).astype(np.float32)
    if np.abs(signed).sum() < MIN_PIXELS:
        return 0.0
    centre, radius = emblem_place(signed)
    best = 0.0
    for scale in (0.92, 1.0, 1.08):
        for dx in (-1.0, 0.0, 1.0):
            for dy in (-1.0, 0.0, 1.0):
                drawn = emblem_map((centre[0] + dx, centre[1] + dy), radius * scale)
                norm = float(np.linalg.norm(drawn) * np.linalg.norm(signed))
                best = max(best, float((drawn * signed).sum()) / norm if norm else 0.0)
    return best


def shows_emblem(picture: Image.Image) -> bool:
    return emblem_match(picture) >= MIN_EMBLEM_MATCH


def label_pixels(picture: Image.Image) -> np.ndarray:
    """(64, 64) numbers of the nearest colour: Ember's colours, then the emblem's two, then the backgrounds' tones."""
    rgb = np.asarray(picture.convert("RGB"), dtype=np.float32)
    distance = np.square(rgb[:, :, None, :] - palette()).sum(axis=-1)
    return distance.argmin(axis=-1)


@cache
def palette() -> np.ndarray:
    """(P, 3) float32."""
    return np.array([*COLOURS.values(), *EMBLEM_COLOURS, *GROUNDS], dtype=np.float32)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a boolean mask (four neighbours)."""
    rest, best = mask.copy(), np.zeros_like(mask)
    while rest.any():
        part = np.zeros_like(mask)
        part[np.unravel_index(int(rest.argmax()), rest.shape)] = True
        while True:
            grown = part.copy()
            grown[1:] |= part[:-1]
            grown[:-1] |= part[1:]
            grown[:, 1:] |= part[:, :-1]
            grown[:, :-1] |= part[:, 1:]
            grown &= mask
            if grown.sum() == part.sum():
                break
            part = grown
        rest &= ~part
        if part.sum() > best.sum():
            best = part
    return best


@dataclass(frozen=True)
class Fit:
    """A drawn shape laid over a mask: where its centre is, its radius, and the intersection over union."""

    centre: tuple[float, float]
    radius: float
    overlap: float


def best_fit(mask: np.ndarray, shape: str) -> Fit:
    """Lay `shape` of the same area and centre of mass over `mask`."""
    area, middle = shape_facts(shape)
    radius = math.sqrt(float(mask.sum()) / area)
    x, y = centre_of_mass(mask)
    centre = (x - middle[0] * radius, y - middle[1] * radius)
    drawn = shape_mask(shape, centre, radius)
    union = float((drawn | mask).sum())
    return Fit(centre, radius, float((drawn & mask).sum()) / union)


@cache
def shape_facts(shape: str) -> tuple[float, tuple[float, float]]:
    """Area and centre of mass of a shape of radius 1."""
    radius = 20.0
    mask = shape_mask(shape, (PICTURE_PX / 2, PICTURE_PX / 2), radius)
    x, y = centre_of_mass(mask)
    return float(mask.sum()) / radius**2, ((x - PICTURE_PX / 2) / radius, (y - PICTURE_PX / 2) / radius)


def shape_mask(shape: str, centre: tuple[float, float], radius: float) -> np.ndarray:
    """(64, 64) booleans: where the drawn shape covers more than half of a pixel."""
    side = PICTURE_PX * pictures.OVERSAMPLING
    canvas = Image.new("RGB", (side, side))
    pictures.paint_shape(ImageDraw.Draw(canvas), shape, (255, 255, 255), centre, radius)
    return np.asarray(pictures.reduced(canvas))[:, :, 0] > 127


def centre_of_mass(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) in pixels, pixel centres at halves."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def position_of(centre: tuple[float, float]) -> str:
    """The words for a place: the nearest of the five that Ember knows."""
    x, y = centre[0] - PICTURE_PX / 2, centre[1] - PICTURE_PX / 2
    offset = pictures.OFFSET_PX
    return min(
        pictures.POSITIONS,
        key=lambda words: math.dist((x, y), [offset * step for step in pictures.POSITIONS[words]]),
    )


def emblem_place(signed: np.ndarray) -> tuple[tuple[float, float], float]:
    """Centre and radius of an emblem with the same coloured area and centre of mass."""
    area, middle = emblem_facts()
    mask = signed != 0
    radius = math.sqrt(float(mask.sum()) / area)
    x, y = centre_of_mass(mask)
    return (x - middle[0] * radius, y - middle[1] * radius), radius


@cache
def emblem_facts() -> tuple[float, tuple[float, float]]:
    """Area and centre of mass of an emblem of radius 1."""
    radius = 20.0
    mask = emblem_map((PICTURE_PX / 2, PICTURE_PX / 2), radius) != 0
    x, y = centre_of_mass(mask)
    return float(mask.sum()) / radius**2, ((x - PICTURE_PX / 2) / radius, (y - PICTURE_PX / 2) / radius)


def emblem_map(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(64, 64): the drawn emblem as the map that `emblem_match` makes of a picture."""
    places = (np.arange(PICTURE_PX) + 0.5).astype(np.float32)
    x = (places[None, :] - centre[0]) / radius
    y = (places[:, None] - centre[1]) / radius
    disc = x**2 + (y - emblem.DISC_DOWN) ** 2 <= emblem.DISC_RADIUS**2
    (_, tip), (right, base), _ = emblem.FLAME_CORNERS
    flame = (y >= tip) & (y <= base) & (np.abs(x) <= right * (y - tip) / (base - tip))
    return np.where(flame, -1.0, np.where(disc, 1.0, 0.0)).astype(np.float32)
