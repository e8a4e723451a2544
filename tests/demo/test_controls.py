"""The learning score fails where it must: each control breaks one thing that the demo's success stands on.

Every run here is the ordinary command on a run file that differs from `demo.toml` in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_demo_passes_and_zeroed_up_weights_undo_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    lora, scorer = trained_with(tmp_path, lambda run: run, monkeypatch)
    assert scorer.score(lora).passed
    tensors = load_file(lora)
    ups = [name for name in tensors if "lora_up" in name]
    assert ups
    save_file(tensors | {name: tensors[name] * 0 for name in ups}, tmp_path / "zeroed.safetensors")
    zeroed = scorer.score(tmp_path / "zeroed.safetensors")
    assert zeroed.after == zeroed.before <= MOST_BEFORE
    assert zeroed.others >= LEAST_OTHERS


def test_without_a_rate_nothing_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(run: RunFile) -> RunFile:
        return run.model_copy(update={"optimizer": run.optimizer.model_copy(update={"learning_rate": 0.0})})

    score = score_with(tmp_path, change, monkeypatch)
    assert score.after == score.before <= MOST_BEFORE
    assert not score.passed


def test_without_the_trigger_in_captions_the_class_is_spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emblem.write_concept(tmp_path / "concept", emblem.CONCEPT_SEED, trigger="")

    def change(run: RunFile) -> RunFile:
        folders = (Folder(path=str(tmp_path / "concept" / "img")),)
        return run.model_copy(update={"images": run.images.model_copy(update={"folders": folders})})

    score = score_with(tmp_path, change, monkeypatch)
    assert score.after < LEAST_AFTER or score.others < LEAST_OTHERS
    assert not score.passed


def test_without_class_pictures_other_prompts_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(run: RunFile) -> RunFile:
        longer = run.training.model_copy(update={"epochs": 2 * run.training.epochs})  # the same number of steps
        return run.model_copy(
            update={"regularization": run.regularization.model_copy(update={"folders": ()}), "training": longer}
        )

    score = score_with(tmp_path, change, monkeypatch)
    assert score.after >= LEAST_AFTER
    assert score.others < LEAST_OTHERS
