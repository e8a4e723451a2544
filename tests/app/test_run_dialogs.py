"""The dialogs of a run: export into a WebUI (asking before replacing), and new prompts (checked)."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image
from PySide6.QtWidgets import QApplication, QTableWidgetItem, QWidget
from safetensors.numpy import save_file

from app.export_dialog import TARGETS, ExportDialog, Offer
from app.main_window import MainWindow, apply_look
from app.pages.output import OutputPage
from app.preferences import Preferences
from app.prompts_dialog import PromptsDialog
from app.widgets.room import Room
from tests.app.conftest import Wait
from tests.app.test_window import lacks_room
from tests.targets.fakes import comfyui, swarmui
from trainer.paths import user_folder
from trainer.targets.wishes import Wish, remember, wish_of


@pytest.fixture
def offer(awkward: Path) -> Offer:
    root = awkward / "webui"
    (root / "modules").mkdir(parents=True)
    (root / "webui.py").write_text("", encoding="utf-8")
    files = []
    for name in ("猫", "猫-000001"):
        files.append(awkward / f"{name}.safetensors")
        save_file({"lora_unet_x.alpha": np.ones(1, np.float32)}, str(files[-1]), {"ss_output_name": name})
    Image.new("RGB", (8, 8)).save(awkward / "a.png")
    return Offer(files, [awkward / "a.png"], "ohwx cat", str(root))


def test_an_export_lies_where_the_program_looks_and_is_remembered(app: QApplication, wait: Wait, offer: Offer) -> None:
    preferences, parent = Preferences(), QWidget()
    dialog = ExportDialog(parent, preferences, offer)
    wait(lambda: dialog.export.isEnabled())
    assert dialog.name.text() == "猫" and "models" in dialog.found.text()
    dialog.weight.set_value(0.8)
    dialog.start(False)
    wait(lambda: not dialog._is_busy)
    loras = Path(offer.target) / "models" / "Lora"
    assert sorted(path.name for path in loras.iterdir()) == ["猫.json", "猫.preview.png", "猫.safetensors"]
    notes = json.loads((loras / "猫.json").read_text(encoding="utf-8"))
    assert notes["activation text"] == "ohwx cat" and notes["preferred weight"] == 0.8
    assert preferences.get(TARGETS) == [offer.target]
    dialog.start(False)
    wait(lambda: dialog.banner.banner is not None and "there is already" in dialog.banner.banner.text.text())
    before = (loras / "猫.safetensors").stat().st_mtime_ns
    dialog.start(True)
    wait(lambda: dialog.banner.banner is not None and "is there" in dialog.banner.banner.text.text())
    assert (loras / "猫.safetensors").stat().st_mtime_ns > before
    parent.deleteLater()


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("scale", [100, 200])
def test_the_export_fits_the_screen(app: QApplication, wait: Wait, offer: Offer, scale: int, language: str) -> None:
    preferences, parent = Preferences(), QWidget()
    preferences.set("language", language)
    preferences.set("scale", scale)
    apply_look(preferences)
    dialog = ExportDialog(parent, preferences, offer)
    dialog.show()
    wait(lambda: dialog.export.isEnabled())
    dialog.refresh.switch.click()
    dialog.name.setText("a/b")
    dialog.banner.show_banner("Rather a long sentence, such as a program's. " * 4, "warning")
    shown = [widget for widget in dialog.findChildren(QWidget) if widget.isVisible()]
    wait(lambda: not any(lacks_room(widget) for widget in shown))
    room = dialog.screen().availableSize()
    assert dialog.width() <= room.width() and dialog.height() <= room.height()
    inside, view = dialog.findChild(Room).widget(), dialog.findChild(Room).viewport()
    assert inside.width() <= view.width()
    wait(lambda: scale == 200 or inside.height() <= view.height(), 5)
    for field in (dialog.target, dialog.found, dialog.refresh, dialog.name, dialog.name_remark, dialog.weight):
        assert field.height() >= field.minimumSizeHint().height()
    parent.deleteLater()


def test_several_programs_at_once(
    app: QApplication, wait: Wait, offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    comfy, swarm = comfyui(tmp_path / "ComfyUI"), swarmui(tmp_path / "SwarmUI")
    preferences, parent = Preferences(), QWidget()
    preferences.set(TARGETS, [offer.target, str(comfy), str(swarm)])
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("app.export_dialog.refresh", lambda api, address, kind: asked.append((api, address)))
    dialog = ExportDialog(parent, preferences, offer)
    wait(lambda: dialog.export.isEnabled() and bool(dialog._others))
    boxes = {target.program: box for box, target, _ in dialog._others if not box.isHidden()}
    choices = {target.program: choice for _, target, choice in dialog._others}
    assert set(boxes) == {"ComfyUI", "SwarmUI"} and not boxes["ComfyUI"].isChecked()
    assert not dialog.refresh.isHidden() and dialog.refresh.address.isHidden()
    for box in boxes.values():
        assert choices["SwarmUI"].isHidden()
        box.setChecked(True)
    assert choices["ComfyUI"].isHidden() and "SwarmUI" in choices["SwarmUI"].switch.text()
    dialog.refresh.switch.click()
    choices["SwarmUI"].switch.click()
    dialog.refresh.address.setText("http://me:secret@127.0.0.1:7861")
    dialog.refresh.address.editingFinished.emit()
    exported: list[Path] = []
    dialog.exported.connect(exported.append)
    dialog.start(False)
    wait(lambda: not dialog._is_busy)
    folders = [Path(offer.target) / "models/Lora", comfy / "models/loras", swarm / "Models/Lora"]
    assert exported == [folder / "猫.safetensors" for folder in folders]
    assert all(path.is_file() for path in exported)
    assert asked == [("webui", "http://me:secret@127.0.0.1:7861"), ("swarm", "")]
    wait(lambda: wish_of(Path(offer.target)).address != "" and wish_of(swarm).refresh)
    preferences.flush()
    assert not any("secret" in path.read_text(encoding="utf-8") for path in user_folder().glob("*.json"))
    again = ExportDialog(parent, Preferences(), offer)
    wait(lambda: bool(again._others) and not again.refresh.isHidden())
    assert {target.program for box, target, _ in again._others if box.isChecked()} == {"ComfyUI", "SwarmUI"}
    assert again.refresh.wish() == Wish(True, "http://127.0.0.1:7861")
    parent.deleteLater()


def test_the_page_and_the_dialog_speak_of_the_same_program(
    window: MainWindow, wait: Wait, offer: Offer, tmp_path: Path
) -> None:
    page = cast(OutputPage, window.page("output"))
    assert page.refresh.isHidden()
    window.draft.set("output.export_to", offer.target)
    wait(lambda: not page.refresh.isHidden())
    assert page.refresh.address.isHidden() and page.refresh.wish() == Wish()
    page.refresh.switch.click()
    wait(lambda: wish_of(Path(offer.target)) == Wish(True))
    dialog = ExportDialog(window, window.preferences, offer)
    wait(lambda: not dialog.refresh.isHidden())
    assert dialog.refresh.wish() == Wish(True)
    window.draft.set("output.export_to", str(comfyui(tmp_path / "comfy")))
    wait(lambda: page.refresh.isHidden())
    dialog.deleteLater()
    window.draft.set("output.export_to", offer.target)
    wait(lambda: not page.refresh.isHidden())
    window.open_page("model")
    remember(Path(offer.target), Wish(False, "http://127.0.0.1:7861"))
    window.open_page("output")
    assert page.refresh.wish() == Wish(False, "http://127.0.0.1:7861")


def test_a_webui_that_does_not_answer_is_a_note(
    app: QApplication, wait: Wait, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.messages import say

    monkeypatch.setattr("app.export_dialog.refresh", lambda api, address, kind: say("Nobody answers."))
    parent = QWidget()
    dialog = ExportDialog(parent, Preferences(), offer)
    wait(lambda: dialog.export.isEnabled())
    dialog.refresh.switch.click()
    dialog.start(False)
    wait(lambda: not dialog._is_busy)
    text = dialog.banner.banner.text.text()
    assert "is there" in text and "Nobody answers." in text
    assert (Path(offer.target) / "models/Lora/猫.safetensors").is_file()
    parent.deleteLater()


def test_the_dialog_stays_until_it_can_say_what_came_of_it(
    app: QApplication, wait: Wait, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(*_: object) -> tuple[Path, ...]:
        go_on.wait(30)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.export_dialog.export_to_all", slow)
    parent = QWidget()
    dialog = ExportDialog(parent, Preferences(), offer)
    dialog.show()
    wait(lambda: dialog.export.isEnabled())
    dialog.start(False)
    assert dialog.banner.banner is not None and dialog.banner.banner.text.text() == "Copying…"
    dialog.name.setText("other")
    assert not dialog.export.isEnabled()
    dialog.close()
    assert dialog.isVisible()
    go_on.set()
    wait(lambda: not dialog._is_busy)
    assert "No space left" in dialog.banner.banner.text.text()
    dialog.close()
    assert not dialog.isVisible()
    parent.deleteLater()


def test_a_folder_that_is_no_webui_and_a_bad_name_can_not_be_exported_to(
    app: QApplication, wait: Wait, offer: Offer, tmp_path: Path
) -> None:
    parent = QWidget()
    dialog = ExportDialog(parent, Preferences(), Offer(offer.files, (), "", str(tmp_path / "nothing")))
    wait(lambda: "no such folder" in dialog.found.text())
    assert not dialog.export.isEnabled()
    dialog.target.set_value(offer.target)
    dialog._look_at_target()
    wait(lambda: dialog.export.isEnabled())
    dialog.name.setText("a/b")
    assert not dialog.export.isEnabled() and dialog.name_remark.text()
    dialog.name.setText("猫")
    for wrong in ("much", "-1", "3"):
        dialog.weight.set_value(wrong)
        assert not dialog.export.isEnabled() and dialog.weight.edit.property("state") == "problem"
        dialog.weight.set_value("")
        assert dialog.export.isEnabled()
    parent.deleteLater()


def test_new_prompts_are_checked_before_they_are_sent(app: QApplication) -> None:
    parent = QWidget()
    dialog = PromptsDialog(parent, [{"prompt": "a cat", "seed": 7}])
    sent: list[tuple[dict[str, object], ...]] = []
    dialog.accepted_prompts.connect(sent.append)
    keys = [key for key, _, _ in dialog._settings]
    for key, wrong in (("width", "wide"), ("width", "63"), ("sampler", "magic"), ("cfg", "0")):
        place = keys.index(key)
        good = dialog.table.item(0, place).text()
        dialog.table.setItem(0, place, QTableWidgetItem(wrong))
        dialog.submit()
        assert not sent and dialog.banner.banner is not None and wrong in dialog.banner.banner.text.text()
        dialog.table.setItem(0, place, QTableWidgetItem(good))
    dialog.add({"prompt": "猫"})
    dialog.submit()
    assert [prompt["prompt"] for prompt in sent[0]] == ["a cat", "猫"] and sent[0][0]["seed"] == 7
    parent.deleteLater()
