"""Models by their id on the hub: what is an id, and which files of a model are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.hub_model import DIFFUSERS, INDEX, TAKEN
from trainer.models.hub import HubId, parse
from trainer.models.hub_files import Unusable, is_whole, needed_files


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
        assert is_whole(left, INDEX) == name.startswith(("model_index", "scheduler", "tokenizer/special"))
    assert is_whole([name for name in TAKEN if not name.startswith("tokenizer")], INDEX), "CLIP's own stands in"
    assert not is_whole(TAKEN, [])  # type: ignore[arg-type]
