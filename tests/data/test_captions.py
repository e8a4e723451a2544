"""Captions between file and text encoder: what is changed, and above all what is not."""

from __future__ import annotations

from collections import Counter

import pytest

from trainer.data.captions import (
    CaptionRules,
    captions_to_cache,
    first_line,
    shape_caption,
    split_tags,
    tag_frequency,
)

SURVIVORS = (r"saber \(fate\)", ":-(", "^_^", "o_o", "(red eyes:1.2)", "[from:to:0.5]", "测试", "a | b", "<lora:x:1>")


def key(number: int) -> tuple[int, int, int, int]:
    return 1, 0, number, 0


@pytest.mark.parametrize("tag", SURVIVORS)
def test_shuffling_never_alters_a_tag(tag: str) -> None:
    rules = CaptionRules(prefix="", shuffle=True, keep_tokens=1)
    for number in range(20):
        assert sorted(split_tags(shape_caption(f"rufus, {tag}, cat, dog", rules, key(number)))) == sorted(
            ["rufus", tag, "cat", "dog"]
        )


def test_kept_tags_stay_in_front_and_the_others_come_in_every_order() -> None:
    rules = CaptionRules(shuffle=True, keep_tokens=2)
    seen = Counter(shape_caption("a, b, c, d, e", rules, key(number)) for number in range(600))
    assert all(caption.startswith("a, b, ") for caption in seen)
    assert len(seen) == 6 and min(seen.values()) > 60


def test_without_shuffle_a_caption_is_left_as_written() -> None:
    assert shape_caption("a,b ,  c.", CaptionRules(), key(0)) == "a,b ,  c."


@pytest.mark.parametrize(
    ("prefix", "caption", "whole"),
    [("rufus,", "a cat", "rufus, a cat"), ("rufus", "", "rufus"), ("", "a cat", "a cat"), (" rufus ", "cat", "rufus cat")],
)
def test_the_prefix_stands_in_front_with_a_space(prefix: str, caption: str, whole: str) -> None:
    assert shape_caption(caption, CaptionRules(prefix=prefix), key(0)) == whole


def test_dropout_drops_whole_captions_at_its_rate_and_by_the_key_alone() -> None:
    rules = CaptionRules(prefix="rufus", dropout=0.25)
    shown = [shape_caption("a cat", rules, key(number)) for number in range(4000)]
    assert set(shown) == {"", "rufus a cat"}
    assert 850 < shown.count("") < 1150
    assert shown == [shape_caption("a cat", rules, key(number)) for number in range(4000)]


def test_dropout_is_the_same_with_and_without_shuffle() -> None:
    plain, shuffled = CaptionRules(dropout=0.5), CaptionRules(dropout=0.5, shuffle=True)
    for number in range(200):
        assert (shape_caption("a, b", plain, key(number)) == "") == (shape_caption("a, b", shuffled, key(number)) == "")


@pytest.mark.parametrize(
    ("text", "caption"),
    [("a cat\nmore\n", "a cat"), ("\r\n  \r\n a cat \r\nb", "a cat"), ("", ""), ("   \n\n", ""), ("a\u2028b", "a")],
)
def test_the_first_line_that_is_not_blank_counts(text: str, caption: str) -> None:
    assert first_line(text) == caption


def test_what_must_be_cached() -> None:
    captions = ["b", "a", "b"]
    assert captions_to_cache(captions, CaptionRules(prefix="x")) == ("x a", "x b")
    assert captions_to_cache(captions, CaptionRules(dropout=0.1)) == ("", "a", "b")
    assert not CaptionRules(shuffle=True).cacheable


def test_tags_are_counted() -> None:
    assert tag_frequency(["a, b", "b, c", "", "b,,"]) == {"b": 3, "a": 1, "c": 1}
