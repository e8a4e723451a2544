"""Numbers as people read them: sizes, times, counts."""

from __future__ import annotations

from app.i18n import tr


def size_words(num_bytes: float) -> str:
    """ "36.2 MB", "1.1 GB": in units of 1024, three figures."""
    value = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


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
