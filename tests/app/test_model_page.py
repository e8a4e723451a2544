"""Base model page: what a file is, while it is dragged, chosen, found or on the hub; what it lacks; what it changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QWidget

from app import theme
from app.family_defaults import TAKEN
from app.hub_download import MIRROR, VARIABLE, is_address, use_mirror
from app.main_window import MainWindow
from app.model_finder import find_models
from app.pages.model import ModelPage
from app.preferences import Preferences
from app.processes import Command
from app.widgets.metadata_view import MetadataView
from app.widgets.model_list import RECENT
from app.widgets.model_parts import reason_words
from tests.app.conftest import Wait
from tests.app.test_metadata_view import write as write_lora
from tests.models import shapes
from tests.models.conftest import server as server  # a fixture
from tests.models.hub_server import Hub
from tests.models.shapes import Shapes
from tests.tiny import save_tiny_file
from trainer.messages import Message, say
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.keys import LDM_CLIP, LDM_VAE
from trainer.models.safetensors_file import read_header


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sd1(tiny: Path) -> Shapes:
    return read_header(tiny).shapes


@pytest.fixture
def page(window: MainWindow) -> ModelPage:
    made = window.page("model")
    assert isinstance(made, ModelPage)
    return made


@pytest.fixture
def sdxl(tmp_path: Path, sd1: Shapes) -> Path:
    return shapes.write(tmp_path / "xl.safetensors", shapes.sdxl(sd1))


def chosen(page: ModelPage, path: Path | str, wait: Wait) -> ModelFacts:
    """Choose a model, and wait until it is recognised."""
    page.draft.set("model.path", str(path))
    wait(
        lambda: (
            page._facts is not None
            and page._shown is not None
            and page._shown.path == str(path)
            and not page._asks.busy
        )
    )
    wait(lambda: not page.context.family_defaults._asks.busy)
    assert page._facts is not None
    return page._facts


def chips(page: ModelPage) -> list[str]:
    return [made.text() for made in page.facts_card.chips.findChildren(QLabel) if made.isVisibleTo(page)]


# ---- recognising ----


def test_a_model_is_recognised_in_full(page: ModelPage, sdxl: Path, wait: Wait) -> None:
    chosen(page, sdxl, wait)
    assert page.facts_card.isVisibleTo(page) and not page.invitation.isVisibleTo(page)
    assert page.facts_card.summary.text() == "SDXL model."
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


# ---- what a family wants ----


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


# ---- what it predicts ----


@pytest.mark.parametrize(
    ("prediction", "source", "words"),
    [
        ("v_prediction", "metadata", "v-prediction: the file's metadata says so."),
        ("v_prediction", "marker", "v-prediction: a mark in the file says so."),
        ("epsilon", "config", "epsilon: its config says so."),
        ("epsilon", "family", "epsilon: Stable Diffusion 1.x models do, unless they say otherwise."),
        (None, None, "The file does not say it, and models of this kind differ."),
    ],
)
def test_a_reason_is_given(window: MainWindow, prediction: str | None, source: str | None, words: str) -> None:
    facts = ModelFacts(Path("x"), "base", "sd1", say(""), prediction=prediction, prediction_source=source)
    assert reason_words(facts, "auto") == words
    assert reason_words(facts, "epsilon") == f"epsilon: you chose it. {words}"
    if source is None:
        assert reason_words(facts, "auto", "A test says v.") == "A test says v."


def sd2_file(tmp_path: Path, sd1: Shapes) -> Path:
    return shapes.write(tmp_path / "two.safetensors", shapes.sd2(sd1))


ANSWERS = {
    "guess": (
        '{"ok": true, "guess": "v_prediction", "summary": "It seems to predict v."}',
        0,
        "It seems to predict v.",
    ),
    "refused": ('{"ok": false, "what": "It cannot be tested.", "todo": "Choose another."}', 2, "It cannot be tested."),
    "broken": ("Killed", 3, "Killed"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_model_itself_is_asked(
    page: ModelPage, tmp_path: Path, sd1: Shapes, wait: Wait, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    line, code, words = ANSWERS[answer]
    seen: list[list[str]] = []

    def start(self: Command, arguments: Any, **_: Any) -> None:
        seen.append(list(arguments))
        self._process.start(sys.executable, ["-c", f"import sys; print({line!r}); sys.exit({code})"])

    monkeypatch.setattr(Command, "start", start)
    file = sd2_file(tmp_path, sd1)
    facts = chosen(page, file, wait)
    assert facts.prediction_source is None
    card = page.prediction
    assert card.find_button.isVisibleTo(page)
    card.find_button.click()
    assert card.stop_button.isVisibleTo(page) and not card.find_button.isVisibleTo(page)
    wait(lambda: card._command is None)
    assert seen == [["probe", str(file), "--json"]]
    shown = card.reason.text() if answer == "guess" else card.state.text()
    assert words in shown
    assert (card.state.property("role") == "problem") is (answer != "guess")
    page.draft.set("model.prediction", "epsilon")
    assert card.reason.text().startswith("epsilon: you chose it.")


def test_a_test_can_be_stopped_and_ends_with_its_model(
    page: ModelPage, tmp_path: Path, sd1: Shapes, sdxl: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(Command, "start", start)
    chosen(page, sd2_file(tmp_path, sd1), wait)
    for leave in (page.prediction.stop, lambda: page.draft.set("model.path", str(sdxl))):
        page.prediction.find_out()
        running = page.prediction._command
        assert running is not None
        wait(lambda running=running: running.is_running)
        leave()
        wait(lambda: page.prediction._command is None)
    assert page.prediction.state.text() == ""


def test_both_settings_are_on_the_page(page: ModelPage, tiny: Path, wait: Wait) -> None:
    chosen(page, tiny, wait)
    assert page.reveal("model.prediction") and page.reveal("model.zero_terminal_snr") and page.reveal("model.vae")
    box = page.prediction.rows["model.prediction"].editor.field()
    QTest.keyClick(box, Qt.Key.Key_End)
    assert page.draft.get("model.prediction") == "v_prediction"
    page.draft.undo()
    assert page.draft.get("model.prediction") == "auto"


# ---- models on this computer ----


@pytest.fixture
def webui(tmp_path: Path, sdxl: Path, sd1: Shapes) -> Path:
    """A folder like the WebUI's, with two models and a stranger in its folder of models."""
    root = tmp_path / "stable-diffusion-webui"
    models = root / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    (root / "modules").mkdir()
    (root / "webui.py").write_text("", encoding="utf-8")
    sdxl.rename(models / "xl.safetensors")
    shapes.write(models / "模型.safetensors", sd1)
    write_lora(models / "stray.safetensors", {})
    return root


