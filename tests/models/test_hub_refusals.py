"""What a hub, a mirror or a disk can refuse: each is a sentence, and no token or file goes where it should not."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.models.hub_model import REPO, TAKEN, files_in, quiet
from tests.models.hub_server import Hub
from trainer.errors import AthanorError, BadInput
from trainer.models import hub_download
from trainer.models.hub import HubId
from trainer.models.hub_download import fetch
from trainer.paths import user_folder

pytestmark = pytest.mark.usefixtures("served")


def test_a_busy_server_is_asked_again_and_then_given_up(server: Hub) -> None:
    server.busy = 2
    fetch(HubId(REPO, "v1-pruned.safetensors"), quiet)
    server.busy = 100
    with pytest.raises(AthanorError, match="answers with error 503"):
        fetch(HubId(REPO, "v1-pruned.ckpt"), quiet)
    assert 100 - server.busy == 3


def test_a_mirror_that_tells_no_sizes(server: Hub) -> None:
    server.sizes = False
    assert files_in(fetch(HubId(REPO), quiet)) == TAKEN


def test_names_that_lead_out_of_the_folder_are_not_taken(server: Hub) -> None:
    names = ("../evil.safetensors", "..\\evil.safetensors", "/evil.safetensors", "C:evil.safetensors", "a/../evil.ckpt")
    server.repos["someone/bad"] = {}
    server.extra_names = names
    with pytest.raises(BadInput, match="no model in it"):
        fetch(HubId("someone/bad"), quiet)
    server.commit = "../../../x"
    with pytest.raises(AthanorError, match="not as the hub does"):
        fetch(HubId(REPO), quiet)


def test_the_token_goes_to_the_hub_alone(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "hf_secret"
    with pytest.raises(BadInput, match="not public") as caught:
        fetch(HubId(REPO), quiet)
    assert "HF_TOKEN" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(BadInput, match="does not open") as caught:
        fetch(HubId(REPO), quiet)
    assert "hf_wrong" not in str(caught.value)
    for broken in ("hf_sec ret", "hf_sec\nret", "hf_sécret"):
        monkeypatch.setenv("HF_TOKEN", broken)
        with pytest.raises(BadInput, match="no token has") as caught:
            fetch(HubId(REPO), quiet)
        assert "sec" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.asked.clear()
    fetch(HubId(REPO), quiet)
    assert all(has_token == (not path.startswith("/cdn/")) for _, path, _, has_token in server.asked)
    assert not any("hf_secret" in path.read_text("latin-1") for path in user_folder().rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("change", "hub_id", "said"),
    [
        ({}, HubId("someone/none"), "There is no model someone/none"),
        ({}, HubId(REPO, revision="v9"), "no version of that name"),
        ({}, HubId(REPO, "none.safetensors"), "no file none.safetensors"),
        ({"gated": True}, HubId(REPO), "accepted its terms"),
        ({"gated_files": True}, HubId(REPO), "accepted its terms"),
        ({"error": 403}, HubId(REPO), "does not give"),
        ({"error": 404}, HubId(REPO), "There is no model"),
        ({"error": 429}, HubId(REPO), "asked too often"),
        ({"error": 500}, HubId(REPO), "error 500"),
        ({"page": "<html>Please log in</html>"}, HubId(REPO), "not as the hub does"),
    ],
)
def test_every_refusal_is_a_sentence(
    server: Hub, change: dict[str, Any], hub_id: HubId, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(AthanorError, match=said) as caught:
        fetch(hub_id, quiet)
    assert caught.value.todo is not None


def test_no_network(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(AthanorError, match="cannot be reached") as caught:
        fetch(HubId(REPO), quiet)
    assert "mirror" in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(BadInput, match="is no address"):
        fetch(HubId(REPO), quiet)


def test_the_hub_is_not_asked_when_it_may_not_be(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AthanorError, match="HF_HUB_OFFLINE"):
        fetch(HubId(REPO), quiet)
    assert server.asked == []


def test_the_disk_is_looked_at_first(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(AthanorError, match=r"needs 0\.0 GB more .* 0\.0 GB are free"):
        fetch(HubId(REPO), quiet)
    assert server.sent("/cdn/") == []


def test_a_disk_that_fills_up(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*args: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub_download, "_receive", full)
    with pytest.raises(AthanorError, match="The disk is full"):
        fetch(HubId(REPO), quiet)
