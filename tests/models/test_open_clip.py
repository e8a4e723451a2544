"""The text encoders of SD 2.x and SDXL against OpenCLIP, the program that trained them.

Its answers were written by `tests/models/open_clip_answers.py` with open_clip_torch 3.3.0 and are kept beside it, so that
the comparison needs no such package; where there is one, the kept answers are compared with what it says today.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.open_clip_answers import ANSWERS, CASES, PLACES, TEXTS, WIDTH, ask, installed, weights
from tests.tiny import family_of, save_tiny_file
from trainer.models.protocol import Components
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file, write_file
from trainer.models.text import CHUNK, read_texts


@pytest.fixture(params=CASES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def kept(family: str, key: str) -> Tensor:
    return read_file(ANSWERS)[f"{family}.{key}"]


def loaded(family: str, folder: Path) -> Components:
    """A model's text encoders, of which the last has the weights of the kept answers, from an LDM file."""
    path, prefix = save_tiny_file(folder, family=family), family_of(family).text_encoders[-1].prefixes[0]
    tensors = {name: value for name, value in read_file(path).items() if not name.startswith(prefix)}
    tensors |= {prefix + name: value for name, value in weights(CASES[family].layers).items()}
    words = {torch.float32: "F32", torch.int64: "I64"}
    rows = [(name, tuple(value.shape), words[value.dtype], value.clone) for name, value in tensors.items()]
    write_file(folder / "theirs.safetensors", rows, dict(read_header(path).metadata))
    return family_of(family).load(folder / "theirs.safetensors", parts=set(family_of(family).text_parts))


def test_ours_says_what_open_clip_says(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    cond = family_of(family).encode_text(model, TEXTS)
    torch.testing.assert_close(cond.states[:, PLACES, -WIDTH:], kept(family, "states"), atol=1e-4, rtol=1e-4)
    if family == "sdxl":
        assert cond.pooled is not None
        torch.testing.assert_close(cond.pooled, kept(family, "pooled"), atol=1e-4, rtol=1e-4)


def test_texts_are_cut_into_its_tokens(family: str) -> None:
    tokenizer = family_of(family).load_tokenizer(Path())
    pad = family_of(family).text_encoders[-1].pad
    ids = read_texts(tokenizer, TEXTS, CHUNK).ids(tokenizer.bos_token_id, tokenizer.eos_token_id, pad)
    assert torch.equal(ids, kept(family, "ids"))


def test_our_file_has_its_names_and_sizes(family: str, tmp_path: Path) -> None:
    """Nothing is missing, nothing left over, and what was read is written as it was."""
    family_of(family).save(loaded(family, tmp_path), tmp_path / "ours.safetensors")
    prefix = family_of(family).text_encoders[-1].prefixes[0]
    ours = {name.removeprefix(prefix): value for name, value in read_file(tmp_path / "ours.safetensors").items()
            if name.startswith(prefix)}  # fmt: skip
    assert ours.pop("logit_scale").dim() == 0
    shapes = json.loads(read_header(ANSWERS).metadata["shapes"])[family]
    assert {name: list(value.shape) for name, value in ours.items()} == shapes
    unused = f".resblocks.{CASES[family].layers - 1}." if family == "sd2" else "none"  # nobody runs it, so it is filled
    theirs = weights(CASES[family].layers)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if unused not in name)


def test_the_kept_answers_are_what_open_clip_says(family: str) -> None:
    try:
        with installed() as (make, tokenizer):
            answers, _ = ask(CASES[family], make, tokenizer)
    except ImportError as error:
        pytest.skip(str(error))
    for key, value in answers.items():
        torch.testing.assert_close(kept(family, key), value, atol=1e-4, rtol=1e-4)