def test_models_of_known_programs_are_listed_with_what_they_are(
    page: ModelPage, webui: Path, tiny: Path, wait: Wait
) -> None:
    page.preferences.set("export_targets", [str(webui)])
    page.preferences.set(RECENT, [str(tiny), "/gone.safetensors"])
    page.list.look()
    wait(lambda: len(page.list._items) >= 4)
    wait(lambda: all(item.text(1) for item in page.list._items.values()))
    rows = {Path(path).name: item for path, item in page.list._items.items()}
    assert {"xl.safetensors", "模型.safetensors", "stray.safetensors", tiny.name} <= set(rows)
    assert rows["xl.safetensors"].text(1) == "SDXL · fp16"
    assert rows["stray.safetensors"].foreground(0).color() == theme.qcolour("muted")
    page.list.search.setText("sdxl")
    assert rows["模型.safetensors"].isHidden() and not rows["xl.safetensors"].isHidden()
    page.list.search.setText("")
    page.list.tree.setCurrentItem(rows["模型.safetensors"])
    page.list.use_button.click()
    assert page.draft.get("model.path") == str(webui / "models" / "Stable-diffusion" / "模型.safetensors")
    wait(lambda: page.preferences.get(RECENT)[0].endswith("模型.safetensors"))


def test_each_model_is_listed_once_and_what_is_gone_is_not(webui: Path) -> None:
    model = webui / "models" / "Stable-diffusion" / "xl.safetensors"
    groups = find_models([str(model), "/gone", "someone/model", "\0"], [str(webui)])
    assert groups[0].models == (str(model), "someone/model")
    assert all(str(model) not in group.models for group in groups[1:])


