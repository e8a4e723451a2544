"""Numbers as people read them, in every language alike."""

from __future__ import annotations


def size_words(num_bytes: float) -> str:
    """ "36.2 MB", "1.1 GB": in units of 1024, three figures."""
    value = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"
