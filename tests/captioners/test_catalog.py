"""Tests of every captioner in the folder, found as the window finds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from captioners.__main__ import _parser, _section
from captioners.catalog import Card, WriteSettings, arguments, cards
from captioners.common.tags import TagSettings
from trainer.config.fields import settings_of
from trainer.errors import BadInput
from trainer.paths import ROOT

EVERY = pytest.mark.parametrize("card", list(cards().values()), ids=lambda card: card.name)


def test_the_wd_tagger_is_found() -> None:
    assert "wd14" in cards()


@EVERY
def test_a_card_is_complete(card: Card) -> None:
    assert str(card.title) and str(card.summary).endswith(".") and card.files
    for _, _, info in settings_of(card.settings):
        assert info.label and info.help.endswith(".")
    card.settings()


@EVERY
def test_an_empty_or_missing_folder_is_refused_by_a_sentence(card: Card, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadInput) as refusal:
            card.check(folder)
        assert str(folder) in str(refusal.value) and refusal.value.todo is not None


@EVERY
def test_a_model_cut_short_is_refused_by_a_sentence(card: Card, tmp_path: Path) -> None:
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"\r\n<!DOCTYPE html><html>"):
        for name in card.files:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput):
            card.check(tmp_path)


def test_the_window_needs_neither_torch_nor_onnxruntime_nor_numpy() -> None:
    code = (
        "import sys; from captioners.catalog import cards; from captioners.common.events import read_event; cards();"
        "print([name for name in ('torch', 'onnxruntime', 'numpy', 'PIL') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_arguments_say_what_the_settings_say() -> None:
    settings = TagSettings(
        general_threshold=0.4, undesired=("1girl", "-x"), replacements=("a = b",), character_first=False, add_rating=True
    )
    writing = WriteSettings(mode="append", dry_run=True)
    line = arguments("wd14", Path("m"), [Path("-p"), Path("q")], settings, writing)
    chosen = _parser().parse_args(line)
    assert _section(TagSettings, chosen) == settings
    assert _section(WriteSettings, chosen) == writing
    assert (chosen.model, chosen.pictures) == (Path("m"), [Path("-p"), Path("q")])
    assert chosen.json and chosen.device == "auto"
