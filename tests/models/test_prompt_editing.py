"""Prompts that change while a picture is drawn, as the WebUI reads them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.prompt_editing import parts, timed

STAGES: dict[str, list[tuple[int, str]]] = {
    "plain": [(10, "plain")],
    "": [(10, "")],
    "a [cat:dog:4] sits": [(4, "a cat sits"), (10, "a dog sits")],
    "a [cat:dog:0.3] sits": [(3, "a cat sits"), (10, "a dog sits")],
    "a [big:.5] cat": [(5, "a  cat"), (10, "a big cat")],
    "a [big::7] cat": [(7, "a big cat"), (10, "a  cat")],
    "[a:b:20]": [(10, "a")],
    "[a:b:0]": [(10, "b")],
    "[a:b:-3]": [(10, "b")],
    "[ a : b : 4 ]": [(4, " a "), (10, " b ")],
    "[a:[b:c:8]:4]": [(4, "a"), (8, "b"), (10, "c")],
    "[(a:1.2):[b]:4]": [(4, "(a:1.2)"), (10, "[b]")],
    "[a:b:2] [c:d:6]": [(2, "a c"), (6, "b c"), (10, "b d")],
    "([a:b:4]": [(4, "(a"), (10, "(b")],
    "[a:b:4]]": [(4, "a]"), (10, "b]")],
}
AS_WRITTEN = [
    "a [cat] and a (dog:1.3)", "[a:b]", "[a:b:c:4]", "[(a:b:4]", r"\[a:b:4\]", "a | [b:c:4]", "(a|b) [c:d:4]", "[a:b|c:4]",
    "[a:b:4] \\", "[" * 60 + "a:b:4" + "]" * 60,
]  # fmt: skip


@pytest.mark.parametrize("prompt", STAGES)
def test_what_is_said_when(prompt: str) -> None:
    assert list(timed(prompt, 10).stages) == STAGES[prompt]


@pytest.mark.parametrize("prompt", AS_WRITTEN)
def test_what_is_no_such_form_stays_as_it_is(prompt: str) -> None:
    assert timed(prompt, 10).stages == ((10, prompt),)


def test_one_after_the_other_in_turn() -> None:
    said = [text for _, text in timed("a [red|blue|] cat", 5).stages]
    assert said == ["a red cat", "a blue cat", "a  cat", "a red cat", "a blue cat"]


def test_a_stage_lasts_through_its_step_counted_from_zero() -> None:
    prompt = timed("[a:b:2]", 5)
    assert [prompt.at(step) for step in range(5)] == ["a", "a", "a", "b", "b"]
    turns = timed("[a|b]", 4)
    assert [turns.at(step) for step in range(4)] == ["a", "a", "b", "a"], "the WebUI's first stage too is heard twice"


def test_parts_and_their_weights() -> None:
    found = parts("a cat AND a [dog:bird:2]:0.5 AND sun:-1 ", 4)
    assert [(part.stages, weight) for part, weight in found] == [
        (((4, "a cat"),), 1.0),
        (((2, " a dog"), (4, " a bird")), 0.5),
        (((4, " sun"),), -1.0),
    ]
    assert [(part.at(0), weight) for part, weight in parts("(a cat:1.3), SAND", 4)] == [("(a cat:1.3), SAND", 1.0)]


def test_long_prompts_take_no_time() -> None:
    for prompt in (" " * 50_000 + "x", ": " * 25_000, "1" * 50_000 + "x", "[a:b:" * 10_000, "(" * 50_000 + ")" * 50_000):
        began = time.process_time()
        assert parts(prompt, 20)
        assert time.process_time() - began < 1


@given(st.text(alphabet=r"ab :|[]()\.19ANDe-", max_size=40), st.integers(1, 30))
def test_any_prompt_says_something_at_every_step(prompt: str, steps: int) -> None:
    for part, weight in parts(prompt, steps):
        assert part.stages[-1][0] == steps and weight == weight
        assert all(isinstance(part.at(step), str) for step in range(steps))
