"""Which build of PyTorch a card and its driver get, and what their owner is told."""

from __future__ import annotations

import pytest

from installers.machine import Card, Machine
from installers.torch_choice import choose


def computer(*cards: Card, driver: str | None = "580.95.05", system: str = "Linux", complaint: str = "") -> Machine:
    return Machine(system, "x86_64", cards, driver if cards else None, complaint)


def nvidia(compute: tuple[int, int] | None, name: str = "RTX") -> Card:
    return Card(name, "nvidia", compute, 24576)


@pytest.mark.parametrize(
    ("compute", "driver", "tag"),
    [
        ((12, 0), "591.44", "cu130"),  # Blackwell
        ((8, 9), "580.95.05", "cu130"),
        ((8, 6), "579.99", "cu126"),  # a driver before CUDA 13
        ((7, 5), "580.00", "cu130"),
        ((7, 0), "580.95.05", "cu126"),  # Volta has no code in CUDA 13's build
        ((6, 1), "560.94", "cu126"),
        ((5, 0), "525.60.13", "cu126"),
        (None, "580.95.05", "cu130"),  # a driver that does not tell the capability
    ],
)
def test_build_follows_card_and_driver(compute: tuple[int, int] | None, driver: str, tag: str) -> None:
    choice = choose(computer(nvidia(compute), driver=driver))
    assert (choice.tag, choice.blocked) == (tag, "")


@pytest.mark.parametrize(
    ("compute", "driver", "needed"),
    [((8, 9), "470.57", "525"), ((12, 0), "572.16", "580"), ((6, 1), "391.35", "525")],
)
def test_old_driver_blocks_and_names_the_one_needed(compute: tuple[int, int], driver: str, needed: str) -> None:
    choice = choose(computer(nvidia(compute), driver=driver))
    assert choice.tag == "cpu"
    assert driver in choice.blocked
    assert f"needs {needed} or newer" in choice.blocked


def test_card_before_maxwell_is_told_so_and_gets_the_processor() -> None:
    choice = choose(computer(nvidia((3, 5), "GeForce GT 710"), driver="470.57"))
    assert (choice.tag, choice.blocked) == ("cpu", "")
    assert "GeForce GT 710" in choice.notes[0]
    assert "3.5" in choice.notes[0]


def test_mixed_cards_take_the_build_that_serves_both() -> None:
    choice = choose(computer(nvidia((8, 9), "new"), nvidia((6, 1), "old")))
    assert (choice.tag, choice.notes) == ("cu126", ())


def test_mixed_cards_that_no_build_serves_name_the_one_left_out() -> None:
    choice = choose(computer(nvidia((12, 0), "new"), nvidia((6, 1), "old")))
    assert choice.tag == "cu130"
    assert [note.split(" ")[0] for note in choice.notes] == ["old"]


def test_card_without_driver_is_blocked() -> None:
    choice = choose(computer(nvidia(None, "GeForce"), driver=None))
    assert choice.tag == "cpu"
    assert "not installed" in choice.blocked


def test_driver_that_does_not_answer_is_quoted() -> None:
    choice = choose(computer(complaint="Failed to initialize NVML: Driver/library version mismatch"))
    assert "version mismatch" in choice.blocked
    assert "restart" in choice.blocked


@pytest.mark.parametrize("vendor", ["amd", "intel"])
def test_other_cards_are_told_plainly(vendor: str) -> None:
    choice = choose(computer(Card("Arc or Radeon", vendor), driver=None))
    assert (choice.tag, choice.blocked) == ("cpu", "")
    assert "Arc or Radeon" in choice.notes[0]
    assert "cannot be used" in choice.notes[0]


def test_no_card_and_macs_use_the_processor() -> None:
    assert "No NVIDIA card" in choose(computer()).notes[0]
    assert choose(Machine("Darwin", "arm64", (Card("Apple GPU", "apple"),))).tag == ""
    assert "Intel" in choose(Machine("Darwin", "x86_64")).notes[0]


def test_choice_by_hand_is_obeyed() -> None:
    assert choose(computer(nvidia((8, 9))), asked="cpu").tag == "cpu"
    assert choose(computer(), asked="cu126").tag == "cu126"
