"""The demo's command around the training: what it reads from a run folder, what it says, and when it passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.demo import command, learning, sheet
from trainer.demo.learning import LearningScore
from trainer.demo.recipe import CONCEPT_FOLDER
from trainer.errors import RunFailed
from trainer.ipc import runfolder
from trainer.ipc.events import Done, Sample
from trainer.ipc.journal import Journal
from trainer.ipc.runfolder import RunFolder
from trainer.messages import say
from trainer.paths import ROOT


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of two prompts with pictures at steps 0 and 10: red before, blue after."""
    folder = runfolder.create(tmp_path, "athanor_demo")
    journal = Journal(folder.journal)
    for step, colour in ((0, (200, 0, 0)), (10, (0, 0, 200))):
        for index in range(2):
            name = f"samples/{step}-{index}.png"
            Image.new("RGB", (64, 64), colour).save(folder.path / name)
            journal.append(Sample(step, index, f"prompt {index}", 1, name))
    journal.append(Done(10, "finished", "athanor_demo.safetensors", 1.0))
    journal.close()
    return folder


def test_final_file_is_the_one_the_journal_names(run: RunFolder) -> None:
    assert command.final_file(run) == run.path / "athanor_demo.safetensors"


def test_run_without_a_file_is_a_failure(tmp_path: Path) -> None:
    folder = runfolder.create(tmp_path, "athanor_demo")
    with pytest.raises(RunFailed, match="no LoRA"):
        command.final_file(folder)


def test_sheet_has_a_row_a_prompt_and_a_column_a_step(run: RunFolder) -> None:
    pixels = np.asarray(Image.open(command.write_sheet(run)).convert("RGB"))
    pitch = sheet.CELL_PX + sheet.GAP_PX
    for row in range(2):
        y = sheet.HEADER_PX + row * pitch + sheet.CELL_PX // 2
        x = sheet.LABEL_PX + sheet.CELL_PX // 2
        assert tuple(pixels[y, x]) == (200, 0, 0)
        assert tuple(pixels[y, x + pitch]) == (0, 0, 200)


@pytest.mark.parametrize(
    ("score", "passed"),
    [
        (LearningScore(0.10, 0.80, 0.95), True),
        (LearningScore(0.125, 1.0, 1.0), False),
        (LearningScore(0.0, 0.775, 1.0), False),
        (LearningScore(0.0, 1.0, 0.925), False),
    ],
)
def test_every_part_of_the_score_must_be_reached(score: LearningScore, passed: bool) -> None:
    assert score.passed is passed
    assert str(command.verdict(score, 60)).startswith("Passed" if passed else "Failed")


def test_score_is_told_in_per_cent() -> None:
    text = " ".join(str(sentence) for sentence in LearningScore(0.05, 0.9, 0.975).sentences())
    assert "5%" in text and "90%" in text and "98%" in text


def test_prompts_ask_for_unseen_surroundings_only() -> None:
    captions = {path.read_text(encoding="utf-8").strip() for path in (CONCEPT_FOLDER / "img").rglob("*.txt")}
    assert len(learning.trigger_prompts()) == 40
    assert not captions & set(learning.trigger_prompts())
    others = learning.other_prompts()
    assert len(others) == 40
    assert not any("zorv" in prompt.text for prompt in others)
    assert sum(prompt.scene is None for prompt in others) == 10


def test_no_training_is_left_behind_where_the_scorer_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def waiting(*_: object, **__: object) -> subprocess.Popen[bytes]:
        begun.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return begun[0]

    def failing(run_file: Path) -> None:
        raise RunFailed(say("No scorer."))

    popen = subprocess.Popen
    monkeypatch.setenv("ATHANOR_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", waiting)
    monkeypatch.setattr(command, "make_scorer", failing)
    with pytest.raises(RunFailed, match="No scorer"):
        command.train(tmp_path / "run.toml", "demo")
    assert begun[0].poll() is not None


def test_command_needs_no_torch_to_be_found() -> None:
    code = "import sys, trainer.demo.command, trainer.demo.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
