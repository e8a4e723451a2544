"""Texts to chunks and states: lengths, joins, weights and breaks as sd-scripts and the WebUI have them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.models.sd1 import FAMILY
from trainer.models.text import ANY_LENGTH, Reader, encode, read_texts

BEGIN, END, COMMA = 49406, 49407, 267
CAT = 2368  # "cat"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return FAMILY.load_tokenizer(Path())


@pytest.fixture(scope="module")
def states() -> Tensor:
    """What a made-up encoder says of each token (49408, 6)."""
    return torch.randn(49408, 6, generator=torch.Generator().manual_seed(0)) + 0.3


def reader(table: Tensor, pad: int | None = None) -> Reader:
    """An encoder that says of each token the same, wherever it stands, and of a row what it says of its end's neighbour."""

    def run(ids: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        answer = table[ids] + (torch.arange(77)[:, None] * 0.01).to(table.dtype)
        return answer, answer[torch.arange(len(ids)), ends - 1]

    return Reader(run, pad)


def rows_of(chunks: Any, pad: int | None = None) -> list[list[int]]:
    return chunks.ids(BEGIN, END, pad).tolist()


def test_captions_are_cut_and_filled(tokenizer: Any) -> None:
    ids = tokenizer("cat " * 100, add_special_tokens=False)["input_ids"]
    assert ids == [CAT] * 100
    one = read_texts(tokenizer, ["cat " * 100, ""], 75)
    assert rows_of(one) == [[BEGIN, *[CAT] * 75, END], [BEGIN, *[END] * 76]]
    assert one.ends().tolist() == [76, 1] and not one.whole
    three = read_texts(tokenizer, ["cat " * 100], 225)
    assert rows_of(three) == [[BEGIN, *[CAT] * 75, END], [BEGIN, *[CAT] * 25, *[END] * 51], [BEGIN, *[END] * 76]]
    assert rows_of(three, pad=0)[1:] == [[BEGIN, *[CAT] * 25, END, *[0] * 50], [BEGIN, END, *[0] * 75]]


def test_prompts_are_as_long_as_they_are(tokenizer: Any) -> None:
    both = read_texts(tokenizer, ["cat " * 80, "cat"], ANY_LENGTH)
    assert both.count == 2 and both.whole
    assert [row.index(END) for row in rows_of(both)] == [76, 6, 2, 2]
    assert read_texts(tokenizer, ["cat " * 80, "cat " * 160], ANY_LENGTH).count == 6
    assert read_texts(tokenizer, [""], ANY_LENGTH).count == 1
    assert read_texts(tokenizer, ["cat " * 75], ANY_LENGTH).count == 1
    assert read_texts(tokenizer, ["cat " * 750], ANY_LENGTH).count == 10


@pytest.mark.parametrize(("after_comma", "first"), [(5, 70), (19, 56), (20, 75)])
def test_a_full_chunk_rather_ends_at_a_comma(tokenizer: Any, after_comma: int, first: int) -> None:
    """As the WebUI: if the last comma of the chunk is at most 20 tokens back, what follows it moves on."""
    prompt = "cat " * (74 - after_comma) + ", " + "cat " * (after_comma + 10)
    chunks = read_texts(tokenizer, [prompt], ANY_LENGTH)
    assert [len(row) for row in chunks.rows[0]] == [first, 85 - first]
    caption = read_texts(tokenizer, [prompt], 150)
    assert [len(row) for row in caption.rows[0]] == [75, 10], "captions are cut where they are full"


def test_a_comma_as_the_seventy_sixth_token_opens_the_next_chunk(tokenizer: Any) -> None:
    chunks = read_texts(tokenizer, ["cat " * 60 + ", " + "cat " * 14 + ", cat"], ANY_LENGTH)
    assert [len(row) for row in chunks.rows[0]] == [75, 2]
    assert chunks.rows[0][1][0] == (COMMA, 1.0)


def test_break_fills_the_chunk(tokenizer: Any) -> None:
    chunks = read_texts(tokenizer, ["cat BREAK cat, cat"], ANY_LENGTH)
    assert [[token for token, _ in row] for row in chunks.rows[0]] == [[CAT], [CAT, COMMA, CAT]]
    weighted = read_texts(tokenizer, ["cat BREAK cat"], 150, weighted=True)
    assert [len(row) for row in weighted.rows[0]] == [1, 1]
    assert len(read_texts(tokenizer, ["cat BREAK cat"], 75, weighted=True).rows[0]) == 1, "what is too long is cut off"
    inside = read_texts(tokenizer, ["(cat BREAK cat)"], ANY_LENGTH)
    assert [weight for _, weight in inside.rows[0][0]] == [1.1, -1.1, 1.1], "in brackets it is a word: cat, break, cat"
    plain = read_texts(tokenizer, ["cat BREAK (cat)"], 150)
    assert len(plain.rows[0][0]) == 5, "plain captions have no syntax: cat, break, (, cat, )"


def test_weights_stand_beside_their_tokens(tokenizer: Any) -> None:
    chunks = read_texts(tokenizer, ["a (cat:1.5) sat"], ANY_LENGTH)
    assert chunks.weights()[0, :6].tolist() == [1.0, 1.0, 1.5, 1.0, 1.0, 1.0]
    assert read_texts(tokenizer, ["a (cat:1.5) sat"], 75).weights().eq(1).all()


def test_joins(tokenizer: Any, states: Tensor) -> None:
    """Captions: one begin, the insides, one end. Prompts: all 77 states of every chunk."""
    text = "cat " * 100
    chunks = rows_of(read_texts(tokenizer, [text], 150))
    apart = reader(states).run(torch.tensor(chunks), torch.tensor([76, 26]))[0]
    caption = encode(tokenizer, [reader(states)], [text], 150)
    assert torch.equal(caption.states[0], torch.cat([apart[0, :76], apart[1, 1:]]))
    prompt = encode(tokenizer, [reader(states)], [text], ANY_LENGTH)
    assert torch.equal(prompt.states[0], torch.cat([apart[0], apart[1]]))


def test_two_encoders_stand_side_by_side(tokenizer: Any, states: Tensor) -> None:
    second = reader(states * 2, pad=0)
    first = Reader(lambda ids, ends: (reader(states).run(ids, ends)[0], None))
    both = encode(tokenizer, [first, second], ["cat", "cat " * 80], 150)
    assert both.states.shape == (2, 152, 12) and both.pooled is not None and both.pooled.shape == (2, 6)
    assert torch.equal(both.states[0, 2, :6], states[END] + 0.02)
    assert torch.equal(both.states[0, 3, 6:], states[0] * 2 + 0.03)
    assert torch.equal(both.pooled[0], states[CAT] * 2 + 0.01), "of the first chunk's end, not of the last one's"
    assert torch.equal(both.pooled[1], states[CAT] * 2 + 0.75)


def test_emphasis_scales_the_states_and_restores_each_chunks_mean(tokenizer: Any, states: Tensor) -> None:
    """The WebUI's arithmetic by hand: z · w, then times the old mean over the new, over all 77 × D of a chunk."""
    plain = encode(tokenizer, [reader(states)], ["a cat sat"], ANY_LENGTH).states[0]
    strong = encode(tokenizer, [reader(states)], ["a (cat:1.5) sat"], ANY_LENGTH).states[0]
    scaled = plain.clone()
    scaled[2] *= 1.5
    torch.testing.assert_close(strong, scaled * (plain.mean() / scaled.mean()))
    assert strong.mean().item() == pytest.approx(plain.mean().item(), rel=1e-5)


def test_a_text_does_not_change_its_neighbours(tokenizer: Any, states: Tensor) -> None:
    texts = ["a (cat:1.5)", "a [dog]", "plain", "((long)) " * 80]
    together = encode(tokenizer, [reader(states)], texts, ANY_LENGTH).states
    for number, text in enumerate(texts):
        alone = encode(tokenizer, [reader(states)], [text], ANY_LENGTH).states[0]
        torch.testing.assert_close(together[number], alone.repeat(together.shape[1] // len(alone), 1))
    assert torch.equal(together[2], encode(tokenizer, [reader(states)], ["plain", "cat " * 80], ANY_LENGTH).states[0])


def test_a_shorter_prompt_is_said_over_again(tokenizer: Any, states: Tensor) -> None:
    """So that attention, a mean over all states, answers as it does to the prompt alone."""
    twice = encode(tokenizer, [reader(states)], ["cat", "cat " * 80], ANY_LENGTH).states[0]
    once = encode(tokenizer, [reader(states)], ["cat"], ANY_LENGTH).states[0]
    assert torch.equal(twice, torch.cat([once, once]))
    query = torch.ones(1, 1, 6)
    attend = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(attend(query, twice[None], twice[None]), attend(query, once[None], once[None]))


def test_weighted_captions(tokenizer: Any, states: Tensor) -> None:
    read = partial(encode, tokenizer, [reader(states)])
    assert torch.equal(read(["a cat"], 75, True).states, read(["a cat"], 75).states)
    strong = read(["a (cat:1.5)"], 75, True).states
    assert strong.shape == (1, 77, 6) and torch.equal(strong, read(["a (cat:1.5)"], ANY_LENGTH).states)


def test_half_precision_and_gradients_pass(tokenizer: Any, states: Tensor) -> None:
    halves = encode(tokenizer, [reader(states.half())], ["a ((cat))"], ANY_LENGTH).states
    assert halves.dtype == torch.float16 and halves.isfinite().all()
    table = states.clone().requires_grad_()
    encode(tokenizer, [reader(table)], ["a ((cat))"], ANY_LENGTH).states.square().sum().backward()
    assert table.grad is not None and table.grad[CAT].abs().sum() > 0
