"""The figures in the strip are true: the size of the file is that of the file which a run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.facts import lora_bytes, num_files
from tests.tiny import family_of, save_tiny_file, save_tiny_folder, tiny_model
from trainer.config.run import Model, Output, RunFile
from trainer.methods.lora import Settings, build


@pytest.mark.parametrize("conv_rank", [0, 4])
@pytest.mark.parametrize("train", ["both", "unet", "text_encoder"])
@pytest.mark.parametrize("save", [save_tiny_file, save_tiny_folder])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_the_size_is_that_of_the_layers_that_are_trained(
    tmp_path: Path, family: str, train: str, save: Any, conv_rank: int
) -> None:
    path = save(tmp_path, family=family)
    run = RunFile(
        model=Model(path=str(path)),
        network=Settings(train=train, rank=8, conv_rank=conv_rank),
        output=Output(precision="fp32"),
    )
    trained = build(run.network, tiny_model(family), family_of(family))
    numbers = sum(parameter.numel() for parameter in trained.parameters())
    told = lora_bytes(run)
    assert told == 4 * numbers + 60_000  # the header's share is a constant


def test_a_model_that_was_downloaded_has_its_size_too(_user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    repo = _user_folder / "hub/models--someone--tiny"
    (repo / "snapshots/abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc", encoding="utf-8")
    path = save_tiny_file(repo / "snapshots/abc")
    run = RunFile(model=Model(path="someone/tiny"))
    assert lora_bytes(run) == lora_bytes(run.model_copy(update={"model": Model(path=str(path))}))
    assert lora_bytes(run) is not None and lora_bytes(RunFile(model=Model(path="someone/other"))) is None


def test_nothing_is_told_of_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 4)
    for path in ("", str(tmp_path / "missing.safetensors"), str(tmp_path / "broken.safetensors"), str(tmp_path)):
        assert lora_bytes(RunFile(model=Model(path=path))) is None


@pytest.mark.parametrize(
    ("output", "steps", "epochs", "count"),
    [
        (Output(), 100, 10, 10), (Output(save_every_epochs=0), 100, 10, 1), (Output(save_every_epochs=3), 100, 10, 4),
        (Output(save_every_epochs=0, save_every_steps=30), 100, 10, 4), (Output(keep_last=2), 100, 10, 3),
        (Output(), None, None, 0),
    ],
)  # fmt: skip
def test_files_that_stay_are_counted(output: Output, steps: int | None, epochs: int | None, count: int) -> None:
    assert num_files(RunFile(output=output), steps, epochs) == count
