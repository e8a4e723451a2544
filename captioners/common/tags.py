"""From scores to a caption: thresholds, order and spelling of tags, in pure Python so that a window may call it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import field_validator

from trainer.config.fields import Section, setting

FLOOR = 0.05
"""Nothing less probable is ever a tag: scores under it are not stored."""

CHARACTER_MCUT_FLOOR = 0.15

_FACES = "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_||"
KAOMOJI = frozenset(_FACES.split())
"""Tags that are faces: their underscore is a mouth, not a space."""

Category = Literal["general", "character", "rating"]


@dataclass(frozen=True)
class Label:
    """One output of a tagger: the tag as its file spells it, and what kind of tag it is."""

    name: str
    category: Category


class TagSettings(Section):
    """Which tags become the caption, and how they are spelt."""

    general_threshold: float = setting(
        0.35,
        "General threshold",
        "Tags that are more probable than this are written. Lower gives more tags and more wrong ones; 0.35 is usual.",
        ge=FLOOR,
        le=1.0,
        step=0.05,
    )
    character_threshold: float = setting(
        0.85,
        "Character threshold",
        "The same for names of characters, which are guessed wrongly more easily; 0.85 is usual.",
        ge=FLOOR,
        le=1.0,
        step=0.05,
    )
    undesired: tuple[str, ...] = setting(
        (),
        "Undesired tags",
        "Tags that are never written. For a character LoRA: what belongs to the character, so that the trigger word "
        "learns it.",
        widget="list",
    )
    always_first: tuple[str, ...] = setting(
        (),
        "Always first",
        "Put in front of every caption: a trigger word, for example.",
        widget="list",
    )
    replacements: tuple[str, ...] = setting(
        (),
        "Replacements",
        "Tags to write differently, each as old = new.",
        level="advanced",
        widget="list",
    )
    character_first: bool = setting(
        True,
        "Characters first",
        "Names of characters stand before the general tags, where keep_tokens can protect them.",
        level="advanced",
    )
    general_mcut: bool = setting(
        False,
        "Own threshold for each picture",
        "Cuts the general tags at the largest gap between their probabilities (MCut) instead of at the threshold.",
        level="advanced",
    )
    character_mcut: bool = setting(
        False,
        "Own character threshold for each picture",
        "The same for characters, never under 0.15.",
        level="advanced",
    )
    add_rating: bool = setting(
        False,
        "Add the rating",
        "Ends the caption with the most probable of general, sensitive, questionable and explicit.",
        level="advanced",
    )
    replace_underscores: bool = setting(
        True,
        "Spaces for underscores",
        "Writes long hair for long_hair, as most guides do. Faces such as ^_^ keep theirs.",
        level="advanced",
    )
    expand_series: bool = setting(
        False,
        "Split name (series)",
        "Writes name, series for name (series).",
        level="advanced",
    )
    escape_brackets: bool = setting(
        False,
        "Escape brackets",
        r"Writes \( and \) for brackets, as prompts of the WebUI need it. Captions for training need it off.",
        level="advanced",
    )

    @field_validator("replacements")
    @classmethod
    def _replacements_have_two_sides(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if "=" not in value or not value.split("=", 1)[0].strip():
                raise ValueError(f"{value!r} is no replacement; write it as old = new")
        return values


Scores = Mapping[int, float]
"""Probability by the number of the label (its row); scores under FLOOR may be missing."""


def caption_tags(labels: Sequence[Label], scores: Scores, settings: TagSettings) -> list[str]:
    """The tags of one picture as they are written, without repetition.

    Order: always-first tags, then characters and general tags (each the most probable first; general before characters
    if `character_first` is off), then the rating.
    """
    general = _chosen(_ranked(labels, scores, "general"), settings.general_threshold, settings.general_mcut, FLOOR)
    character = _chosen(
        _ranked(labels, scores, "character"),
        settings.character_threshold,
        settings.character_mcut,
        CHARACTER_MCUT_FLOOR,
    )
    rows = character + general if settings.character_first else general + character
    if settings.add_rating:
        rows += [row for row, _ in _ranked(labels, scores, "rating")[:1]]
    spelt = [text for row in rows for text in _spelt(labels[row], settings)]
    unwanted = {tag_key(tag) for tag in settings.undesired}
    return without_repeats([*settings.always_first, *(tag for tag in spelt if tag_key(tag) not in unwanted)])


def mcut(probabilities: Sequence[float]) -> float:
    """The threshold in the middle of the largest gap between neighbours of the sorted probabilities.

    Largeron, Moulin, Géry: MCut, a thresholding strategy for multi-label classification (IDA 2012). One probability
    alone is set against 0. Of equal gaps the one between the more probable counts.
    """
    falling = sorted(probabilities, reverse=True)
    if len(falling) < 2:
        falling.append(0.0)
    gaps = [high - low for high, low in pairwise(falling)]
    place = gaps.index(max(gaps))
    return (falling[place] + falling[place + 1]) / 2


def tag_key(tag: str) -> str:
    """What makes two spellings the same tag: case, underscores, escapes and outer spaces do not count."""
    plain = re.sub(r"\\([\\()])", r"\1", tag.strip()).lower()
    return plain if plain in KAOMOJI else plain.replace("_", " ")


def without_repeats(tags: Sequence[str]) -> list[str]:
    """The tags without empty ones and without a second spelling of the same tag; the first one stays."""
    kept: dict[str, str] = {}
    for tag in tags:
        if tag.strip():
            kept.setdefault(tag_key(tag), tag.strip())
    return list(kept.values())


def _ranked(labels: Sequence[Label], scores: Scores, category: Category) -> list[tuple[int, float]]:
    """(row, probability) of a category, the most probable first, equal ones in the order of the labels."""
    found = [(row, score) for row, score in scores.items() if labels[row].category == category]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def _chosen(ranked: Sequence[tuple[int, float]], threshold: float, use_mcut: bool, mcut_floor: float) -> list[int]:
    if use_mcut and ranked:
        threshold = max(mcut([score for _, score in ranked]), mcut_floor)
    return [row for row, score in ranked if score > threshold]


def _spelt(label: Label, settings: TagSettings) -> list[str]:
    """A label as caption tags: replaced as the user says, else split, spaced and escaped."""
    for line in settings.replacements:
        old, new = line.split("=", 1)
        if tag_key(old) == tag_key(label.name):
            return [new.strip()]
    names = [label.name]
    series = re.fullmatch(r"(.+)_\((.+)\)", label.name) if settings.expand_series else None
    if series and label.category == "character":
        names = list(series.groups())
    if settings.replace_underscores:
        names = [name if name in KAOMOJI else name.replace("_", " ") for name in names]
    if settings.escape_brackets:
        names = [re.sub(r"([\\()])", r"\\\1", name) for name in names]
    return names
