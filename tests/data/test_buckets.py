"""Buckets are pure integers: properties for every picture and every sensible setting, and figures worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.buckets import Bucket, Bucketing, crop_box, scale_needed, share_kept, size_conditions

sides = st.integers(1, 20_000)
sizes = st.tuples(sides, sides)


@st.composite
def bucketings(draw: st.DrawFn, no_upscale: bool | None = None, square: bool = False) -> Bucketing:
    step = draw(st.sampled_from([8, 16, 32, 64]))
    width = step * draw(st.integers(1, 24))
    resolution = (width, width if square else step * draw(st.integers(1, 24)))
    least = draw(st.integers(8, 600))
    upscale = draw(st.booleans()) if no_upscale is None else no_upscale
    return Bucketing(resolution, step, least, draw(st.integers(least, 2048)), no_upscale=upscale)


@given(bucketings(), sizes)
def test_a_bucket_is_never_zero_never_too_large_and_on_the_grid(rules: Bucketing, size: tuple[int, int]) -> None:
    bucket = rules.choose(size)
    assert bucket.width >= rules.step and bucket.height >= rules.step
    assert bucket.width % rules.step == 0 and bucket.height % rules.step == 0
    assert bucket.area <= rules.max_area
    longest = max(rules.max_side, *rules.resolution)
    assert bucket.width <= longest and bucket.height <= longest


@given(bucketings(no_upscale=False))
def test_predefined_buckets_keep_the_limits_that_the_resolution_allows(rules: Bucketing) -> None:
    for bucket in rules.buckets():
        if bucket != Bucket(*rules.resolution):
            square = int(rules.max_area**0.5) // rules.step * rules.step
            assert min(bucket.width, bucket.height) >= min(rules.min_side, square)
    assert Bucket(*rules.resolution) in rules.buckets()
    assert len(set(rules.buckets())) == len(rules.buckets())


@given(bucketings(no_upscale=False), sizes)
def test_no_other_bucket_keeps_more_of_the_picture(rules: Bucketing, size: tuple[int, int]) -> None:
    def kept(bucket: Bucket) -> Fraction:
        return Fraction(
            min(size[0] * bucket.height, size[1] * bucket.width), max(size[0] * bucket.height, size[1] * bucket.width)
        )

    assert kept(rules.choose(size)) == max(map(kept, rules.buckets()))


@given(bucketings(no_upscale=False), sizes, st.integers(1, 5000))
def test_a_wider_picture_never_gets_a_narrower_shape(rules: Bucketing, size: tuple[int, int], more: int) -> None:
    one, wider = rules.choose(size), rules.choose((size[0] + more, size[1]))
    assert Fraction(one.width, one.height) <= Fraction(wider.width, wider.height)


@given(bucketings(no_upscale=True), sizes)
def test_no_upscale_enlarges_only_to_a_step(rules: Bucketing, size: tuple[int, int]) -> None:
    bucket = rules.choose(size)
    assert bucket.width <= max(size[0], rules.step) and bucket.height <= max(size[1], rules.step)


@given(sizes, st.integers(1, 32), st.integers(1, 32))
def test_the_crop_lies_inside_in_the_middle_and_has_the_buckets_shape(
    size: tuple[int, int], columns: int, rows: int
) -> None:
    bucket = Bucket(columns * 64, rows * 64)
    left, top, right, bottom = crop_box(size, bucket)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert (left, right) == (0, size[0]) or (top, bottom) == (0, size[1])
    assert abs(left - (size[0] - right)) <= 1 and abs(top - (size[1] - bottom)) <= 1
    # Exact to half a pixel on the cropped axis (and never below one pixel).
    if (left, right) != (0, size[0]):
        assert abs((right - left) - Fraction(size[1] * bucket.width, bucket.height)) <= Fraction(1, 2) or right - left == 1
    if (top, bottom) != (0, size[1]):
        assert abs((bottom - top) - Fraction(size[0] * bucket.height, bucket.width)) <= Fraction(1, 2) or bottom - top == 1


@given(bucketings(no_upscale=False, square=True), sizes)
def test_a_transposed_picture_keeps_as_much(rules: Bucketing, size: tuple[int, int]) -> None:
    turned = rules.choose(size[::-1])
    assert share_kept(size, rules.choose(size)) == pytest.approx(share_kept(size[::-1], turned))


def test_the_usual_settings_give_the_sizes_that_users_know() -> None:
    rules = Bucketing((512, 512))
    assert rules.choose((1000, 1000)) == Bucket(512, 512)
    assert rules.choose((3000, 2000)) == Bucket(640, 384)
    assert rules.choose((1080, 1920)) == Bucket(384, 640)
    assert rules.choose((1000, 10)) == Bucket(1024, 256)
    assert crop_box((1000, 600), Bucket(512, 512)) == (200, 0, 800, 600)
    assert scale_needed((256, 256), Bucket(512, 512)) == 2.0
    assert share_kept((1000, 500), Bucket(512, 512)) == 0.5


def test_a_tiny_resolution_works_below_the_shortest_side() -> None:
    assert Bucketing((64, 64)).buckets() == (Bucket(64, 64),)
    assert Bucketing((64, 64), step=16).choose((100, 50)) == Bucket(64, 64)
    assert Bucketing((64, 64), step=16, min_side=16).choose((100, 50)) == Bucket(80, 48)


def test_switched_off_everything_is_cut_to_the_resolution() -> None:
    assert Bucketing((512, 768), enabled=False).choose((5000, 10)) == Bucket(512, 768)


def test_impossible_rules_and_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        Bucketing((500, 512))
    with pytest.raises(ValueError, match="impossible bucket limits"):
        Bucketing((512, 512), min_side=512, max_side=256)
    with pytest.raises(ValueError, match="no bucket"):
        Bucketing((512, 512)).choose((0, 5))


def test_size_conditions_by_hand() -> None:
    """Original and target as (height, width); the crop's corner in the picture as it is resized; mirrored with it."""
    assert size_conditions((1000, 1000), Bucket(512, 512)) == (1000, 1000, 0, 0, 512, 512)
    assert size_conditions((2000, 1000), Bucket(512, 512)) == (1000, 2000, 0, 256, 512, 512)
    assert size_conditions((1000, 2000), Bucket(512, 768)) == (2000, 1000, 128, 0, 768, 512)
    assert size_conditions((201, 100), Bucket(100, 100)) == (100, 201, 0, 50, 100, 100)
    assert size_conditions((201, 100), Bucket(100, 100), flip=True) == (100, 201, 0, 51, 100, 100)


@given(sizes, bucketings(), st.booleans())
def test_size_conditions_are_of_the_crop(size: tuple[int, int], rules: Bucketing, flip: bool) -> None:
    bucket = rules.choose(size)
    height, width, top, left, to_height, to_width = size_conditions(size, bucket, flip)
    assert (width, height) == size and Bucket(to_width, to_height) == bucket
    assert top >= 0 and left >= 0 and 0 in (top, left)
    box = crop_box(size, bucket)
    mirrored = size_conditions(size, bucket, not flip)
    across = bucket.width / (box[2] - box[0])
    assert left + bucket.width + mirrored[3] == pytest.approx(size[0] * across, abs=1.01)