def test_nothing_found_is_said(page: ModelPage, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.model_finder.known_installs", lambda installs: ())
    page.list.look()
    wait(lambda: not page.list._finds.busy)
    assert "None found" in page.list.state.text()
    assert not page.list.tree.isVisibleTo(page)


# ---- the hub ----

REPO = "someone/tiny-model"


@pytest.fixture
def endpoint() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    yield
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before


def test_a_model_is_downloaded_from_a_mirror(
    page: ModelPage, wait: Wait, server: Hub, tiny: Path, endpoint: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos[REPO] = {"model.safetensors": tiny.read_bytes(), "README.md": b"# x"}
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    chosen(page, REPO, wait)
    assert page.download.isVisibleTo(page) and not page.facts_card.isVisibleTo(page)
    page.download.mirror.setText(server.address)
    page.download.start_button.click()
    assert page.preferences.get(MIRROR) == server.address
    assert page.context.download.state == "running"
    wait(lambda: page.context.download.state != "running")
    assert page.context.download.state == "done", page.context.download.text
    wait(lambda: page.facts_card.isVisibleTo(page))
    assert "Stable Diffusion 1.x" in chips(page)
    assert not page.download.isVisibleTo(page)
    assert page.draft.get("model.path") == REPO


def test_a_download_that_fails_says_why_and_can_be_begun_again(
    page: ModelPage, wait: Wait, server: Hub, endpoint: None
) -> None:
    chosen(page, "someone/nothing", wait)
    page.preferences.set(MIRROR, server.address)
    page.download.start()
    wait(lambda: page.context.download.state != "running")
    assert page.context.download.state == "failed"
    assert page.download.text.property("role") == "problem" and len(page.download.text.text()) > 20
    assert page.download.start_button.isVisibleTo(page) and page.download.start_button.isEnabled()


SLOW = """
import json, time
print(json.dumps({"event": "plan", "files": 1, "done": 0, "total": 4000000, "free": 9}), flush=True)
for done in range(0, 4000000, 100000):
    print(json.dumps({"event": "progress", "done": done, "total": 4000000}), flush=True)
    time.sleep(0.05)
time.sleep(60)
"""


def test_a_download_shows_its_speed_and_can_be_stopped(
    page: ModelPage, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", SLOW])

    monkeypatch.setattr(Command, "start", start)
    chosen(page, REPO, wait)
    page.download.start()
    assert "Asking" in page.download.text.text()
    wait(lambda: "a second" in page.download.text.text() and "left" in page.download.text.text())
    assert page.download.bar.value() > 0
    page.download.stop_button.click()
    wait(lambda: page.context.download.state == "stopped")
    assert "Stopped" in page.download.text.text()


@pytest.mark.parametrize("text", ["huh", "ftp://x.org", "https://", "https://a b", "http://[::1"])
def test_an_address_that_is_none_is_refused(page: ModelPage, text: str, endpoint: None) -> None:
    assert not is_address(text)
    page.download.mirror.setText(text)
    page.download._save_mirror()
    assert not page.download.mirror_problem.isHidden()
    assert page.preferences.get(MIRROR) == ""
    assert os.environ.get(VARIABLE) != text


def test_the_mirror_is_what_processes_ask(endpoint: None) -> None:
    preferences = Preferences()
    before = os.environ.get(VARIABLE)
    preferences.set(MIRROR, "https://mirror.example")
    use_mirror(preferences)
    assert os.environ[VARIABLE] == "https://mirror.example"
    preferences.set(MIRROR, "")
    use_mirror(preferences)
    assert os.environ.get(VARIABLE) == before


def test_the_facts_of_a_hub_model_are_those_that_inspect_gives(server: Hub) -> None:
    facts = inspect_file("someone/else")
    assert facts.kind == "hub" and isinstance(facts.summary, Message)


def test_the_page_takes_drops_and_its_invitation_does_not(page: ModelPage) -> None:
    assert page.acceptDrops()
    assert not page.invitation.acceptDrops(), "the page would not see what is dragged over it"
    assert isinstance(page.invitation, QWidget)


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
