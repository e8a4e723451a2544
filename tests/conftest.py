"""What every test stands on: its own user folder, no network, no screen, one thread of torch."""

from __future__ import annotations

import os

# Before anything imports Qt, torch or a hub client.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONUTF8"] = "1"

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong: no deadline for an example, and no complaint that examples come slowly.
settings.register_profile("athanor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("athanor")

AWKWARD_NAME = "测试 空格(1) 🐱"


@pytest.fixture(autouse=True)
def _user_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Caches, drafts and preferences of a test live in a folder of its own, for its child processes too."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ATHANOR_HOME", str(home))
    yield home


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host not in ("", "localhost", "127.0.0.1", "::1"):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """A folder whose name has Chinese, a blank, brackets and an emoji."""
    folder = tmp_path / AWKWARD_NAME
    folder.mkdir()
    return folder
