"""What a newly chosen base model wants of the settings: taken over where nothing was set, said, undoable."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.family_defaults import TAKEN
from app.main_window import MainWindow
from app.pages.model import ModelPage
from tests.app.conftest import Wait
from tests.app.model_page import chosen
from tests.app.model_page import page as page
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.models import shapes
from tests.models.shapes import Shapes


def test_a_family_sets_what_the_user_has_not(page: ModelPage, sdxl: Path, wait: Wait) -> None:
    page.draft.set("optimizer.learning_rate", 3e-4)
    chosen(page, sdxl, wait)
    draft = page.draft
    assert draft.get("images.resolution") == [1024, 1024]
    assert draft.get("network.train") == "unet"
    assert draft.get("optimizer.learning_rate") == 3e-4
    assert page.strip.isVisibleTo(page)
    assert "Resolution: 512 → 1024" in page.strip.taken.texts
    assert any(text.startswith("Parts: ") or "→ UNet" in text for text in page.strip.taken.texts)
    assert page.strip.kept.texts == ["Learning rate: 3e-4 → 1e-4"]
    page.strip.take.click()
    assert draft.get("optimizer.learning_rate") == 1e-4
    page.strip.undo.click()
    assert draft.get("images.resolution") == [512, 512]
    assert draft.get("optimizer.learning_rate") == 3e-4
    assert draft.get("model.path") == str(sdxl)
    assert not page.strip.isVisibleTo(page)


def test_it_is_one_step_of_undo(page: ModelPage, window: MainWindow, sdxl: Path, wait: Wait) -> None:
    before = {place: page.draft.get(place) for place in ("images.resolution", "network.train", "images.bucket_max")}
    chosen(page, sdxl, wait)
    window.undo()
    assert {place: page.draft.get(place) for place in before} == before
    assert page.draft.get("model.path") == str(sdxl)
    assert not page.strip.isVisibleTo(page)
    window.redo()
    assert page.draft.get("images.resolution") == [1024, 1024]


def test_going_back_to_the_first_family_leaves_nothing_of_the_second(
    page: ModelPage, sdxl: Path, tmp_path: Path, sd1: Shapes, wait: Wait
) -> None:
    before = dict(page.draft.values)
    small = shapes.write(tmp_path / "one.safetensors", sd1)
    chosen(page, sdxl, wait)
    assert page.preferences.get(TAKEN)
    chosen(page, small, wait)
    assert page.draft.get("images.resolution") == [512, 512]
    assert page.draft.get("network.train") == before["network"]["train"]
    assert page.strip.kept.texts == []


def test_opening_a_run_file_changes_none_of_its_values(
    page: ModelPage, window: MainWindow, sdxl: Path, tmp_path: Path, wait: Wait
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"format = 1\n[model]\npath = '{sdxl}'\n[images]\nresolution = [640, 640]\n", encoding="utf-8")
    assert window.run_files.open_path(file)
    wait(lambda: page._facts is not None and not page._asks.busy)
    assert page.draft.get("images.resolution") == [640, 640]
    assert not page.strip.isVisibleTo(page)


def test_a_strip_stays_when_the_language_changes(page: ModelPage, window: MainWindow, sdxl: Path, wait: Wait) -> None:
    chosen(page, sdxl, wait)
    window.preferences.set("language", "zh_CN")
    window.rebuild()
    again = window.page("model")
    assert isinstance(again, ModelPage)
    assert again.strip.isVisibleTo(again)
    assert again.strip.taken.texts


def test_previews_follow_the_resolution(page: ModelPage, sdxl: Path, wait: Wait) -> None:
    own = {"prompt": "b", "width": 640, "height": 512}
    page.draft.set("samples.prompts", [{"prompt": "a", "width": 512, "height": 512}, own])
    chosen(page, sdxl, wait)
    first, second = page.draft.get("samples.prompts")
    assert (first["width"], first["height"]) == (1024, 1024)
    assert second == own
    assert "Preview 1: Width: 512 → 1024" in page.strip.taken.texts
    page.draft.set("samples.prompts", [])
    assert not any("Preview" in text for text in page.strip.taken.texts)
    page.strip.undo.click()
    assert page.draft.get("images.resolution") == [512, 512]
    assert page.draft.get("samples.prompts") == []


def test_saving_the_run_file_does_not_take_the_strip_away_and_opening_another_does(
    page: ModelPage, window: MainWindow, sdxl: Path, tmp_path: Path, wait: Wait
) -> None:
    chosen(page, sdxl, wait)
    page.draft.save(tmp_path / "run.toml")
    assert page.strip.isVisibleTo(page)
    assert window.run_files.open_path(tmp_path / "run.toml")
    assert not page.strip.isVisibleTo(page)
    assert page.draft.get("images.resolution") == [1024, 1024]


def test_a_model_that_is_downloaded_is_followed_when_it_has_come(
    page: ModelPage, sdxl: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(page, "someone/xl", wait).kind == "hub"
    page.draft.set("optimizer.learning_rate", 3e-4)
    come(page, "someone/xl", sdxl, monkeypatch)
    wait(lambda: page.draft.get("images.resolution") == [1024, 1024])
    assert page.draft.get("optimizer.learning_rate") == 3e-4
    assert page.strip.isVisibleTo(page)


def test_a_run_file_whose_model_is_downloaded_keeps_its_values(
    page: ModelPage, window: MainWindow, sdxl: Path, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("format = 1\n[model]\npath = 'someone/xl'\n", encoding="utf-8")
    assert window.run_files.open_path(file)
    wait(lambda: page._facts is not None and page._facts.kind == "hub")
    come(page, "someone/xl", sdxl, monkeypatch)
    wait(lambda: page._facts is not None and page._facts.kind == "base" and not page._asks.busy)
    wait(lambda: not page.context.family_defaults._asks.busy)
    assert page.draft.get("images.resolution") == [512, 512]


def come(page: ModelPage, hub_id: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of an id is on this disk now."""
    from trainer.models import hub

    found = hub.Found(hub.HubId(hub_id), file, "c" * 40)
    monkeypatch.setattr(hub, "look_up", lambda hub_id, full=False: found)
    page.context.download.arrived.emit(hub_id)
