"""The saved file: whole or not at all, its hashes, the base model's hash, and what its header says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainer.config.run import Folder, Images, Model, Network, Optimizer, Output, Regularization, RunFile, Training
from trainer.data.buckets import Bucket
from trainer.data.index import index_dataset
from trainer.data.memo import Memo
from trainer.estimate import EpochLength, StepPlan
from trainer.export import BaseHash, save_adapter
from trainer.metadata import BaseFacts, DatasetFacts, Progress, base_facts, dataset_facts, header_metadata, legacy_hash
from trainer.models import tensor_file
from trainer.models.safetensors_file import read_header
from trainer.models.sd1 import FAMILY
from trainer.models.tensor_file import read_file

TENSORS = {
    "lora_unet_b.lora_down.weight": torch.randn(4, 600_000),
    "lora_unet_b.lora_up.weight": torch.randn(6, 4),
    "lora_unet_b.alpha": torch.tensor(2.0),
    "lora_te_a.alpha": torch.tensor(1.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_holds_what_was_given(awkward: Path, dtype: torch.dtype) -> None:
    path = awkward / "new" / "my.safetensors"
    save_adapter(path, TENSORS, {"ss_output_name": "猫"}, dtype)
    read = read_file(path)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor.to(dtype)) for name, tensor in TENSORS.items())
    header = read_header(path)
    assert header.metadata["ss_output_name"] == "猫"
    data = path.read_bytes()[header.data_start :]
    assert header.metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_adapter(tmp_path / name, dict(reversed(TENSORS.items())) if name == "a" else TENSORS, {}, torch.float16)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.safetensors"
    save_adapter(path, TENSORS, {}, torch.float16)
    before = path.read_bytes()
    calls = 0

    def full(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    original = tensor_file.tensor_bytes
    monkeypatch.setattr(tensor_file, "tensor_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_adapter(path, TENSORS, {}, torch.float32)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["my.safetensors"]


def test_the_base_models_hash_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base.safetensors"
    path.write_bytes(bytes(range(256)) * 20_000)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    memo = Memo(tmp_path / "memo.sqlite")
    assert BaseHash(path, memo).result(60) == wanted
    computed: list[Path] = []
    original = BaseHash._compute
    monkeypatch.setattr(BaseHash, "_compute", lambda self, path: computed.append(path) or original(self, path))
    assert BaseHash(path, memo).result(60) == wanted and computed == []
    path.write_bytes(b"changed" * 1000)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert BaseHash(path, memo).result(60) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert computed == [path]


def test_no_hash_of_a_folder_a_missing_file_or_when_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    memo = Memo(tmp_path / "memo.sqlite")
    assert BaseHash(tmp_path, memo).result(60) is None
    assert BaseHash(tmp_path / "none", memo).result(60) is None
    assert legacy_hash(tmp_path / "none") is None
    path = tmp_path / "base.safetensors"
    path.write_bytes(b"x" * 1000)
    go = threading.Event()
    original = BaseHash._compute
    monkeypatch.setattr(BaseHash, "_compute", lambda self, path: (go.wait(60), original(self, path))[1])
    hashing = BaseHash(path, memo)
    assert hashing.result(0.05) is None
    hashing.stop()
    go.set()
    assert hashing.result(60) is None


def test_base_facts_take_what_is_known_by_now(tmp_path: Path) -> None:
    model, vae = tmp_path / "base.safetensors", tmp_path / "vae.safetensors"
    model.write_bytes(b"x" * 0x110000)
    vae.write_bytes(b"y")
    memo = Memo(tmp_path / "memo.sqlite")
    hashes = {model: BaseHash(model, memo)}
    facts = base_facts(model, vae, "epsilon", False, hashes, wait_s=60)
    assert facts.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert facts.legacy_hash == hashlib.sha256(b"x" * 0x10000).hexdigest()[:8]
    assert (facts.name, facts.vae_name, facts.vae_sha256) == ("base.safetensors", "vae.safetensors", None)
    assert base_facts(tmp_path, None, "epsilon", False, {}).legacy_hash is None


# --- the header ---


@pytest.fixture
def run(tmp_path: Path) -> RunFile:
    return RunFile(
        model=Model(path="models/some base.safetensors", clip_skip=2, token_length=225),
        images=Images(folders=(Folder(path=str(tmp_path / "img")),), shuffle_captions=True, keep_tokens=1),
        regularization=Regularization(folders=(Folder(path=str(tmp_path / "reg")),)),
        network=Network(rank=8, alpha=4.0),
        optimizer=Optimizer(name="AdamW", learning_rate=2e-4, arguments={"weight_decay": 0.1}),
        training=Training(batch_size=2, seed=7),
        output=Output(name="rufus", title="Rufus the cat", author="Me", comment="first try"),
    )


@pytest.fixture
def data(tmp_path: Path, run: RunFile) -> DatasetFacts:
    for folder, names in (("img/10_rufus cat", "ab"), ("reg/1_cat", "c")):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            colour = (ord(name), 0, 0)
            Image.new("RGB", (64, 64), colour).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "img/10_rufus cat/a.txt").write_text("rufus, red, sitting", encoding="utf-8")
    index = index_dataset(run.images.folders, run.regularization.folders)
    return dataset_facts(index, {item.id: Bucket(512, 512) for item in index.items})


PLAN = StepPlan(2, 1, 20, 20, EpochLength(((Bucket(512, 512), 40),), 20, 20), (20, 40))


@pytest.fixture
def texts(run: RunFile, data: DatasetFacts) -> dict[str, str]:
    base = BaseFacts("some base.safetensors", sha256="ab" * 32, legacy_hash="12345678")
    return header_metadata(run, FAMILY, base, data, PLAN, Progress(1, 20, 1.7e9, 1.7e9 + 60), "rufus-000001")


def test_every_value_is_a_string(texts: dict[str, str]) -> None:
    assert all(isinstance(value, str) for value in texts.values())
    json.dumps(texts)


def test_what_the_webuis_panel_reads(texts: dict[str, str]) -> None:
    assert texts["ss_output_name"] == "rufus-000001"
    assert texts["ss_sd_model_name"] == "some base.safetensors"
    assert texts["ss_clip_skip"] == "2"
    assert float(texts["ss_training_started_at"]) == 1.7e9
    assert json.loads(texts["ss_bucket_info"]) == {"buckets": {"0": {"resolution": [512, 512], "count": 21}}}
    assert json.loads(texts["ss_dataset_dirs"]) == {"10_rufus cat": {"n_repeats": 10, "img_count": 2}}
    assert json.loads(texts["ss_reg_dataset_dirs"]) == {"1_cat": {"n_repeats": 1, "img_count": 1}}
    assert json.loads(texts["ss_tag_frequency"]) == {
        "10_rufus cat": {"red": 1, "rufus": 1, "rufus cat": 1, "sitting": 1},
        "1_cat": {"cat": 1},
    }
    assert texts["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert texts["ss_v2"] == "False" and texts["ss_base_model_version"] == "sd_v1"


def test_what_tells_how_it_was_made(texts: dict[str, str]) -> None:
    wanted = {
        "ss_learning_rate": "0.0002", "ss_unet_lr": "0.0002", "ss_text_encoder_lr": "5e-05",
        "ss_optimizer": "AdamW(weight_decay=0.1)", "ss_epoch": "1", "ss_steps": "20", "ss_num_epochs": "2",
        "ss_max_train_steps": "40", "ss_lr_warmup_steps": "2", "ss_seed": "7", "ss_max_token_length": "225",
        "ss_resolution": "(512, 512)", "ss_num_train_images": "20", "ss_num_reg_images": "1",
        "ss_shuffle_caption": "True", "ss_keep_tokens": "1", "ss_noise_offset": "None",
        "ss_new_sd_model_hash": "ab" * 32, "ss_sd_model_hash": "12345678", "ss_training_comment": "first try",
        "modelspec.title": "Rufus the cat", "modelspec.author": "Me", "modelspec.resolution": "512x512",
        "modelspec.date": "2023-11-14T22:14:20", "modelspec.prediction_type": "epsilon",
    }  # fmt: skip
    assert {name: texts.get(name) for name in wanted} == wanted
    assert not [name for name in texts if "vae" in name]


def test_private_entries_can_be_left_out(run: RunFile, texts: dict[str, str], data: DatasetFacts) -> None:
    values = run.model_dump()
    values["output"]["private"] = True
    hidden = RunFile.model_validate(values)
    less = header_metadata(hidden, FAMILY, BaseFacts("b"), data, PLAN, Progress(1, 20, 1.7e9, 1.7e9), "rufus")
    everything = " ".join(less.values())
    assert "rufus cat" not in everything and "sitting" not in everything and "Me" not in less.values()
    assert less["ss_learning_rate"] == "0.0002" and "ss_tag_frequency" in texts
