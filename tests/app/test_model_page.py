"""Base model page: what a file is, while it is dragged and when it is chosen; what it lacks; where a stranger goes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit, QWidget

from app.main_window import MainWindow
from app.pages.model import ModelPage
from app.widgets.metadata_view import MetadataView
from app.widgets.model_list import RECENT
from tests.app.conftest import Wait
from tests.app.model_page import chips, chosen
from tests.app.model_page import page as page
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.app.test_metadata_view import write as write_lora
from tests.models import shapes
from tests.models.shapes import Shapes
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.keys import LDM_CLIP, LDM_VAE


def test_a_model_is_recognised_in_full(page: ModelPage, sdxl: Path, wait: Wait) -> None:
    chosen(page, sdxl, wait)
    assert page.facts_card.isVisibleTo(page) and not page.invitation.isVisibleTo(page)
    assert page.facts_card.summary.text() == "SDXL model."
    wait(lambda: chips(page))
    found = chips(page)
    assert {"SDXL", "fp16", "1024 px", "epsilon"} <= set(found)
    assert "UNet + text encoder + second text encoder + VAE" in found
    page.facts_card.metadata.click()
    viewer = page.window().findChild(MetadataView)
    assert viewer is not None and viewer.path == sdxl
    viewer.close()


def drag(path: Path, kind: type) -> Any:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    place = QPoint(20, 20) if kind is QDragEnterEvent else QPointF(20, 20)
    event = kind(place, Qt.DropAction.CopyAction, data, buttons, keys)
    event.held = data  # Qt does not keep it
    return event


def test_a_file_is_recognised_while_it_is_dragged(page: ModelPage, tiny: Path, sdxl: Path, wait: Wait) -> None:
    chosen(page, tiny, wait)
    page.dragEnterEvent(drag(sdxl, QDragEnterEvent))
    wait(lambda: "SDXL" in chips(page))
    assert page.facts_card.name.text() == "Drop it to choose: xl.safetensors"
    assert page.facts_card.property("drop") is True
    page.dragLeaveEvent(QDragLeaveEvent())
    wait(lambda: "Stable Diffusion 1.x" in chips(page))
    assert page.draft.get("model.path") == str(tiny)
    page.dragEnterEvent(drag(sdxl, QDragEnterEvent))
    page.dropEvent(drag(sdxl, QDropEvent))
    assert page.draft.get("model.path") == str(sdxl)
    wait(lambda: page.facts_card.name.text() == "xl.safetensors")


def test_what_is_dragged_stays_shown_when_the_chosen_one_is_recognised_meanwhile(
    page: ModelPage, tiny: Path, sdxl: Path, wait: Wait
) -> None:
    page.dragEnterEvent(drag(sdxl, QDragEnterEvent))
    wait(lambda: "SDXL" in chips(page))
    chosen(page, tiny, wait)
    assert page.facts_card.name.text() == "Drop it to choose: xl.safetensors"
    page.dragLeaveEvent(QDragLeaveEvent())
    assert page.facts_card.name.text() == tiny.name


def test_a_stranger_dragged_over_an_empty_page_is_named_and_forgotten(
    page: ModelPage, tmp_path: Path, wait: Wait
) -> None:
    lora = write_lora(tmp_path / "l.safetensors", {"ss_base_model_version": "sd_v1"})
    page.dragEnterEvent(drag(lora, QDragEnterEvent))
    wait(lambda: page.facts_card.isVisibleTo(page))
    assert "LoRA" in page.facts_card.problem.text()
    page.dragLeaveEvent(QDragLeaveEvent())
    assert not page.facts_card.isVisibleTo(page)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"\x80\x02cos\nsystem\n.", b"\x89PNG\r\n"])
def test_what_is_no_model_is_refused_with_a_sentence(
    page: ModelPage, tmp_path: Path, wait: Wait, content: bytes
) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)
    chosen(page, file, wait)
    assert page.facts_card.problem.isVisibleTo(page) and len(page.facts_card.problem.text()) > 15
    assert not page.prediction.isVisibleTo(page) and not page.missing.isVisibleTo(page)
    assert str(file) not in page.preferences.get(RECENT)


def test_a_lora_is_refused_and_can_be_gone_on_from(
    page: ModelPage, window: MainWindow, tmp_path: Path, wait: Wait
) -> None:
    lora = write_lora(
        tmp_path / "l.safetensors", {"ss_base_model_version": "sd_v1", "ss_network_module": "networks.lora"}
    )
    facts = chosen(page, lora, wait)
    assert facts.kind == "lora"
    assert "base model" in page.facts_card.problem.text()
    assert page.facts_card.use.text()
    page.facts_card.use_button.click()
    assert page.draft.get("network.network_weights") == str(lora)
    assert page.draft.get("model.path") == ""
    assert window.page_key == "network"
    window.undo()
    assert page.draft.get("network.network_weights") == ""


def test_a_stranger_dropped_by_mistake_does_not_cost_the_base_model(
    page: ModelPage, tiny: Path, tmp_path: Path, sd1: Shapes, wait: Wait
) -> None:
    chosen(page, tiny, wait)
    vae = {name.removeprefix(LDM_VAE): shape for name, shape in shapes.part(sd1, LDM_VAE).items()}
    page.dropEvent(drag(shapes.write(tmp_path / "测试 空格(1).safetensors", vae), QDropEvent))
    wait(lambda: page.facts_card.use_button.isVisibleTo(page))
    page.facts_card.use_button.click()
    assert page.draft.get("model.vae") == str(tmp_path / "测试 空格(1).safetensors")
    assert page.draft.get("model.path") == str(tiny)
    page.draft.undo()
    assert (page.draft.get("model.vae"), page.draft.get("model.path")) == ("", str(tmp_path / "测试 空格(1).safetensors"))


def test_a_vae_goes_where_it_belongs(page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait) -> None:
    vae = {name.removeprefix(LDM_VAE): shape for name, shape in shapes.part(sd1, LDM_VAE).items()}
    file = shapes.write(tmp_path / "vae.safetensors", vae)
    assert chosen(page, file, wait).kind == "vae"
    page.facts_card.use_button.click()
    assert page.draft.get("model.vae") == str(file)


def test_the_refiner_is_refused_with_its_reason(page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait) -> None:
    chosen(page, shapes.write(tmp_path / "refiner.safetensors", shapes.refiner(sd1)), wait)
    assert "refiner" in page.facts_card.problem.text()
    assert not page.strip.isVisibleTo(page)


def test_the_page_takes_drops_and_its_invitation_does_not(page: ModelPage) -> None:
    assert page.acceptDrops()
    assert not page.invitation.acceptDrops(), "the page would not see what is dragged over it"
    assert isinstance(page.invitation, QWidget)


# ---- what is missing ----


def test_missing_parts_are_named_and_given_as_other_files(
    page: ModelPage, tmp_path: Path, sd1: Shapes, tiny: Path, wait: Wait
) -> None:
    bare = shapes.write(tmp_path / "bare.safetensors", shapes.without(shapes.without(sd1, LDM_VAE), LDM_CLIP))
    chosen(page, bare, wait)
    assert [picker.part for picker in page.missing.pickers] == ["text_encoder", "vae"]
    assert "text encoder" in page.facts_card.problem.text()
    for picker in page.missing.pickers:
        picker.path.set_value(str(tiny))
        picker.path.edited.emit(str(tiny))
    assert page.draft.get("model.vae") == page.draft.get("model.text_encoder") == str(tiny)
    wait(lambda: not page.facts_card.problem.isVisibleTo(page))
    wait(lambda: all(picker.facts.facts for picker in page.missing.pickers))
    assert {picker.facts.text.property("role") for picker in page.missing.pickers} == {"good"}
    page.draft.undo()
    assert page.missing.pickers[1].path.value() == ""


def test_a_wrong_file_for_a_part_is_refused(page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait) -> None:
    chosen(page, shapes.write(tmp_path / "bare.safetensors", shapes.without(sd1, LDM_VAE)), wait)
    (picker,) = page.missing.pickers
    page.draft.set("model.vae", str(write_lora(tmp_path / "l.safetensors", {})))
    wait(lambda: picker.facts.facts)
    assert "VAE is needed" in picker.facts.text.text()


# ---- when it changes, and how it is named ----


def test_a_file_that_was_finished_by_another_program_is_looked_at_again(
    page: ModelPage, tiny: Path, tmp_path: Path, wait: Wait
) -> None:
    file = tmp_path / "loading.safetensors"
    file.write_bytes(tiny.read_bytes()[:5000])
    assert chosen(page, file, wait).kind == "broken"
    assert page.draft.get("images.resolution") == [512, 512]
    file.write_bytes(tiny.read_bytes())
    page._on_activated(Qt.ApplicationState.ApplicationActive)
    wait(lambda: "Stable Diffusion 1.x" in chips(page))
    wait(lambda: page.draft.get("images.resolution") == [64, 64])  # what the model wants is followed now
    file.unlink()
    page.context.open_page("images")
    wait(lambda: not page.isVisible())
    page.context.open_page("model")
    wait(lambda: page.facts_card.problem.isVisibleTo(page))


def test_a_slow_disk_is_said(page: ModelPage, tiny: Path, sdxl: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(page, tiny, wait)
    go_on = threading.Event()

    def slow(path: str) -> ModelFacts:
        go_on.wait(30)
        return inspect_file(path)

    monkeypatch.setattr("app.pages.model.inspect_file", slow)
    page.draft.set("model.path", str(sdxl))
    wait(lambda: page.facts_card.summary.text() == "Looking at it…")
    assert page.facts_card.name.text() == "xl.safetensors"
    assert not chips(page) and not page.facts_card.metadata.isVisibleTo(page)
    go_on.set()
    wait(lambda: "SDXL" in chips(page))


def test_home_and_relative_paths_mean_what_the_run_takes_them_for(
    page: ModelPage, tiny: Path, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    monkeypatch.setenv("USERPROFILE", str(tiny.parent))
    row = page.forms[0].rows["model.path"].editor.field()
    assert isinstance(row, QLineEdit)
    row.setFocus()
    QTest.keyClicks(row, f"~/{tiny.name}")
    assert page.draft.get("model.path") == str(tiny)
    assert row.text() == f"~/{tiny.name}", "what is typed is left alone"
    wait(lambda: "Stable Diffusion 1.x" in chips(page))
    page.draft.save(tmp_path / "run.toml")
    (tmp_path / "near.safetensors").write_bytes(tiny.read_bytes())
    assert chosen(page, "near.safetensors", wait, tmp_path / "near.safetensors").kind == "base"
    for strange in ("~no-such-user/x", "~", "a\0b"):
        page.draft.set("model.path", strange)
        wait(lambda: page._facts is not None and page._facts.kind != "base" and not page._asks.busy)
        wait(lambda: page.draft.is_checked)
