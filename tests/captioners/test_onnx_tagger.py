"""Tests of captioners.common.onnx_tagger: what the model is given and what is kept of its answer, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioners.catalog import PictureInput
from captioners.common.onnx_tagger import OnnxTagger, packed, prepared, unpacked
from captioners.common.tags import Label, TagSettings
from captioners.wd14 import PICTURE, read_labels
from tests.captioners.tiny_tagger import save_model, save_picture
from trainer.data.pictures import load_pixels
from trainer.errors import BadInput

WHOLE = (4, 6, 8)


def opened(folder: Path, picture: PictureInput = PICTURE, logits: bool = False) -> OnnxTagger:
    labels = read_labels(folder / "selected_tags.csv")
    tagger = OnnxTagger(folder / "model.onnx", labels, picture, TagSettings(), logits=logits)
    assert tagger.open() is None
    return tagger


def scores_of(tagger: OnnxTagger, *pictures: Path) -> list[dict[int, float]]:
    prepared_pictures = [tagger.prepare(load_pixels(path)) for path in pictures]
    return [dict(unpacked(reading)) for reading in tagger.read(prepared_pictures)]


def test_the_input_is_bgr_from_0_to_255_padded_with_white() -> None:
    pixels = np.asarray(Image.new("RGB", (8, 4), (10, 20, 30)))
    values = prepared(pixels, PICTURE, 8)
    assert values.shape == (8, 8, 3) and values.dtype == np.float32 and values.flags["C_CONTIGUOUS"]
    assert (values[2:6] == (30, 20, 10)).all()
    assert (values[:2] == 255).all() and (values[6:] == 255).all()


def test_odd_padding_puts_the_smaller_half_first() -> None:
    values = prepared(np.zeros((5, 2, 3), np.uint8), PICTURE, 5)
    assert [float(column) for column in values[0, :, 0]] == [255, 0, 0, 255, 255]


def test_other_layouts_are_data() -> None:
    wanted = PictureInput("NCHW", "RGB", scale=1 / 127.5, offset=-1.0, background=(0, 0, 0))
    values = prepared(np.full((2, 4, 3), (255, 0, 51), np.uint8), wanted, 4)
    assert values.shape == (3, 4, 4)
    assert values[:, 1, 0] == pytest.approx((1.0, -1.0, 51 / 127.5 - 1))
    assert values[:, 0, 0] == pytest.approx((-1.0, -1.0, -1.0))


@pytest.mark.parametrize("v3", [False, True])
def test_values_worked_out_by_hand(awkward: Path, v3: bool) -> None:
    tagger = opened(save_model(awkward / "model", v3=v3))
    assert tagger.batch_size == (3 if v3 else 2)
    blue = save_picture(awkward / "blue.png")
    seen = save_picture(awkward / "glass.png", (255, 0, 0, 51), (8, 8))  # one fifth red, four fifths white
    first, second = scores_of(tagger, blue, seen)
    # Blue 8 × 4: half of the square is white, so blue 1, green ½, red ½, and "faint" 0.05 as the best under the floor.
    assert [first[row] for row in (0, 1, 2, 3)] == pytest.approx([0.1, 0.2, 0.6, 0.1])
    assert [first[row] for row in (4, 5, 6, 7)] == pytest.approx([1.0, 0.5, 0.5, 1.0])
    assert first[8] == pytest.approx(0.05)
    assert [second[row] for row in (4, 5, 6, 7)] == pytest.approx([0.8, 0.8, 1.0, 0.8])
    assert tagger.caption(tagger.read([tagger.prepare(load_pixels(blue))])[0]) == [
        "saber (fate)", "long hair", "^_^", 'a, "b" (c)',
    ]  # fmt: skip


def test_nchw_and_logits(tmp_path: Path) -> None:
    wanted = PictureInput("NCHW", "RGB")
    tagger = opened(save_model(tmp_path / "model", layout="NCHW"), wanted, logits=True)
    (scores,) = scores_of(tagger, save_picture(tmp_path / "blue.png"))
    # RGB puts red (½) where the tiny model expects blue.
    assert scores[4] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert scores[6] == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_only_what_matters_is_kept() -> None:
    categories = np.array(["rating", "general", "general", "general", "character"])
    kept = unpacked(packed(np.array([0.01, 0.5, 0.04, 0.03, 0.02], np.float32), categories))
    assert dict(kept) == pytest.approx({0: 0.01, 1: 0.5, 2: 0.04, 4: 0.02})


def test_the_identity_follows_weights_labels_and_preparation(tmp_path: Path) -> None:
    one = OnnxTagger(save_model(tmp_path / "1") / "model.onnx", [Label("a", "general")], PICTURE, TagSettings())
    settings = TagSettings(general_threshold=0.9)
    same = OnnxTagger(save_model(tmp_path / "2") / "model.onnx", [Label("a", "general")], PICTURE, settings)
    others = [
        OnnxTagger(save_model(tmp_path / "3", scale=0.5) / "model.onnx", [Label("a", "general")], PICTURE, settings),
        OnnxTagger(tmp_path / "1" / "model.onnx", [Label("b", "general")], PICTURE, settings),
        OnnxTagger(tmp_path / "1" / "model.onnx", [Label("a", "general")], PictureInput("NHWC", "RGB"), settings),
    ]
    assert one.identity == same.identity
    assert len({tagger.identity for tagger in (one, *others)}) == 4


@pytest.mark.parametrize("change", ["scale", "layout"])
def test_a_model_of_another_kind_is_refused(tmp_path: Path, change: str) -> None:
    options: dict[str, Any] = {"scale": {"scale": 3.0}, "layout": {"layout": "NCHW"}}[change]
    folder = save_model(tmp_path / "model", **options)
    words = {"scale": "not probabilities", "layout": "3 × 8 × 8"}[change]
    with pytest.raises(BadInput, match=words):
        scores_of(opened(folder), save_picture(tmp_path / "a.png"))


def test_a_card_that_is_not_there_is_said(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    labels = read_labels(folder / "selected_tags.csv")
    tagger = OnnxTagger(folder / "model.onnx", labels, PICTURE, TagSettings(), device="gpu")
    with pytest.raises(BadInput, match="only the CPU"):
        tagger.open()
