"""What every test stands on: its own user folder, no network, no screen, one thread of torch, nothing left behind."""

from __future__ import annotations

import os

# Before anything imports Qt, torch or a hub client.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONUTF8"] = "1"

import gc
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from trainer.temporary import TemporaryFolder

# A busy machine is slow, not wrong: no deadline for an example, and no complaint that examples come slowly.
settings.register_profile("athanor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("athanor")

AWKWARD_NAME = "测试 空格(1) 🐱"
LIBRARY = 50  # so many new modules are one

_modules_seen = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Let the garbage collector look no more at a library that a test has brought: with torch and diffusers beside the
    window's toolkit, every fifth second was spent on objects that stay as long as the process."""
    global _modules_seen
    yield
    if len(sys.modules) > _modules_seen + LIBRARY:
        _modules_seen = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests and their child processes leave among temporary files, those that are killed above all, goes with them."""
    tmp_path_factory.getbasetemp()  # where it always is: some are kept
    folder = TemporaryFolder()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(name, str(folder.path))
        patch.setattr(tempfile, "tempdir", str(folder.path))
        yield
    folder.close()


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
