"""Text states from the cache and from living encoders are the same, for captions and for prompts of any length."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.tiny import family_of, tiny_model
from trainer.data.cache import TextStates
from trainer.data.store import Store
from trainer.models.protocol import Cond
from trainer.models.text import ANY_LENGTH
from trainer.texts import CachedTexts, LiveTexts, Readers

PROMPTS = ["a cat", "", "a (cat:1.4), " * 40, "one BREAK two BREAK three"]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def readers(request: pytest.FixtureRequest) -> Readers:
    family, parts = family_of(request.param), tiny_model(request.param)
    read = partial(family.encode_text, parts)
    return Readers(partial(read, token_length=150), partial(read, token_length=ANY_LENGTH))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, limit_bytes=10**9) as opened:
        yield opened


def same(one: Cond, other: Cond) -> None:
    torch.testing.assert_close(one.states, other.states, atol=1e-5, rtol=1e-5)
    assert (one.pooled is None) == (other.pooled is None)
    if one.pooled is not None and other.pooled is not None:
        torch.testing.assert_close(one.pooled, other.pooled, atol=1e-5, rtol=1e-5)


def test_the_cache_answers_as_the_encoders_do(store: Store, readers: Readers) -> None:
    loads: list[str] = []

    def load() -> Readers:
        loads.append("loaded")
        return readers

    states = partial(TextStates, store, "encoders", clip_skip=1)
    cached = CachedTexts(states(token_length=150), states(token_length=ANY_LENGTH), load, lambda: loads.append("dropped"))
    live = LiveTexts(readers, trains=False)
    captions = ["a cat", "a (cat:1.4)", "word " * 120]
    cached.ensure(captions, PROMPTS)
    same(cached.encode(captions), live.encode(captions))
    same(cached.encode_prompts(PROMPTS), live.encode_prompts(PROMPTS))
    assert cached.encode_prompts(PROMPTS[:2]).states.shape[1] == 77
    assert cached.encode_prompts(PROMPTS).states.shape[1] == 6 * 77, "of texts of one, two and three chunks"
    cached.ensure(captions, PROMPTS)
    assert loads == ["loaded", "dropped"], "what is there is not made again"


def test_captions_prompts_and_weights_have_entries_of_their_own(store: Store, readers: Readers) -> None:
    states = partial(TextStates, store, "encoders", clip_skip=1)
    plain = states(token_length=75)
    plain.encode(["(a)"], partial(readers.captions))
    assert states(token_length=75, weighted=True).find(["(a)"]) == ["(a)"]
    assert states(token_length=ANY_LENGTH).find(["(a)"]) == ["(a)"] and plain.find(["(a)"]) == []


def test_gradients_only_where_the_encoder_trains() -> None:
    family, parts = family_of("sd1"), tiny_model("sd1")
    parts.text_encoder.requires_grad_(True)
    read = partial(family.encode_text, parts)
    readers = Readers(read, partial(read, token_length=ANY_LENGTH))
    assert LiveTexts(readers, trains=True).encode(["a"]).states.requires_grad
    assert not LiveTexts(readers, trains=False).encode(["a"]).states.requires_grad
    assert not LiveTexts(readers, trains=True).encode_prompts(["a"]).states.requires_grad
