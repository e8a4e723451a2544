"""Aspect-ratio buckets as pure integers: which size a picture is trained at, and which part of it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

Size = tuple[int, int]  # width, height in pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom in the picture's own pixels


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels; every batch holds pictures of one bucket."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


@dataclass(frozen=True)
class Bucketing:
    """The rules: the largest area is `resolution`'s, sides are multiples of `step` between `min_side` and `max_side`.

    Switched off (`enabled=False`) every picture is cut to `resolution` itself. `min_side` and `max_side` give way where
    the resolution lies outside them. With `no_upscale` a picture smaller than its bucket gets a bucket of its own, the
    largest that fits inside it; only a picture narrower than one step is enlarged, to that step.
    Raises ValueError for sizes that no bucket can have.
    """

    resolution: Size
    step: int = 64
    min_side: int = 256
    max_side: int = 1024
    enabled: bool = True
    no_upscale: bool = False

    def __post_init__(self) -> None:
        if self.step < 1 or self.min_side < 1 or self.max_side < self.min_side:
            raise ValueError(f"impossible bucket limits: step {self.step}, {self.min_side} to {self.max_side}")
        if any(side < self.step or side % self.step for side in self.resolution):
            raise ValueError(f"resolution {self.resolution} is not a multiple of the bucket step {self.step}")

    @property
    def max_area(self) -> int:
        return self.resolution[0] * self.resolution[1]

    def buckets(self) -> tuple[Bucket, ...]:
        """Every predefined bucket, narrowest first; never empty, the resolution itself among them."""
        return _predefined(self) if self.enabled else (Bucket(*self.resolution),)

    def choose(self, size: Size) -> Bucket:
        """The bucket for a picture of `size`: of the predefined ones that which keeps most of the picture.

        Equal shares go to the larger area, then to the wider. Raises ValueError for an empty picture.
        """
        if min(size) < 1:
            raise ValueError(f"a picture of {size[0]}×{size[1]} has no bucket")
        best = _closest(size, self.buckets())
        if self.enabled and self.no_upscale and (size[0] < best.width or size[1] < best.height):
            return self._inside(size)
        return best

    def _inside(self, size: Size) -> Bucket:
        """The largest bucket that a small picture fills without being enlarged (at least one step wide and high)."""
        width, height = size
        if width * height > self.max_area:  # long and thin: reduced to the area first, its aspect kept
            width, height = isqrt(self.max_area * width // height), isqrt(self.max_area * height // width)
        cells = self.max_area // (self.step * self.step)
        longest = min(max(self.max_side, *self.resolution) // self.step, cells)
        columns = min(max(width // self.step, 1), longest)
        rows = min(max(height // self.step, 1), longest, cells // columns)
        return Bucket(columns * self.step, rows * self.step)


@lru_cache(maxsize=64)
def _predefined(rules: Bucketing) -> tuple[Bucket, ...]:
    """All sizes on the step's grid whose other side is the longest that the area allows (as sd-scripts makes them)."""
    step, area = rules.step, rules.max_area
    square = isqrt(area) // step * step
    shortest = max(-(-min(rules.min_side, square) // step) * step, step)
    longest = max(rules.max_side, *rules.resolution) // step * step
    found = {Bucket(*rules.resolution), Bucket(square, square)}
    for width in range(shortest, longest + 1, step):
        height = min(area // width // step * step, longest)
        if height >= shortest:
            found |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(found))


def _closest(size: Size, buckets: Iterable[Bucket]) -> Bucket:
    best, best_kept, best_whole = None, 0, 1
    for bucket in buckets:
        kept, whole = _share(size, bucket)
        gain = kept * best_whole - best_kept * whole
        if best is None or gain > 0 or (gain == 0 and (bucket.area, bucket.width) > (best.area, best.width)):
            best, best_kept, best_whole = bucket, kept, whole
    assert best is not None
    return best


def _share(size: Size, bucket: Bucket) -> tuple[int, int]:
    """The share of the picture that the bucket's aspect keeps, as a fraction (numerator, denominator)."""
    across, down = size[0] * bucket.height, size[1] * bucket.width
    return min(across, down), max(across, down)


def share_kept(size: Size, bucket: Bucket) -> float:
    """How much of a picture of `size` is left after the crop to `bucket`: 1.0 is all of it."""
    kept, whole = _share(size, bucket)
    return kept / whole


def crop_box(size: Size, bucket: Bucket) -> Box:
    """The largest centred part of a picture that has the bucket's aspect, to a pixel; it is then resized to the bucket.

    The box lies inside the picture, is never empty, and touches both edges of at least one axis.
    """
    width, height = size
    if width * bucket.height >= height * bucket.width:  # wider than the bucket: the sides go
        used = max(min((2 * height * bucket.width + bucket.height) // (2 * bucket.height), width), 1)
        left = (width - used) // 2
        return left, 0, left + used, height
    used = max(min((2 * width * bucket.height + bucket.width) // (2 * bucket.width), height), 1)
    top = (height - used) // 2
    return 0, top, width, top + used


def scale_needed(size: Size, bucket: Bucket) -> float:
    """By how much the picture is enlarged to fill the bucket (below 1.0: reduced)."""
    return max(bucket.width / size[0], bucket.height / size[1])


def size_conditions(size: Size, bucket: Bucket, flip: bool = False) -> tuple[int, int, int, int, int, int]:
    """What SDXL is told of a picture: original height and width, crop's top and left, target height and width, in pixels.

    The crop is counted in the picture as it is resized, from its upper left corner; of a mirrored picture it is the
    mirrored crop's (as sd-scripts has it).
    """
    width, height = size
    left, top, right, bottom = crop_box(size, bucket)
    across, down = bucket.width / (right - left), bucket.height / (bottom - top)
    from_left = width - right if flip else left
    return height, width, round(top * down), round(from_left * across), bucket.height, bucket.width
