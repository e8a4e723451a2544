"""Tests of captioners.common.tags: thresholds, order and spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from captioners.common.tags import KAOMOJI, Label, TagSettings, caption_tags, mcut, tag_key, without_repeats

LABELS = [
    Label("safe", "rating"),
    Label("unsafe", "rating"),
    Label("long_hair", "general"),
    Label("^_^", "general"),
    Label("smile", "general"),
    Label("saber_(fate)", "character"),
    Label("bow_(weapon)", "general"),
]
SCORES = {0: 0.3, 1: 0.6, 2: 0.5, 3: 0.9, 4: 0.35, 5: 0.9, 6: 0.4}


def tags(**values: object) -> list[str]:
    return caption_tags(LABELS, SCORES, TagSettings(**values))


def test_usual_settings() -> None:
    # smile is exactly at the threshold and so is not over it.
    assert tags() == ["saber (fate)", "^_^", "long hair", "bow (weapon)"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"general_threshold": 0.34}, ["saber (fate)", "^_^", "long hair", "bow (weapon)", "smile"]),
        ({"character_threshold": 0.9}, ["^_^", "long hair", "bow (weapon)"]),
        ({"character_first": False}, ["^_^", "long hair", "bow (weapon)", "saber (fate)"]),
        ({"replace_underscores": False}, ["saber_(fate)", "^_^", "long_hair", "bow_(weapon)"]),
        ({"escape_brackets": True}, [r"saber \(fate\)", "^_^", "long hair", r"bow \(weapon\)"]),
        ({"expand_series": True}, ["saber", "fate", "^_^", "long hair", "bow (weapon)"]),
        ({"undesired": ("Long_Hair", "^_^")}, ["saber (fate)", "bow (weapon)"]),
        ({"undesired": ("fate",), "expand_series": True}, ["saber", "^_^", "long hair", "bow (weapon)"]),
        ({"always_first": ("rufus", "long hair")}, ["rufus", "long hair", "saber (fate)", "^_^", "bow (weapon)"]),
        ({"replacements": ("long hair = hair", "^_^=happy")}, ["saber (fate)", "happy", "hair", "bow (weapon)"]),
        ({"add_rating": True}, ["saber (fate)", "^_^", "long hair", "bow (weapon)", "unsafe"]),
        # General scores .9 .5 .4 .35: the largest gap is .9 to .5, cut at .7.
        ({"general_mcut": True}, ["saber (fate)", "^_^"]),
        ({"character_threshold": 0.95, "character_mcut": True}, ["saber (fate)", "^_^", "long hair", "bow (weapon)"]),
    ],
)
def test_each_setting(values: dict[str, object], expected: list[str]) -> None:
    assert tags(**values) == expected


def test_mcut_cuts_in_the_middle_of_the_largest_gap() -> None:
    assert mcut([0.2, 0.9, 0.8, 0.1]) == pytest.approx(0.5)
    assert mcut([0.6]) == pytest.approx(0.3)


def test_character_mcut_is_never_under_015() -> None:
    labels = [Label("a", "character"), Label("b", "character")]
    mcut_only = TagSettings(character_mcut=True)
    assert caption_tags(labels, {0: 0.14, 1: 0.0}, mcut_only) == []
    assert caption_tags(labels, {0: 0.2, 1: 0.0}, mcut_only) == ["a"]


def test_no_scores_give_no_tags() -> None:
    assert caption_tags(LABELS, {}, TagSettings(general_mcut=True, add_rating=True)) == []


@pytest.mark.parametrize("face", sorted(KAOMOJI))
def test_faces_keep_their_underscore(face: str) -> None:
    assert caption_tags([Label(face, "general")], {0: 0.9}, TagSettings()) == [face]


def test_a_replacement_needs_two_sides() -> None:
    with pytest.raises(ValidationError, match="old = new"):
        TagSettings(replacements=("hair",))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "A", "b_c", "b c", "^_^", r"d \(e\)", "d (e)", " ", ""])))
def test_without_repeats_keeps_the_first_of_each(given_tags: list[str]) -> None:
    kept = without_repeats(given_tags)
    keys = [tag_key(tag) for tag in kept]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {tag_key(tag) for tag in given_tags if tag.strip()}
    assert without_repeats(kept) == kept
