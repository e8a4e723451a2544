"""Numbers as people read them: sizes, times, counts."""

from __future__ import annotations

from app.i18n import tr
from trainer.words import size_words

__all__ = ["count_words", "part_words", "size_words", "time_words"]


def count_words(number: int) -> str:
    """ "12,345"."""
    return f"{number:,}"


def part_words(part: str) -> str:
    """A part of the model that learns, as people call it."""
    words = {
        "unet": tr("UNet"),
        "text_encoder": tr("text encoder"),
        "text_encoder_2": tr("second text encoder"),
    }
    return words.get(part, part)


def time_words(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 05 min"."""
    whole = round(seconds)
    if whole < 90:
        return tr("{seconds} s", seconds=whole)
    if whole < 5400:
        return tr("{minutes} min", minutes=round(whole / 60))
    return tr("{hours} h {minutes:02d} min", hours=whole // 3600, minutes=whole % 3600 // 60)
