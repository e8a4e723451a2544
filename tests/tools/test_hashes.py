"""Hashes, by the rules of the programs that use them written out once more."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from tests.tools.material import base_file, lora_file, save, use
from trainer.errors import BadInput
from trainer.metadata import legacy_hash
from trainer.tools import hashes


@pytest.mark.parametrize("piece", [1 << 22, 1000, 70_001])
def test_hashes_of_a_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Whatever the size of the pieces in which the file is read."""
    monkeypatch.setattr(hashes, "PIECE_BYTES", piece)
    path = save(tmp_path / "large.safetensors", {"a": torch.arange(600_000.0)}, {"b": "c"})
    whole = path.read_bytes()
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    (found,) = use("hash", files=(str(path),)).facts["files"]
    assert found["sha256"] == hashlib.sha256(whole).hexdigest()
    assert found["short"] == found["sha256"][:10], "the WebUI's"
    assert found["legacy"] == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8] == legacy_hash(path)
    assert (
        found["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
        and found["addnet"] == found["sshs_model_hash"][:12]
    )


def test_a_file_that_was_changed_after_it_was_hashed_is_told(tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "lora.safetensors", base_file(tmp_path))
    assert not use("hash", files=(str(lora),)).notes
    whole = bytearray(lora.read_bytes())
    whole[-1] ^= 1
    lora.write_bytes(whole)
    result = use("hash", files=(str(lora),))
    assert "says another hash of itself" in str(result.notes[0]) and result.facts["files"][0]["changed"]


def test_other_files_have_the_hashes_of_their_bytes(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt")
    (found,) = use("hash", files=(str(tmp_path / "old.pt"),)).facts["files"]
    assert set(found) == {"file", "sha256", "short", "legacy", "changed"}


def test_what_cannot_be_hashed_is_refused(tmp_path: Path) -> None:
    for name in ("none.ckpt", "."):
        with pytest.raises(BadInput, match="There is no file"):
            use("hash", files=(str(tmp_path / name),))
