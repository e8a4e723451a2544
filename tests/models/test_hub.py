"""Models by their id on the hub: what is an id, what is taken, what is used without a call, and how a download behaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_server import Hub
from trainer.errors import AthanorError, BadInput
from trainer.models import hub, hub_download
from trainer.models.hub import HubId, look_up, parse
from trainer.models.hub_download import fetch, make_plan
from trainer.models.hub_files import Unusable, is_whole, needed_files
from trainer.paths import ROOT, user_folder

REPO = "someone/tiny-model"
INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "X"], "vae": ["diffusers", "X"],
         "text_encoder": ["transformers", "X"], "safety_checker": [None, None]}  # fmt: skip


def weights(seed: int, num_bytes: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(num_bytes)


DIFFUSERS = {
    "model_index.json": json.dumps(INDEX).encode(),
    "README.md": b"# A model",
    "v1-pruned.safetensors": weights(1),
    "v1-pruned.ckpt": weights(2),
    "unet/config.json": b'{"in_channels": 4}',
    "unet/diffusion_pytorch_model.safetensors": weights(3),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(4),
    "unet/diffusion_pytorch_model.non_ema.safetensors": weights(5),
    "unet/diffusion_pytorch_model.bin": weights(6),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.bin": weights(7),
    "text_encoder/config.json": b'{"_": 1}',
    "text_encoder/model.safetensors": weights(8),
    "text_encoder/pytorch_model.bin": weights(9),
    "safety_checker/model.safetensors": weights(10),
    "tokenizer/vocab.json": b"{}",
    "scheduler/scheduler_config.json": b'{"prediction_type": "epsilon"}',
    "unet/model.onnx": weights(11),
}
TAKEN = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _served(server: Hub) -> None:
    """Every server has the model."""
    server.repos[REPO] = dict(DIFFUSERS)


def quiet(done: int, total: int) -> None: ...


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---- what is an id ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("someone/model", HubId("someone/model")),
        ("some-one/my.model_v1.5", HubId("some-one/my.model_v1.5")),
        ("someone/model@v2.0", HubId("someone/model", "", "v2.0")),
        ("someone/model@refs/pr/1", HubId("someone/model", "", "refs/pr/1")),
        ("someone/model/a b.safetensors", HubId("someone/model", "a b.safetensors")),
        ("someone/model/sub/x.ckpt@main", HubId("someone/model", "sub/x.ckpt", "main")),
        ("https://huggingface.co/someone/model", HubId("someone/model")),
        ("https://huggingface.co/someone/model/blob/main/x.safetensors", HubId("someone/model", "x.safetensors")),
        ("https://mirror.example/someone/model/resolve/v2/x.safetensors?download=true",
         HubId("someone/model", "x.safetensors", "v2")),
        ("https://huggingface.co/someone/model/tree/main", HubId("someone/model")),
        ("https://elsewhere.example/models/1234", None),
        ("models/x.safetensors", None),
        ("model.safetensors", None),
        ("someone", None),
        ("/someone/model", None),
        ("./someone/model", None),
        ("../model", None),
        ("~/model", None),
        ("C:/model", None),
        ("someone\\model", None),
        ("someone/model/vae", None),
        ("some--one/model", None),
        ("someone/../model", None),
        ("someone/model@", None),
        ("someone/model@../../x", None),
        ("someone/model/../../x.safetensors", None),
        ("someone/model.git", None),
        ("", None),
        ("a\0b/c", None),
        ("我的/模型", None),
    ],
)  # fmt: skip
def test_what_is_an_id(tmp_path: Path, text: str, expected: HubId | None) -> None:
    assert parse(text, tmp_path) == expected
    if expected is not None:
        assert parse(str(expected), tmp_path) == expected
        assert parse(Path(str(expected)), tmp_path) == expected


def test_what_is_on_this_disk_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "someone/model").mkdir(parents=True)
    assert parse("someone/model", tmp_path) is None
    assert parse("someone/other", tmp_path) == HubId("someone/other")
    assert parse("someone/model/missing.safetensors", tmp_path) is None  # a mistake in a path, not an id


def test_a_mirrors_own_pages_are_ids_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("https://my-mirror.example/a/b", tmp_path) is None
    monkeypatch.setenv("HF_ENDPOINT", "https://my-mirror.example")
    assert parse("https://my-mirror.example/a/b", tmp_path) == HubId("a/b")


# ---- which files ----


def test_only_what_is_needed_is_taken() -> None:
    assert sorted(needed_files(list(DIFFUSERS)).files) == TAKEN
    full = needed_files(list(DIFFUSERS), full=True).files
    assert "unet/diffusion_pytorch_model.safetensors" in full and len(full) == len(TAKEN)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" not in full


def test_shards_are_taken_whole_or_not_at_all() -> None:
    shards = [f"unet/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    names = ["model_index.json", "unet/config.json", *shards, "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
             "unet/diffusion_pytorch_model.bin"]  # fmt: skip
    assert needed_files(names).files == (
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.fp16.json", *shards,
    )  # fmt: skip
    names.remove(shards[1])
    assert needed_files(names).files[-1] == "unet/diffusion_pytorch_model.bin"


@pytest.mark.parametrize(
    ("names", "model"),
    [
        (["x.safetensors", "x.yaml", "y.ckpt", "README.md"], "x.safetensors"),
        (["y.ckpt", "sub/x.safetensors"], "y.ckpt"),
        (["adapter_model.safetensors", "adapter_config.json"], "adapter_model.safetensors"),
        (["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"], ""),
    ],
)
def test_models_that_are_no_pipeline(names: list[str], model: str) -> None:
    needed = needed_files(names)
    assert needed.model == model and "y.ckpt" not in set(needed.files) - {model}
    beside = {"x.yaml", "adapter_config.json", "config.json"} & set(names)
    assert beside <= set(needed.files) and "diffusion_pytorch_model.bin" not in needed.files


@pytest.mark.parametrize(
    ("names", "file", "said"),
    [
        (["a.safetensors", "b.safetensors"], "", "several models"),
        (["README.md"], "", "no model in it"),
        ([], "", "no model in it"),
        (["model_index.json", "transformer/config.json", "vae/config.json"], "", "no UNet"),
        (["model_index.json", "unet/config.json", "unet/flax_model.msgpack"], "", "unet/ has no weights"),
        (["a.safetensors"], "b.safetensors", "no file b.safetensors"),
    ],
)
def test_what_can_not_be_used_is_said(names: list[str], file: str, said: str) -> None:
    with pytest.raises(Unusable, match=said) as caught:
        needed_files(names, file)
    if "a.safetensors" in names:
        assert "a.safetensors" in str(caught.value.todo)


def test_a_version_is_whole_with_all_its_parts() -> None:
    assert is_whole(TAKEN, INDEX) and is_whole([], None)
    for name in TAKEN:
        left = [other for other in TAKEN if other != name]
        assert is_whole(left, INDEX) == name.startswith(("model_index", "scheduler"))
    assert not is_whole(TAKEN, [])  # type: ignore[arg-type]


# ---- fetching ----


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


# ---- caches ----


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


# ---- the command ----


def command(server: Hub, *arguments: str, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0", "ATHANOR_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "fetch", *arguments], cwd=ROOT, env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_says_how_far_it_is(server: Hub, tmp_path: Path) -> None:
    child = command(server, REPO, "--json", home=tmp_path)
    out, err = child.communicate(timeout=60)
    lines = [json.loads(line) for line in out.splitlines()]
    assert child.returncode == 0, err
    assert lines[0]["event"] == "plan" and lines[0]["total"] == sum(len(DIFFUSERS[name]) for name in TAKEN)
    assert lines[-1]["event"] == "done" and files_in(Path(lines[-1]["path"])) == TAKEN
    assert all(line["done"] <= line["total"] for line in lines if line["event"] == "progress")
    assert {path for _, path, _, _ in server.asked if not path.startswith(("/cdn/", f"/{REPO}/resolve/"))} == {
        f"/api/models/{REPO}"
    }  # and nothing else is asked or told


def test_a_command_that_is_ended_goes_on_the_next_time(server: Hub, tmp_path: Path) -> None:
    server.repos[REPO]["big.safetensors"] = weights(20, 6_000_000)
    server.cut_after, server.cuts = 3_000_000, 1000
    child = command(server, f"{REPO}/big.safetensors", "--json", home=tmp_path)
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "progress":
            break
    child.send_signal(signal.SIGTERM) if os.name != "nt" else child.kill()
    child.communicate(timeout=30)
    server.cuts = 0
    kept = [path.stat().st_size for path in tmp_path.rglob("*.part")] or [6_000_000]
    server.asked.clear()
    again = command(server, f"{REPO}/big.safetensors", home=tmp_path)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    ranges = [int(given.removeprefix("bytes=").removesuffix("-") or 0) for given in server.sent("/cdn/")]
    assert ranges == [kept[0]] or kept[0] == 6_000_000
    assert "big.safetensors" in out


def test_the_command_only_asks_for_the_size(server: Hub, tmp_path: Path) -> None:
    child = command(server, REPO, "--plan", home=tmp_path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0 and "8 files" in out, err
    assert server.sent("/cdn/") == []


def test_what_the_command_can_not_fetch_is_a_sentence(
    server: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from trainer.__main__ import main

    assert main(["fetch", "someone/none"]) == 2
    assert "There is no model someone/none" in capfd.readouterr().err
    assert main(["fetch", "someone/none", "--json"]) == 2
    answer = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert not answer["ok"] and "There is no model" in answer["what"] and answer["todo"]
    assert answer["what_message"]["values"] == {"id": "someone/none"}  # for the window's language
    assert main(["fetch", str(tmp_path)]) == 2
    assert "is no model's id" in capfd.readouterr().err
