"""The original WebUI's prompt syntax: what each bracket, weight, escape and BREAK means, and that nothing breaks it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.emphasis import parse

DOWN = 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        # what the WebUI's own parser says of these
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [("a ", 1.0), ("house", 1.3 * 1.1 * 1.1), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
             (", sun, ", 1.1), ("sky", 1.1**4), (".", 1.1)],
        ),
        ("", []),
        ("[down] ((up))", [("down", DOWN), (" ", 1.0), ("up", 1.1 * 1.1)]),
        ("(a: 1.3 )", [("a", 1.3)]),
        ("(a:-1)", [("a", -1.0)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:+2)", [("a", 2.0)]),
        ("[a:1.3]", [("a:1.3", DOWN)]),  # square brackets take no weight
        ("a:1.3)", [("a:1.3)", 1.0)]),  # nothing was opened
        ("a) b] c", [("a) b] c", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),  # no number
        ("(a:b)", [("a:b", 1.1)]),
        ("12:30", [("12:30", 1.0)]),
        (r"a \\ b", [("a \\ b", 1.0)]),
        ("a \\b", [("a ", 1.0), ("b", 1.0)]),
        (r":-\( ^_^ o_o \(:", [(":-( ^_^ o_o (:", 1.0)]),
    ],
)  # fmt: skip
def test_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    (section,) = parse(prompt)
    joined = "".join(text for text, _ in section)
    assert joined == "".join(text for text, _ in expected)
    strengths = [round(weight, 9) for text, weight in section for _ in text]
    assert strengths == [round(weight, 9) for text, weight in expected for _ in text]


def test_neighbours_of_one_weight_are_one_text() -> None:
    """They are read as one word where they touch: `a\\(b\\)` is tokenised as a(b)."""
    assert parse(r"a\(b\)") == [[("a(b)", 1.0)]]
    assert parse("x(a:1.0)y") == [[("xay", 1.0)]]


def test_break_begins_a_section() -> None:
    assert parse("a BREAK b") == [[("a", 1.0)], [("b", 1.0)]]
    assert parse("a\nBREAK\nb, (c)") == [[("a", 1.0)], [("b, ", 1.0), ("c", 1.1)]]
    assert parse("BREAK") == [[], []]
    assert parse("a BREAKBREAK b, breakfast, BREAKING, break") == [[("a BREAKBREAK b, breakfast, BREAKING, break", 1.0)]]
    assert parse("a BREAK BREAK b") == [[("a", 1.0)], [], [("b", 1.0)]]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(a BREAK b)", [[("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]]),
        ("(a BREAK b:1.5)", [[("a", 1.5), ("BREAK", -1.5), ("b", 1.5)]]),
        ("[a BREAK b]", [[("a", DOWN), ("BREAK", -DOWN), ("b", DOWN)]]),
        ("(a BREAK b", [[("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]]),  # an open bracket reaches to the end
        ("(a) BREAK (b)", [[("a", 1.1)], [("b", 1.1)]]),
        ("(a BREAK b:1)", [[("a", 1.0)], [("b", 1.0)]]),  # of the weight 1 times its own it breaks
        ("(a BREAK b:-1)", [[("a", -1.0), ("BREAK", 1.0), ("b", -1.0)]]),
        ("(a BREAK b:0)", [[("aBREAKb", 0.0)]]),  # all of one weight: one text
        ("((a BREAK b:-1):-1)", [[("a", 1.0)], [("b", 1.0)]]),
        ("((a):1 BREAK b", [[("a", 1.1 * 1.1), (":1", 1.1), ("BREAK", -1.1), ("b", 1.1)]]),
    ],
)
def test_break_inside_brackets_is_multiplied_as_in_the_webui(
    prompt: str, expected: list[list[tuple[str, float]]]
) -> None:
    """There BREAK is a piece of the weight -1 (prompt_parser.py), which breaks if it still has it (sd_hijack_clip.py)."""
    found = [[(text, pytest.approx(weight)) for text, weight in section] for section in parse(prompt)]
    assert found == expected


@given(st.text(alphabet="()[]:\\ab1.,BREAK \n猫", max_size=40))
def test_whatever_is_written_is_read(prompt: str) -> None:
    sections = parse(prompt)
    assert sections and all(math.isfinite(weight) and text for section in sections for text, weight in section)
    plain = "".join(text for section in sections for text, _ in section)
    assert plain.count("猫") == prompt.count("猫") and plain.count("b") == prompt.count("b")


@given(st.text(alphabet=st.characters(blacklist_characters="()[]\\", blacklist_categories=["Cs"]), max_size=40))
def test_text_without_marks_stays_as_it_is(prompt: str) -> None:
    if "BREAK" not in prompt:
        assert parse(prompt) == ([[(prompt, 1.0)]] if prompt else [[]])
