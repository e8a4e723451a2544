"""Where models of the hub are kept, and which caches are not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.hub_model import REPO, TAKEN, files_in, quiet
from tests.models.hub_server import Hub
from trainer.models import hub
from trainer.models.hub import HubId, look_up
from trainer.models.hub_download import fetch

pytestmark = pytest.mark.usefixtures("served")


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HF_HOME", "ATHANOR_HOME", "XDG_CACHE_HOME"])
def test_where_the_cache_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "ATHANOR_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    inner = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "ATHANOR_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    assert hub.cache_folders()[0] == tmp_path / inner[name]


def test_what_other_programs_fetched_is_found_beside_a_moved_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    repo = tmp_path / "huggingface/hub" / HubId(REPO).folder_name
    (repo / "snapshots/abc").mkdir(parents=True)
    (repo / "snapshots/abc/x.safetensors").write_bytes(b"x")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc", encoding="utf-8")
    path = look_up(HubId(REPO)).path
    assert path == repo / "snapshots/abc/x.safetensors"
    assert hub.shown_name(path) == "x.safetensors" and hub.shown_name(repo / "snapshots/abc") == REPO
    assert hub.shown_name(Path("a/b.safetensors")) == "b.safetensors"
    assert hub.shown_stem(repo / "snapshots/abc") == "tiny-model" and hub.shown_stem(path) == "x"


@pytest.mark.parametrize("damage", ["dangling", "index", "ref", "no ref"])
def test_a_damaged_cache_is_not_used(server: Hub, damage: str) -> None:
    path = fetch(HubId(REPO), quiet)
    repo = path.parent.parent
    if damage == "dangling":
        (path / TAKEN[3]).resolve().unlink()
    elif damage == "index":
        (path / "model_index.json").resolve().write_text("{", encoding="utf-8")
    elif damage == "ref":
        (repo / "refs/main").write_bytes(b"\xff\0")
    else:
        (repo / "refs/main").unlink()
    assert look_up(HubId(REPO)).path is None
    if damage != "index":
        assert fetch(HubId(REPO), quiet) == path and files_in(path) == TAKEN
