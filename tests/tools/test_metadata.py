"""Metadata shown and changed without touching the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tests.tools.material import save, use
from trainer.errors import BadInput
from trainer.metadata import PRIVATE
from trainer.models.safetensors_file import read_header
from trainer.tools.catalog import TOOLS

ENTRIES = {
    "ss_output_name": "rufus",
    "ss_tag_frequency": json.dumps({"10_rufus": {"红": 3}}, ensure_ascii=False),
    "ss_dataset_dirs": "{}",
    "ss_reg_dataset_dirs": "{}",
    "ss_datasets": "[]",
    "ss_training_comment": "my secret",
    "modelspec.author": "me",
    "modelspec.title": "Rufus",
    "sshs_model_hash": "old",
    "sshs_legacy_hash": "old",
}


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    tensors = {"lora_unet_x.lora_down.weight": torch.arange(12.0).reshape(3, 4), "lora_unet_x.alpha": torch.tensor(3.0)}
    return save(tmp_path / "lora.safetensors", tensors, ENTRIES)


def data_of(path: Path) -> bytes:
    return path.read_bytes()[read_header(path).data_start :]


def test_showing(lora: Path) -> None:
    result = use("metadata", file=lora)
    assert result.facts["metadata"] == ENTRIES and not result.outputs
    assert "ss_output_name: rufus" in str(result.summary) and '"红": 3' in str(result.summary)


def test_control_characters_and_endless_entries_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"b": "\x1b[2J", "c": "y" * 10_000})
    shown = str(use("metadata", file=path).summary)
    assert "\x1b" not in shown and len(shown) < 3000 and "(10000 characters)" in shown


def test_editing_the_file_itself(lora: Path) -> None:
    before = data_of(lora)
    result = use("metadata", file=lora, set=("modelspec.title=新 = 名", "new=1"), remove=("ss_d*",))
    entries = dict(read_header(lora).metadata)
    assert entries["modelspec.title"] == "新 = 名" and entries["new"] == "1" and "ss_datasets" not in entries
    assert data_of(lora) == before, "not a bit of the weights"
    assert result.facts["removed"] == ["ss_dataset_dirs", "ss_datasets"]
    assert entries["sshs_model_hash"] == hashlib.sha256(before).hexdigest() and entries["sshs_legacy_hash"] != "old"


def test_private_entries_are_taken_out(lora: Path, tmp_path: Path) -> None:
    output = tmp_path / "public.safetensors"
    use("metadata", file=lora, strip_private=True, output=output)
    left = read_header(output).metadata
    assert not set(PRIVATE) & set(left) and "my secret" not in json.dumps(left)
    assert left["ss_output_name"] == "rufus" and read_header(lora).metadata == ENTRIES, "the first file is as it was"


def test_what_cannot_be_edited_is_refused(lora: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pt")
    whole = lora.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-4])
    cases = [
        ({"set": ("no equals sign",)}, "is not of the form key=value"),
        ({"set": ("=x",)}, "is not of the form key=value"),
        ({"set": ("__metadata__=x",)}, "cannot be called"),
        ({"remove": ("nothing",)}, "There is no entry nothing"),
        ({"file": tmp_path / "old.pt"}, "no safetensors file"),
        ({"file": tmp_path / "none.safetensors"}, "There is no file"),
        ({"file": tmp_path}, "is a folder"),
        ({"file": tmp_path / "short.safetensors"}, "are missing at its end"),
        ({"output": lora, "set": ("a=b",)}, "The output is what is read"),
        ({"set": ("a=" + "x" * 20_000_000,)}, "is not read by programs"),
    ]
    for settings, sentence in cases:
        with pytest.raises(BadInput) as refused:
            use("metadata", **{"file": lora, **settings})
        assert sentence in str(refused.value)
    assert lora.read_bytes() == whole


def test_the_form_knows_the_same_settings() -> None:
    assert list(TOOLS["metadata"].settings.model_fields) == [
        "file",
        "set",
        "remove",
        "strip_private",
        "output",
        "overwrite",
    ]


def test_an_entry_is_taken_out_by_its_own_name(tmp_path: Path) -> None:
    """Also one with signs that elsewhere stand for others; and capitals are not small letters, on any system."""
    path = save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"a[1]": "x", "a1": "y", "A1": "z"})
    use("metadata", file=path, remove=("a[1]",))
    assert read_header(path).metadata == {"a1": "y", "A1": "z"}
    use("metadata", file=path, remove=("a*",))
    assert read_header(path).metadata == {"A1": "z"}


def test_a_linked_file_is_changed_where_it_lies(lora: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(lora)
    result = use("metadata", file=link, set=("modelspec.title=New",))
    assert link.is_symlink() and read_header(lora).metadata["modelspec.title"] == "New"
    assert result.outputs == (lora,)
