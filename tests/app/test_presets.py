"""Presets by memory: every value is one that the schema takes, and the card decides which is suggested."""

from __future__ import annotations

import pytest

from app.draft import default_values
from app.machine import Card, parse_cards
from app.places import read, write
from app.presets import Preset, presets, suggested
from trainer.config.problems import check_values

GB = 2**30


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
@pytest.mark.parametrize("capability", [None, 7.5, 8.6])
def test_every_value_is_one_that_the_schema_takes(preset: Preset, capability: float | None) -> None:
    card = None if capability is None else Card("card", preset.gb * GB, preset.gb * GB, capability)
    values = default_values()
    for place, value in preset.for_card(card).items():
        read(values, place)  # raises KeyError for a place that there is not
        write(values, place, value)
    _, problems = check_values(values)
    assert {problem.place for problem in problems} <= {"model.path", "images.folders"}


def test_newer_cards_take_bf16() -> None:
    preset = next(preset for preset in presets() if preset.name == "12")
    assert preset.for_card(Card("RTX 3060", 12 * GB, 11 * GB, 8.6))["speed.precision"] == "bf16"
    assert preset.for_card(Card("RTX 2060", 12 * GB, 11 * GB, 7.5))["speed.precision"] == "fp16"


@pytest.mark.parametrize(
    ("memory", "name"), [(4, "cpu"), (6, "6"), (7.9, "8"), (8, "8"), (11, "10"), (12, "12"), (23.7, "24"), (80, "24")]
)
def test_the_largest_that_fits_is_suggested(memory: float, name: str) -> None:
    assert suggested((Card("card", int(memory * GB), 0, 8.0),)).name == name


def test_without_a_card_the_cpu_is_suggested() -> None:
    assert suggested(()).name == "cpu"


def test_the_drivers_lines_are_read() -> None:
    text = "NVIDIA GeForce RTX 3060, 12288, 11019, 8.6\nNVIDIA A, B, 24564, 100, 8.9\nno card, [N/A], [N/A], [N/A]\n"
    cards = parse_cards(text)
    assert [card.name for card in cards] == ["NVIDIA GeForce RTX 3060", "NVIDIA A, B"]
    assert cards[0].total == 12288 * 2**20
    assert cards[0].has_bf16
