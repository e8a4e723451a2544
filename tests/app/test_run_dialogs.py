"""The dialogs of a run: export into a WebUI (asking before replacing), and new prompts (checked)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PySide6.QtWidgets import QApplication, QTableWidgetItem, QWidget
from safetensors.numpy import save_file

from app.export_dialog import TARGETS, ExportDialog, Offer
from app.preferences import Preferences
from app.prompts_dialog import PromptsDialog
from tests.app.conftest import Wait


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
    dialog.weight.setValue(0.8)
    dialog.start(False)
    wait(lambda: dialog.banner.banner is not None)
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
