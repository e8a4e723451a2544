"""The draft: values kept whatever they are, undo, problems from a thread, and what survives kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication

from app import draft as draft_module
from app.draft import Draft, OnDisk, default_values, usable_run
from tests.app.conftest import Wait
from trainer.config.files import read_run, read_values
from trainer.config.problems import check_values
from trainer.config.run import FORMAT, RunFile
from trainer.errors import BadInput, BadRunFile, Problem
from trainer.messages import say
from trainer.paths import ROOT


def test_defaults_are_the_schemas(draft: Draft) -> None:
    assert draft.get("network.rank") == 16
    assert draft.is_default("network.rank")
    assert draft.get("images.resolution") == [512, 512]


def test_undo_and_redo_go_back_and_forth(draft: Draft) -> None:
    draft.set("network.rank", 32)
    draft.set("network.alpha", 4.0)
    assert draft.undo() == "network.alpha"
    assert draft.get("network.alpha") == 8.0
    assert draft.get("network.rank") == 32
    draft.undo()
    assert draft.get("network.rank") == 16
    assert not draft.can_undo
    draft.redo()
    draft.redo()
    assert (draft.get("network.rank"), draft.get("network.alpha")) == (32, 4.0)


def test_typing_a_word_is_one_step_of_undo(draft: Draft) -> None:
    for text in ("r", "ru", "ruf", "rufus"):
        draft.set("output.name", text)
    draft.undo()
    assert draft.get("output.name") == "my_lora"


def test_what_is_no_number_is_kept_and_reported(draft: Draft, wait: Wait) -> None:
    draft.set("optimizer.learning_rate", "1e-")
    wait(lambda: draft.problems_at("optimizer.learning_rate"))
    assert draft.get("optimizer.learning_rate") == "1e-"
    assert draft.run is None
    draft.set("optimizer.learning_rate", 1e-4)
    wait(lambda: not draft.problems_at("optimizer.learning_rate"))


def test_what_the_disk_says_to_other_values_is_not_told_of_these(
    draft: Draft, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first model again, while the second is still being looked at."""
    first, second = (str(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    gate, asked = threading.Event(), []

    def look(run: RunFile) -> OnDisk:
        asked.append(run.model.path)
        if run.model.path == second:
            gate.wait(60)
        return OnDisk((Problem("model.path", say("{path} is wrong.", path=run.model.path), say("Choose another.")),))

    monkeypatch.setattr(draft_module, "look_at_disk", look)
    draft.set("model.path", first)
    wait(lambda: draft.is_checked)
    draft.set("model.path", second)
    wait(lambda: second in asked)
    draft.set("model.path", first)
    wait(lambda: draft.is_checked)
    gate.set()
    wait(lambda: not draft._disk_checks.busy)
    assert draft.is_checked and asked == [first, second]
    assert [str(problem.what) for problem in draft.errors if problem.place == "model.path"] == [f"{first} is wrong."]


def test_one_mistake_leaves_the_rest_usable(draft: Draft) -> None:
    draft.set("network.rank", "many")
    draft.set("training.epochs", 3)
    _, problems = check_values(draft.values)
    usable = usable_run(draft.values, problems)
    assert usable is not None
    assert (usable.network.rank, usable.training.epochs) == (16, 3)


def test_a_preset_is_one_step_and_its_values_are_the_way_back(draft: Draft) -> None:
    draft.set_many({"network.rank": 32, "training.batch_size": 4}, as_baseline="10")
    assert draft.is_default("network.rank")
    draft.set("network.rank", 64)
    assert not draft.is_default("network.rank")
    draft.reset("network.rank")
    assert draft.get("network.rank") == 32
    draft.undo()
    draft.undo()
    draft.undo()
    assert draft.get("network.rank") == 16
    assert draft.preset == ""
    assert draft.is_default("network.rank")


def test_a_run_file_with_mistakes_opens_with_them(draft: Draft, tmp_path: Path, wait: Wait) -> None:
    file = tmp_path / "run.toml"
    file.write_text('format = 1\n[model]\npath = "base.safetensors"\n[network]\nrank = "x"\nrnak = 3\n', encoding="utf-8")
    draft.open(file)
    assert draft.get("network.rank") == "x"
    assert draft.get("model.path") == str(tmp_path / "base.safetensors")
    wait(lambda: {"network.rank", "network.rnak"} <= {problem.place for problem in draft.problems})
    draft.remove("network.rnak")
    wait(lambda: "network.rnak" not in {problem.place for problem in draft.problems})


def test_undo_of_opening_a_file_brings_the_old_run_and_its_file_back(draft: Draft, tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    draft.set("network.rank", 4)
    draft.save(first)
    draft.set("network.rank", 5)
    draft.save(second)
    draft.open(first)
    assert (draft.file, draft.get("network.rank")) == (first, 4)
    draft.undo()
    assert (draft.file, draft.get("network.rank")) == (second, 5)


def test_what_is_no_run_file_is_refused_and_changes_nothing(draft: Draft, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("this is not toml", encoding="utf-8")
    with pytest.raises(BadInput):
        draft.open(file)
    assert draft.values == default_values()
    assert draft.file is None


def test_saved_and_opened_again_it_is_the_same(draft: Draft, tmp_path: Path) -> None:
    draft.set("network.rank", 24)
    draft.set("optimizer.arguments", {"weight_decay": 0.1, "betas": [0.9, 0.99]})
    draft.set("samples.prompts", [{"prompt": "a cat, 猫", "seed": 7}])
    file = tmp_path / "测试 空格(1)" / "run.toml"
    draft.save(file)
    values = draft.values
    draft.new()
    draft.open(file)
    assert draft.get("network.rank") == 24
    assert draft.get("optimizer.arguments") == values["optimizer"]["arguments"]
    assert draft.get("samples.prompts[1].prompt") == "a cat, 猫"


def test_a_draft_with_mistakes_is_saved_as_it_is(draft: Draft, tmp_path: Path) -> None:
    draft.set("network.rank", "x")
    draft.save(tmp_path / "run.toml")
    assert read_values(tmp_path / "run.toml")["network"]["rank"] == "x"
    with pytest.raises(BadRunFile):
        read_run(tmp_path / "run.toml")


def test_an_opened_draft_has_everything_that_was_typed(draft: Draft, tmp_path: Path) -> None:
    draft.set("optimizer.learning_rate", "1e-")
    draft.set("optimizer.text_encoder_rate", None)
    draft.set("images.folders", [{"path": str(tmp_path), "enabled": False, "repeats": None, "caption": "猫"}])
    draft.flush()
    again = Draft(draft._store)
    assert again.values == draft.values
    again.deleteLater()


def test_a_damaged_draft_gives_a_fresh_one(app: object, tmp_path: Path) -> None:
    (tmp_path / "draft.json").write_text('{"values": [', encoding="utf-8")
    draft = Draft(tmp_path / "draft.json")
    assert draft.values == default_values()
    draft.deleteLater()


def test_kill_9_loses_nothing_that_was_typed_a_moment_ago(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QApplication
        app = QApplication([])
        from app.draft import Draft
        draft = Draft()
        draft.set("network.rank", 48)
        QTimer.singleShot(900, lambda: print("typed", flush=True))
        app.exec()
    """)
    environment = os.environ | {"ATHANOR_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"typed"
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    again = Draft(tmp_path / "draft.json")
    assert again.get("network.rank") == 48
    again.deleteLater()


def test_a_models_id_on_the_hub_is_no_path(draft: Draft, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("format = 1\n[model]\npath = 'someone/model'\nvae = 'vae.safetensors'\n", encoding="utf-8")
    draft.open(file)
    assert draft.get("model.path") == "someone/model"
    assert draft.get("model.vae") == str(tmp_path / "vae.safetensors")
    (tmp_path / "someone" / "model").mkdir(parents=True)
    draft.open(file)
    assert draft.get("model.path") == str(tmp_path / "someone" / "model")


def test_a_path_is_what_the_run_takes_it_for(draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft.file = tmp_path / "run.toml"
    asked: list[str] = []
    found = draft_module.absolute_values
    monkeypatch.setattr(draft_module, "absolute_values", lambda *given: asked.append("x") or found(*given))
    for typed, meant in (
        ("a/b.ckpt", str(tmp_path / "a" / "b.ckpt")),
        ("~no-such-user/x", str(tmp_path / "~no-such-user" / "x")),
        ("someone/model", "someone/model"),
        ("", ""),
    ):
        draft.set("model.path", typed)
        asked.clear()
        assert draft.path("model.path") == draft.path("model.path") == meant
        assert len(asked) == 1, "the disk is asked once"
    (tmp_path / "someone" / "model").mkdir(parents=True)
    draft.set("model.path", "someone/model")
    assert draft.path("model.path") == str(tmp_path / "someone" / "model")


@pytest.mark.parametrize(("number", "rank"), [(None, 8), (FORMAT, 8), (FORMAT + 1, 16), ("x", 16)])
def test_a_draft_of_another_version_is_brought_up_to_date_or_left(
    app: QApplication, tmp_path: Path, number: object, rank: int
) -> None:
    values = {"network": {"rank": 8}, "output": {"name": "x", "refresh_webui": True} if number is None else {}}
    stored = {"values": values, "baseline": values, **({"format": number} if number else {})}
    (tmp_path / "draft.json").write_text(json.dumps(stored), encoding="utf-8")
    draft = Draft(tmp_path / "draft.json")
    assert draft.get("network.rank") == rank and "refresh_webui" not in draft.values["output"]
    assert check_values(draft.values)[1] == check_values(default_values())[1]
    draft.deleteLater()
