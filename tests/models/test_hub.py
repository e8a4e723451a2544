"""Models by their id on the hub: fetched once, gone on with after a broken line, and then used without a call."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_model import DIFFUSERS, INDEX, REPO, TAKEN, files_in, quiet
from tests.models.hub_server import Hub
from trainer.errors import AthanorError, BadInput
from trainer.models import hub, hub_download
from trainer.models.hub import HubId, look_up
from trainer.models.hub_download import fetch, make_plan
from trainer.paths import user_folder

pytestmark = pytest.mark.usefixtures("served")


def test_a_model_is_fetched_and_then_used_without_a_call(server: Hub, request: pytest.FixtureRequest) -> None:
    hub_id = HubId(REPO)
    assert look_up(hub_id).path is None
    seen: list[tuple[int, int]] = []
    path = fetch(hub_id, lambda done, total: seen.append((done, total)))
    assert files_in(path) == TAKEN
    assert all((path / name).read_bytes() == DIFFUSERS[name] for name in TAKEN)
    total = sum(len(DIFFUSERS[name]) for name in TAKEN)
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {all_of for _, all_of in seen} == {total}
    assert path.is_relative_to(user_folder() / "hub")
    request.getfixturevalue("no_calls")
    assert fetch(hub_id, quiet) == path
    assert look_up(hub_id).path == path
    assert look_up(HubId(REPO, revision=server.commit)).path == path
    assert hub.local(REPO) == path and hub.local("someone/none") == Path("someone/none")
    assert hub.pinned(look_up(hub_id)) == f"{REPO}@{server.commit}"
    assert look_up(HubId(REPO, revision="v2")).path is None


def test_the_library_finds_what_was_fetched_and_we_find_what_it_fetched(
    server: Hub, no_calls: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    import huggingface_hub.constants
    from huggingface_hub import hf_hub_download, snapshot_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    path = fetch(HubId(REPO), quiet)
    assert path.is_relative_to(tmp_path / "hub")
    cache = str(tmp_path / "hub")
    found = hf_hub_download(REPO, TAKEN[3], cache_dir=cache, local_files_only=True, endpoint=server.address)
    assert Path(found).read_bytes() == DIFFUSERS[TAKEN[3]]
    shutil.rmtree(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    snapshot_download(REPO, cache_dir=cache, endpoint=server.address, allow_patterns=TAKEN, token=False, max_workers=1)
    server.asked.clear()
    assert files_in(fetch(HubId(REPO), quiet)) == TAKEN and server.asked == []


def test_one_file_with_its_config_and_a_version(server: Hub) -> None:
    server.repos[REPO]["v1-pruned.yaml"] = b"model: {}"
    path = fetch(HubId(REPO, "v1-pruned.safetensors", "v2"), quiet)
    assert path.name == "v1-pruned.safetensors" and path.read_bytes() == DIFFUSERS["v1-pruned.safetensors"]
    assert path.with_suffix(".yaml").read_bytes() == b"model: {}" and len(files_in(path.parent)) == 2
    assert look_up(HubId(REPO, "v1-pruned.safetensors", "v2")).path == path
    assert look_up(HubId(REPO, "v1-pruned.safetensors")).path is None  # main was never asked for


REFINER = {"addition_embed_type": "text_time", "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}


@pytest.mark.parametrize(
    ("pipeline", "unet", "said"),
    [
        ("StableVideoDiffusionPipeline", {}, "StableVideoDiffusionPipeline"),
        ("StableDiffusionXLImg2ImgPipeline", REFINER, "SDXL refiner"),
        ("StableDiffusion3Pipeline", {}, "Stable Diffusion 3"),
    ],
)
def test_weights_of_another_kind_of_model_do_not_come(server: Hub, pipeline: str, unet: dict[str, Any], said: str) -> None:
    server.repos[REPO]["model_index.json"] = json.dumps({**INDEX, "_class_name": pipeline}).encode()
    server.repos[REPO]["unet/config.json"] = json.dumps(unet).encode()
    with pytest.raises(BadInput, match=f"another kind: {said}"):
        fetch(HubId(REPO), quiet)
    assert server.sent("/cdn/") == []


def test_full_precision_when_asked(server: Hub) -> None:
    half, full = fetch(HubId(REPO), quiet), fetch(HubId(REPO), quiet, full=True)
    assert half == full and (full / "unet/diffusion_pytorch_model.safetensors").exists()
    asked = len(server.asked)
    assert fetch(HubId(REPO), quiet) == full and len(server.asked) == asked


@pytest.mark.parametrize("cut_after", [1, 100_000, 299_999])
def test_a_broken_line_is_gone_on_from(server: Hub, cut_after: int) -> None:
    server.cut_after, server.cuts = cut_after, 2
    path = fetch(HubId(REPO, "v1-pruned.safetensors"), quiet)
    assert path.read_bytes() == DIFFUSERS["v1-pruned.safetensors"]
    expected = ["", f"bytes={cut_after}-", f"bytes={2 * cut_after}-"]
    assert server.sent("/cdn/") == expected[: 3 if 2 * cut_after < 300_000 else 2]
    assert not list(user_folder().rglob("*.part"))


def test_a_download_that_was_stopped_is_gone_on_from(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(Exception): ...

    def leave(done: int, total: int) -> None:
        if done > 100_000:
            raise Left

    monkeypatch.setattr(hub_download, "_WRITE_BYTES", 50_000)
    big = HubId(REPO, "v1-pruned.safetensors")
    with pytest.raises(Left):
        fetch(big, leave)
    part = next(user_folder().rglob("*.part"))
    here = part.stat().st_size
    assert 100_000 < here < 300_000 and look_up(big).path is None
    plan = make_plan(big)
    assert (plan.num_here, plan.num_bytes) == (here, 300_000)
    server.asked.clear()
    seen: list[int] = []
    assert fetch(big, lambda done, total: seen.append(done)).read_bytes() == DIFFUSERS["v1-pruned.safetensors"]
    assert server.sent("/cdn/") == [f"bytes={here}-"] and min(seen) >= here


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("a mistake"), KeyboardInterrupt()])
def test_what_the_caller_raises_is_nobody_elses_fault(server: Hub, error: BaseException) -> None:
    def closed(done: int, total: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fetch(HubId(REPO, "v1-pruned.safetensors"), closed)
    assert caught.value is error and len(server.sent("/cdn/")) == 1


def test_a_server_without_ranges_begins_anew(server: Hub) -> None:
    server.cut_after, server.cuts, server.ranges = 100_000, 1, False
    path = fetch(HubId(REPO, "v1-pruned.safetensors"), quiet)
    assert path.read_bytes() == DIFFUSERS["v1-pruned.safetensors"]


@pytest.mark.parametrize("left", [b"wrong" * 30_000, b"x" * 300_001, b"y" * 300_000])
def test_what_broke_off_of_something_else_is_thrown_away(server: Hub, left: bytes) -> None:
    plan = make_plan(HubId(REPO, "v1-pruned.safetensors"))
    part = plan.part(plan.files[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert fetch(plan.hub_id, quiet).read_bytes() == DIFFUSERS["v1-pruned.safetensors"]


def test_damage_on_the_way_is_noticed(server: Hub) -> None:
    server.damage = 1
    path = fetch(HubId(REPO, "v1-pruned.safetensors"), quiet)
    assert path.read_bytes() == DIFFUSERS["v1-pruned.safetensors"]
    server.damage = 100
    with pytest.raises(AthanorError, match="damaged"):
        fetch(HubId(REPO, "v1-pruned.ckpt"), quiet)
    assert look_up(HubId(REPO, "v1-pruned.ckpt")).path is None


def test_without_links_files_are_moved(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows without developer mode."""

    def refuse(*args: object) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = fetch(HubId(REPO), quiet)
    assert files_in(path) == TAKEN and not (path / TAKEN[3]).is_symlink()
    assert not [blob for blob in (path.parent.parent / "blobs").iterdir() if blob.stat().st_size]
    assert look_up(HubId(REPO)).path == path


def test_two_at_once_fetch_it_once(server: Hub) -> None:
    import threading

    server.cut_after, server.cuts = 100_000, 1
    big = HubId(REPO, "v1-pruned.safetensors")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(big, quiet))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert server.sent("/cdn/") == ["", "bytes=100000-"]


def test_its_size_is_remembered(server: Hub, request: pytest.FixtureRequest) -> None:
    assert look_up(HubId(REPO)).num_bytes is None
    plan = make_plan(HubId(REPO))
    request.getfixturevalue("no_calls")
    assert look_up(HubId(REPO)).num_bytes == plan.num_bytes == sum(len(DIFFUSERS[name]) for name in TAKEN)
