"""The learning score fails where it must: each control breaks one thing that the demo's success stands on.

Every run here is the ordinary command on a run file that differs from `demo.toml` in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.config.files import read_run, write_run
from trainer.config.run import Folder, RunFile
from trainer.demo import command, emblem, recipe
from trainer.demo.learning import LEAST_AFTER, LEAST_OTHERS, MOST_BEFORE, LearningScore, Scorer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Changed = Callable[[RunFile], RunFile]


def trained_with(folder: Path, change: Changed, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Scorer]:
    """Train on a changed copy of the demo's run file, without sample pictures: the LoRA it made, and a scorer."""
    monkeypatch.setenv("ATHANOR_HOME", str(folder / "home"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run = read_run(recipe.RUN_FILE)
    run = run.model_copy(update={"samples": run.samples.model_copy(update={"prompts": ()})})
    write_run(folder / "control.toml", change(run))
    code, made, scorer = command.train(folder / "control.toml", recipe.RUN_NAME)
    assert code == 0
    assert made is not None
    assert scorer is not None
    return command.final_file(made), scorer


def score_with(folder: Path, change: Changed, monkeypatch: pytest.MonkeyPatch) -> LearningScore:
    lora, scorer = trained_with(folder, change, monkeypatch)
    return scorer.score(lora)


def ups_of(lora: Path) -> dict[str, torch.Tensor]:
    ups = {name: tensor for name, tensor in load_file(lora).items() if "lora_up" in name}
    assert ups
    return ups


def test_demo_passes_and_zeroed_up_weights_undo_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora, scorer = trained_with(tmp_path, lambda run: run, monkeypatch)
    score = scorer.score(lora)
    assert score.before <= MOST_BEFORE and score.after >= LEAST_AFTER and score.others >= LEAST_OTHERS, score
    zeros = {name: tensor * 0 for name, tensor in ups_of(lora).items()}
    save_file(load_file(lora) | zeros, tmp_path / "zeroed.safetensors")
    zeroed = scorer.score(tmp_path / "zeroed.safetensors")
    assert zeroed.after == zeroed.before < LEAST_AFTER, zeroed
    assert zeroed.others >= LEAST_OTHERS, zeroed


def test_without_a_rate_nothing_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(run: RunFile) -> RunFile:
        still = {"learning_rate": 0.0, "text_encoder_rate": 0.0}
        return run.model_copy(update={"optimizer": run.optimizer.model_copy(update=still)})

    lora, scorer = trained_with(tmp_path, change, monkeypatch)
    assert not any(tensor.any() for tensor in ups_of(lora).values())
    score = scorer.score(lora)
    assert score.after == score.before < LEAST_AFTER, score
    assert score.others >= LEAST_OTHERS, score


def test_without_the_trigger_in_captions_the_class_is_spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emblem.write_concept(tmp_path / "concept", emblem.CONCEPT_SEED, trigger="")

    def change(run: RunFile) -> RunFile:
        folders = (Folder(path=str(tmp_path / "concept" / "img")),)
        return run.model_copy(update={"images": run.images.model_copy(update={"folders": folders})})

    score = score_with(tmp_path, change, monkeypatch)
    assert score.others < LEAST_OTHERS, score


def test_without_class_pictures_other_prompts_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(run: RunFile) -> RunFile:
        longer = run.training.model_copy(update={"epochs": 2 * run.training.epochs})  # the same number of steps
        return run.model_copy(
            update={"regularization": run.regularization.model_copy(update={"folders": ()}), "training": longer}
        )

    score = score_with(tmp_path, change, monkeypatch)
    assert score.after >= LEAST_AFTER, score
    assert score.others < LEAST_OTHERS, score
