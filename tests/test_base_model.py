"""What a base model is told apart by: its weights, its sizes, and what its texts are cut into tokens with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from tests.runs import draw_pictures, go, tiny_run
from tests.tiny import family_of, save_tiny_file, save_tiny_folder
from trainer.base_model import BaseModel, Sources
from trainer.data.memo import Memo
from trainer.models.stable_diffusion import CLIP_TOKENIZER
from trainer.paths import cache_folder


def give_tokenizer(model: Path, swapped: tuple[str, str] | None = None) -> None:
    """Put CLIP's tokenizer into a diffusers folder, with the numbers of two words swapped."""
    folder = model / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(CLIP_TOKENIZER / "merges.txt", folder)
    words = json.loads((CLIP_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    if swapped:
        one, other = swapped
        words[one], words[other] = words[other], words[one]
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")


def identity_of(path: Path) -> tuple[str, str]:
    model = BaseModel(family_of("sd1"), Sources(path), torch.device("cpu"), clip_skip=1, memo=Memo())
    return model.identity(("text_encoder",), torch.float32), model.text_identity(torch.float32)


def test_a_tokenizer_counts_by_its_content(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "model")
    give_tokenizer(folder)
    weights, texts = identity_of(folder)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert identity_of(moved) == (weights, texts)
    give_tokenizer(folder, ("number</w>", "cat</w>"))
    assert identity_of(folder)[0] == weights and identity_of(folder)[1] != texts
    give_tokenizer(folder)
    assert identity_of(folder) == (weights, texts)
    merges = folder / "tokenizer" / "merges.txt"
    merges.write_bytes(merges.read_bytes().replace(b"\ni n\n", b"\n", 1))
    assert identity_of(folder)[1] != texts, "the file without JSON counts too"
    file = save_tiny_file(tmp_path)
    assert identity_of(file)[1] == identity_of(shutil.copy(file, tmp_path / "copy.safetensors"))[1]


def test_another_tokenizer_reads_the_captions_anew(tmp_path: Path) -> None:
    """A run with a cache filled by another tokenizer learns what one with an empty cache learns."""
    pictures = draw_pictures(tmp_path / "img", [(64, 64)] * 2)
    run = tiny_run(save_tiny_folder(tmp_path / "model"), pictures, network={"rank": 4, "train": "unet"})
    losses = []
    for number, swapped in enumerate((None, ("number</w>", "cat</w>"), ("number</w>", "cat</w>"))):
        give_tokenizer(tmp_path / "model", swapped)
        if number == 2:
            shutil.rmtree(cache_folder())
        _, recorder = go(run, tmp_path / f"run{number}")
        losses.append(recorder.losses)
    assert losses[0] != losses[1] == losses[2]
