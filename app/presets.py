"""First values by the memory of the graphics card, from `resources/presets/vram.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.machine import Card
from trainer.paths import RESOURCES

FILE = RESOURCES / "presets" / "vram.toml"


@dataclass(frozen=True)
class Preset:
    """A row of first values: place -> value. `gb` is 0 for the CPU."""

    name: str
    title: str
    gb: int
    values: Mapping[str, Any]

    def for_card(self, card: Card | None) -> dict[str, Any]:
        """Its values; bf16 in place of fp16 where the card can do it, which needs no loss scaler."""
        values = dict(self.values)
        if card is not None and card.has_bf16 and values.get("speed.precision") == "fp16":
            values["speed.precision"] = "bf16"
        return values


@cache
def presets() -> tuple[Preset, ...]:
    """All rows, the smallest first."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    rows = [Preset(name, row["title"], row.get("gb", 0), row["values"]) for name, row in tables.items()]
    return tuple(sorted(rows, key=lambda preset: preset.gb))


def suggested(cards: tuple[Card, ...]) -> Preset:
    """The largest preset that the first card's memory holds; the CPU's where there is no card, or a very small one."""
    room = round(cards[0].total / 2**30) if cards else 0  # drivers report a little less than what is on the box
    return max((preset for preset in presets() if preset.gb <= room), key=lambda preset: preset.gb)
