"""Ember's pictures and the demo's dataset are the same on every machine, and say what their captions say."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config.files import read_run, to_toml
from trainer.data.index import index_dataset
from trainer.demo import emblem, pictures, recipe


def fingerprint(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()[:16]


def test_same_seed_same_picture() -> None:
    scene = pictures.Scene("heart", "red", "checkered", "small", "on the left")
    first, second, other = (pictures.draw(scene, random.Random(seed)) for seed in (1, 1, 2))
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)


def test_every_scene_can_be_drawn_and_named() -> None:
    scenes = pictures.all_scenes()
    assert len(scenes) == 8 * 8 * 7 * 2 * 5
    captions = {pictures.full_caption(scene) for scene in scenes}
    assert len(captions) == len(scenes)
    for scene in scenes[::97]:
        assert np.asarray(pictures.draw(scene, random.Random(0))).shape == (64, 64, 3)


def test_held_out_scenes_are_never_in_the_training_pictures() -> None:
    seen, combinations, pairs = pictures.split_scenes(0)
    assert not set(seen) & (set(combinations) | set(pairs))
    assert len(seen) + len(combinations) + len(pairs) == len(pictures.all_scenes())
    assert {(scene.shape, scene.colour) for scene in pairs} == set(pictures.HELD_OUT_PAIRS)
    assert {scene.shape for scene in pairs} == set(pictures.SHAPES)
    assert {scene.colour for scene in pairs} == set(pictures.COLOURS)


def test_captions_leave_words_out_but_never_add_any() -> None:
    scene = pictures.Scene("star", "blue", "misty", "large", "at the top")
    rng = random.Random(0)
    captions = [pictures.caption(scene, rng) for _ in range(400)]
    allowed = set(pictures.full_caption(scene).replace(",", "").split()) | {pictures.ANY_SHAPE}
    assert all(set(text.replace(",", "").split()) <= allowed for text in captions)
    assert 0.5 < captions.count(pictures.full_caption(scene)) / len(captions) < 0.75


def test_unknown_background_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown background"):
        pictures.draw_background("tartan", random.Random(0))


def test_shown_and_unseen_surroundings_are_apart() -> None:
    shown, unseen = emblem.split_surroundings(emblem.CONCEPT_SEED)
    assert (len(shown), len(unseen)) == (15, 20)
    assert not set(shown) & set(unseen)
    assert {item.background for item in shown} == set(pictures.BACKGROUNDS)


def test_shipped_dataset_is_the_drawn_one(tmp_path: Path) -> None:
    emblem.write_concept(tmp_path, emblem.CONCEPT_SEED)
    drawn = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {
        path.relative_to(recipe.CONCEPT_FOLDER): path for path in recipe.CONCEPT_FOLDER.rglob("*") if path.is_file()
    }
    assert drawn.keys() == shipped.keys()
    for name, path in drawn.items():
        if name.suffix == ".png":
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(shipped[name]))), name
        else:
            assert path.read_text(encoding="utf-8") == shipped[name].read_text(encoding="utf-8")


def test_control_leaves_only_the_trigger_out(tmp_path: Path) -> None:
    emblem.write_concept(tmp_path, emblem.CONCEPT_SEED, trigger="")
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("emblem_*.txt")]
    assert len(texts) == 15
    assert not any(emblem.TRIGGER in text for text in texts)


def test_shipped_run_file_is_current() -> None:
    assert recipe.RUN_FILE.read_text(encoding="utf-8") == to_toml(recipe.demo_run())


def test_shipped_dataset_is_read_as_kohya_folders() -> None:
    run = read_run(recipe.RUN_FILE)
    index = index_dataset(run.images.folders, run.regularization.folders)
    assert not index.skipped
    learn = [item for item in index.items if not item.is_reg]
    classes = [item for item in index.items if item.is_reg]
    assert (len(learn), len(classes)) == (emblem.NUM_PICTURES, emblem.NUM_CLASS_PICTURES)
    assert all(emblem.TRIGGER in item.caption and item.repeats == emblem.REPEATS for item in learn)
    assert not any(emblem.TRIGGER in item.caption for item in classes)
