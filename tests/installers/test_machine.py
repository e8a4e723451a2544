"""Reading cards and drivers from nvidia-smi and from the system's list of devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from installers.machine import (
    Card,
    ask_nvidia,
    cards_of_ids,
    linux_display_ids,
    look,
    total_memory,
    windows_display_ids,
)
from tests.installers.fake import SMI_4090, FakeHost


def put_device(devices: Path, name: str, kind: str, vendor: str) -> None:
    folder = devices / name
    folder.mkdir(parents=True)
    (folder / "class").write_text(kind + "\n", encoding="ascii")
    (folder / "vendor").write_text(vendor + "\n", encoding="ascii")


def test_two_cards_of_nvidia_smi(host: FakeHost) -> None:
    host.smi = SMI_4090 + "Quadro P2000, 580.95.05, 5120, 6.1\n"
    assert ask_nvidia(host) == (
        (Card("NVIDIA GeForce RTX 4090", "nvidia", (8, 9), 24564), Card("Quadro P2000", "nvidia", (6, 1), 5120)),
        "580.95.05",
        "",
    )


def test_old_driver_without_capability_is_asked_again(host: FakeHost) -> None:
    host.smi = "GeForce GTX 1080, 391.35, 8192\n"
    assert ask_nvidia(host) == ((Card("GeForce GTX 1080", "nvidia", None, 8192),), "391.35", "")


def test_driver_that_fails_is_quoted(host: FakeHost) -> None:
    host.smi = "!Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"
    assert look(host).driver_complaint == "Failed to initialize NVML: Driver/library version mismatch"


def test_memory_that_is_not_a_number(host: FakeHost) -> None:
    host.smi = "NVIDIA GB10, 580.95.05, [N/A], 12.1\n"
    assert ask_nvidia(host)[0] == (Card("NVIDIA GB10", "nvidia", (12, 1), None),)


def test_system_list_finds_cards_and_leaves_out_other_devices(tmp_path: Path) -> None:
    put_device(tmp_path, "0000:00:02.0", "0x030000", "0x8086")
    put_device(tmp_path, "0000:01:00.0", "0x030200", "0x10de")
    put_device(tmp_path, "0000:02:00.0", "0x020000", "0x8086")  # a network card
    put_device(tmp_path, "0000:03:00.0", "0x030000", "0x1af4")  # a virtual display
    assert [card.vendor for card in cards_of_ids(linux_display_ids(tmp_path))] == ["intel", "nvidia"]


def test_nvidia_card_without_driver_is_seen_and_not_counted_twice(host: FakeHost, root: Path) -> None:
    put_device(root / "pci", "0000:01:00.0", "0x030000", "0x10de")
    assert [card.vendor for card in look(host).cards] == ["nvidia"]
    assert look(host).driver is None
    host.smi = SMI_4090
    assert [card.name for card in look(host).cards] == ["NVIDIA GeForce RTX 4090"]


@pytest.mark.skipif(os.name == "nt", reason="the registry is there on Windows")
def test_windows_twin_finds_nothing_elsewhere() -> None:
    assert windows_display_ids() == []


def test_memory_is_plausible() -> None:
    size = total_memory()
    assert size is None or 2**28 < size < 2**50
