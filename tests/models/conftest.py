"""A tiny model that tests only read, and a hub on this machine for those that fetch models by their id."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hub_model import DIFFUSERS, REPO
from tests.models.hub_server import Hub, serving
from tests.models.shapes import Shapes


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SD 1.x model, for all tests that only read it."""
    from tests.tiny import save_tiny_file

    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def sd1(tiny_file: Path) -> Shapes:
    """Its names and shapes."""
    from trainer.models.safetensors_file import read_header

    return read_header(tiny_file).shapes


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub that HF_ENDPOINT leads to, in place of the real one; caches are in the test's own folder."""
    import huggingface_hub.constants

    from trainer.models import hub_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))  # nobody's own
    monkeypatch.setattr(hub_download, "WAITS_S", (0.01, 0.01))
    with serving(Hub()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture
def served(server: Hub) -> None:
    """The hub has a model."""
    server.repos[REPO] = dict(DIFFUSERS)


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may be called, not even on this machine."""

    def refuse(*args: object) -> None:
        raise AssertionError("something was called")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
