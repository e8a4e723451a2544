"""What happens to a caption between its file and the text encoder: pure functions of the caption and a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.data.order import keyed_random


@dataclass(frozen=True)
class CaptionRules:
    """How captions are changed while training. `keep_tokens` parts at the start stay in place when shuffling."""

    prefix: str = ""
    shuffle: bool = False
    keep_tokens: int = 0
    dropout: float = 0.0

    @property
    def cacheable(self) -> bool:
        """Whether each picture has one caption for the whole run (dropped captions aside, which are the empty one)."""
        return not self.shuffle


def first_line(text: str) -> str:
    """A caption file's caption: its first line that is not blank (what follows is not read), else nothing."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def split_tags(caption: str) -> list[str]:
    """The comma-separated parts, stripped, empty ones left out."""
    return [tag for part in caption.split(",") if (tag := part.strip())]


def with_prefix(caption: str, prefix: str) -> str:
    """`prefix` in front of `caption`, a space between them (as sd-scripts does; a comma belongs into the prefix)."""
    return " ".join(part for part in (prefix.strip(), caption.strip()) if part)


def shape_caption(caption: str, rules: CaptionRules, key: tuple[int, int, int, int]) -> str:
    """The caption of one showing; `key` is (seed, epoch, item, repeat) and decides dropout and the order of tags.

    A dropped caption is empty, the prefix included. Parts that stay are never altered.
    """
    if rules.dropout > 0 and keyed_random("caption dropout", *key).random() < rules.dropout:
        return ""
    whole = with_prefix(caption, rules.prefix)
    if not rules.shuffle:
        return whole
    tags = split_tags(whole)
    kept, moved = tags[: rules.keep_tokens], tags[rules.keep_tokens :]
    keyed_random("caption order", *key).shuffle(moved)
    return ", ".join(kept + moved)


def captions_to_cache(captions: Iterable[str], rules: CaptionRules) -> tuple[str, ...]:
    """Every caption that a run with cacheable `rules` can show, each once, in a fixed order."""
    wanted = {with_prefix(caption, rules.prefix) for caption in captions}
    return tuple(sorted(wanted | {""} if rules.dropout > 0 else wanted))


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """How often each comma-separated part occurs, most frequent first (the metadata's `ss_tag_frequency`)."""
    counts = Counter(tag for caption in captions for tag in split_tags(caption))
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
