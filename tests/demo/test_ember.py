"""Ember is an ordinary SD 1.x file, and what is said of it belongs to the file that ships."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.demo import accuracy, ember, pictures
from trainer.demo.accuracy import Kind
from trainer.demo.recipe import DEMO_FOLDER, MODEL_FILE
from trainer.models.header import inspect_file
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY

ACCURACY_FILE = DEMO_FOLDER / "ember_accuracy.json"


@pytest.fixture(scope="module")
def loaded() -> Components:
    return FAMILY.load(MODEL_FILE)


def test_it_is_small_and_known_as_sd1() -> None:
    assert MODEL_FILE.stat().st_size <= 20 * 1024**2
    facts = inspect_file(MODEL_FILE)
    assert (facts.kind, facts.family, facts.problem) == ("base", "sd1", None)


def test_what_tensors_do_not_show_comes_from_the_config_beside(loaded: Components) -> None:
    assert loaded.vae.config.norm_num_groups == ember.CONFIG["vae"]["norm_num_groups"]
    assert loaded.text_encoder.config.num_attention_heads == ember.CONFIG["text_encoder"]["num_attention_heads"]
    assert loaded.text_encoder.config.vocab_size == 49408
    assert list(loaded.unet.config.block_out_channels) == ember.CONFIG["unet"]["block_out_channels"]


def test_latents_have_deviation_one(loaded: Components) -> None:
    scenes = pictures.split_scenes(accuracy.SPLIT_SEED)[1]
    drawn = [pictures.pixels(picture) for picture, _ in pictures.training_pairs(scenes, 64, seed=9)]
    mean, _ = FAMILY.encode_pictures(loaded.vae, torch.from_numpy(np.stack(drawn)))
    assert mean.mean(dim=(0, 2, 3)).abs().max() < 0.15
    assert 0.85 < mean.std() < 1.15


def test_a_few_held_out_prompts_are_followed(loaded: Components) -> None:
    results, sheet = accuracy.measure(FAMILY, loaded, count=5)
    assert all(kind.shape_and_colour >= 0.8 for kind in results), results
    assert sheet.size == (20 * 64, 64)


def test_accuracy_belongs_to_the_file_and_is_good_enough() -> None:
    report = json.loads(ACCURACY_FILE.read_text(encoding="utf-8"))
    assert report["model_sha256"] == hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()
    for kind in ("unseen combinations", "unseen pairs"):
        figures = report["kinds"][kind]
        assert figures["prompts"] == 100
        assert figures["shape and colour right"] >= 0.95
        assert figures["position and size right"] >= 0.80


@pytest.mark.slow
def test_accuracy_is_measured_again(loaded: Components) -> None:
    results, _ = accuracy.measure(FAMILY, loaded)
    stored = json.loads(ACCURACY_FILE.read_text(encoding="utf-8"))["kinds"]
    for kind in results:
        assert abs(kind.shape_and_colour - stored[kind.name]["shape and colour right"]) <= 0.02
        assert abs(kind.position_and_size - stored[kind.name]["position and size right"]) <= 0.03


def test_scores_count_what_is_right() -> None:
    scenes = accuracy.held_out_scenes(count=8)["unseen pairs"]
    drawn = [pictures.draw(scene, random.Random(0)) for scene in scenes]
    assert accuracy.score("all", scenes, drawn) == Kind("all", 8, 1.0, 1.0)
    drawn[0] = Image.new("RGB", (64, 64))
    assert accuracy.score("one empty", scenes, drawn) == Kind("one empty", 8, 7 / 8, 7 / 8)


def test_report_names_the_file(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    report = accuracy.report([Kind("seen", 10, 0.9, 0.8)], model)
    assert report["model_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert report["kinds"]["seen"]["shape and colour right"] == 0.9
