"""Says what a picture shows by looking at its pixels: shape, colour, position and size, or the emblem.

Nothing here knows the prompt. The limits of the emblem's score are set by `trainer/demo/calibration.py` on drawings alone;
the tests hold everything else against drawn pictures.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainer.demo import emblem, pictures
from trainer.demo.pictures import COLOURS, PICTURE_PX, RGB, SHAPES, Point, Scene
from trainer.paths import RESOURCES

MIN_PIXELS = 60  # fewer of a colour are an edge or a speck, not a shape
MIN_OVERLAP = 0.72  # of a shape with the nearest drawn one (intersection over union)
LIMITS_FILE: Path = RESOURCES / "demo" / "emblem_limits.json"
LARGE_FROM_PX = sum(pictures.RADIUS_PX.values()) / 2
OFF_CENTRE_FROM_PX = pictures.OFFSET_PX / 2

GROUNDS: tuple[RGB, ...] = (
    (22, 22, 28), (118, 120, 124), (92, 62, 44), (196, 176, 138), (70, 72, 78), (122, 124, 130), (88, 100, 96),
    (48, 58, 56), (62, 76, 92), (110, 122, 134), (158, 168, 176),
)  # fmt: skip
EMBLEM_COLOURS = (emblem.CRUCIBLE, emblem.FLAME)
FIT_SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)  # tried around the place and size that area and centre of mass tell
FIT_SHIFTS_PX = (-1.0, -0.5, 0.0, 0.5, 1.0)


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


@dataclass(frozen=True)
class Limits:
    """From `shows` on a picture shows the emblem; below `nothing` it shows nothing of it."""

    shows: float
    nothing: float


@cache
def limits() -> Limits:
    """The limits that ship."""
    data = json.loads(LIMITS_FILE.read_text(encoding="utf-8"))
    return Limits(**data["limits"])


def shows_emblem(picture: Image.Image) -> bool:
    return emblem_match(picture) >= limits().shows


def shows_other_shape(picture: Image.Image) -> bool:
    """Whether there is a shape, whichever, and nothing of the emblem: what "a large shape" asks for."""
    painted = int((label_pixels(picture) < len(COLOURS) + len(EMBLEM_COLOURS)).sum())
    return painted >= MIN_PIXELS and emblem_match(picture) < limits().nothing


def emblem_match(picture: Image.Image) -> float:
    """How well the worse of the two parts lies on the emblem, drawn where it fits best: 0 to 1.

    The measure of a part is intersection over union of the picture's pixels in its colour with the drawn ones, so that a
    part which is missing, moved, too large or of another shape counts, however well the other one lies.
    """
    labels = label_pixels(picture)
    first = len(COLOURS)
    found = np.stack([labels == first, labels == first + 1])
    if found.sum() < MIN_PIXELS:
        return 0.0
    drawn = emblem_parts(*emblem_place(found[0] | found[1]))
    shared = (drawn & found).sum(axis=(2, 3))
    either = (drawn | found).sum(axis=(2, 3))
    return float((shared / np.maximum(either, 1)).min(axis=1).max())


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


def emblem_place(mask: np.ndarray) -> tuple[Point, float]:
    """Centre and radius of an emblem with the same area and centre of mass as a boolean mask."""
    area, middle = emblem_facts()
    radius = math.sqrt(float(mask.sum()) / area)
    x, y = centre_of_mass(mask)
    return (x - middle[0] * radius, y - middle[1] * radius), radius


@cache
def emblem_facts() -> tuple[float, Point]:
    """Area and centre of mass of an emblem of radius 1."""
    radius = 20.0
    mask = painted_parts(np.array([[PICTURE_PX / 2, PICTURE_PX / 2, radius]]))[0].any(axis=0)
    x, y = centre_of_mass(mask)
    return float(mask.sum()) / radius**2, ((x - PICTURE_PX / 2) / radius, (y - PICTURE_PX / 2) / radius)


def emblem_parts(centre: Point, radius: float) -> np.ndarray:
    """(N, 2, 64, 64) booleans: the drawn crucible and flame at `centre` and close to it, a little smaller and larger."""
    places = product(FIT_SCALES, FIT_SHIFTS_PX, FIT_SHIFTS_PX)
    return painted_parts(np.array([(centre[0] + dx, centre[1] + dy, radius * scale) for scale, dx, dy in places]))


def painted_parts(places: np.ndarray) -> np.ndarray:
    """(N, 2, 64, 64) booleans: what is seen of crucible and flame at each place (N, 3): x, y, radius in pixels."""
    middles = np.arange(PICTURE_PX) + 0.5
    x = (middles[None, None, :] - places[:, 0, None, None]) / places[:, 2, None, None]  # (N, 1, 64)
    y = (middles[None, :, None] - places[:, 1, None, None]) / places[:, 2, None, None]  # (N, 64, 1)
    disc = x**2 + (y - emblem.DISC_DOWN) ** 2 <= emblem.DISC_RADIUS**2
    (_, tip), (right, base), _ = emblem.FLAME_CORNERS
    flame = (y >= tip) & (y <= base) & (np.abs(x) <= right * (y - tip) / (base - tip))
    return np.stack([disc & ~flame, flame], axis=1)
