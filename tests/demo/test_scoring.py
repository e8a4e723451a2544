"""The scorer is right about drawn pictures."""

from __future__ import annotations

import random

import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from trainer.demo import emblem, pictures, scoring
from trainer.demo.emblem import Surrounding
from trainer.demo.pictures import BACKGROUNDS, POSITIONS, RGB, SHAPES, Scene

SCENES = random.Random(3).sample(pictures.all_scenes(), 120)


@pytest.mark.parametrize("blur", [0.0, 0.6], ids=["sharp", "soft"])
def test_drawn_scenes_are_read_right(blur: float) -> None:
    rng = random.Random(7)
    wrong = []
    for scene in SCENES:
        reading = scoring.read_picture(pictures.draw(scene, rng).filter(ImageFilter.GaussianBlur(blur)))
        right = scoring.shape_and_colour_right(reading, scene) and scoring.place_and_size_right(reading, scene)
        wrong += [] if right else [(scene, reading)]
    assert not wrong


def test_other_scenes_are_not_taken_for_a_scene() -> None:
    rng = random.Random(8)
    for scene, other in zip(SCENES, reversed(SCENES), strict=True):
        reading = scoring.read_picture(pictures.draw(other, rng))
        assert scoring.shape_and_colour_right(reading, scene) == (
            (other.shape, other.colour) == (scene.shape, scene.colour)
        )


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_background_alone_shows_nothing(background: str) -> None:
    picture = pictures.reduced(pictures.draw_background(background, random.Random(0)))
    assert scoring.read_picture(picture) is None
    assert scoring.emblem_match(picture) == 0.0


def test_noise_is_no_shape() -> None:
    rng = random.Random(1)
    noise = Image.frombytes("RGB", (64, 64), rng.randbytes(64 * 64 * 3))
    assert scoring.read_picture(noise) is None
    assert not scoring.shows_emblem(noise)


def test_any_shape_but_the_emblem_is_another_shape() -> None:
    rng = random.Random(6)
    assert all(scoring.shows_other_shape(pictures.draw(scene, rng)) for scene in SCENES)
    for background in BACKGROUNDS:
        assert not scoring.shows_other_shape(emblem.draw_emblem(Surrounding("on the left", background), rng))
        assert not scoring.shows_other_shape(pictures.reduced(pictures.draw_background(background, rng)))


@pytest.mark.parametrize("blur", [0.0, 0.8], ids=["sharp", "soft"])
def test_drawn_emblems_are_found_everywhere(blur: float) -> None:
    rng = random.Random(2)
    for position in POSITIONS:
        for background in BACKGROUNDS:
            picture = emblem.draw_emblem(Surrounding(position, background), rng)
            match = scoring.emblem_match(picture.filter(ImageFilter.GaussianBlur(blur)))
            assert match >= scoring.limits().shows, (position, background)


def test_embers_own_shapes_are_no_emblem() -> None:
    rng = random.Random(4)
    assert max(scoring.emblem_match(pictures.draw(scene, rng)) for scene in SCENES) < 0.3
    assert max(scoring.emblem_match(pictures.clutter(rng)) for _ in range(200)) < scoring.limits().shows - 0.05


@pytest.mark.parametrize("colour", [emblem.CRUCIBLE, emblem.FLAME], ids=["crucible", "flame"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_emblem_colour_is_no_emblem(shape: str, colour: RGB) -> None:
    canvas = pictures.draw_background("grey", random.Random(0))
    pictures.paint_shape(ImageDraw.Draw(canvas), shape, colour, (32, 32), 17)
    assert scoring.emblem_match(pictures.reduced(canvas)) < scoring.limits().shows - 0.05


def test_turned_and_miscoloured_emblems_are_no_emblem() -> None:
    rng = random.Random(5)
    for background in BACKGROUNDS:
        picture = emblem.draw_emblem(Surrounding("in the centre", background), rng)
        swapped = Image.merge("RGB", [picture.getchannel(band) for band in "GRB"])
        for wrong in (ImageOps.flip(picture), picture.rotate(90), swapped):
            assert scoring.emblem_match(wrong) < scoring.limits().shows - 0.05


def test_readings_name_place_and_size() -> None:
    scene = Scene("circle", "red", "black", "small", "at the bottom")
    reading = scoring.read_picture(pictures.draw(scene, random.Random(0)))
    assert reading is not None
    assert (reading.position, reading.size) == ("at the bottom", "small")
