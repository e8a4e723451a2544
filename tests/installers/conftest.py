"""Fixtures of the set-up's tests: a project folder with an awkward name, and a fake computer in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installers.fake import FakeHost


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a b & c (1) 测试"
    folder.mkdir()
    return folder


@pytest.fixture
def host(root: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A Linux computer without a card and without a network, whatever this one is."""
    monkeypatch.setenv("ATHANOR_LANG", "en")
    monkeypatch.setattr("installers.environment.driver_mark", lambda host: "no driver")
    monkeypatch.setattr("installers.machine.platform.machine", lambda: "x86_64")
    return FakeHost(root)
