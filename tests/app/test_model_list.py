"""Models on this computer: those used before and those of known programs, each once, with what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import theme
from app.model_finder import find_models
from app.pages.model import ModelPage
from app.widgets.model_list import RECENT
from tests.app.conftest import Wait
from tests.app.model_page import page as page
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.app.test_metadata_view import write as write_lora
from tests.models import shapes
from tests.models.shapes import Shapes


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


def test_a_second_look_changes_only_what_has_changed(
    page: ModelPage, webui: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.preferences.set("export_targets", [str(webui)])
    page.list.look()
    wait(lambda: len(page.list._items) >= 3 and all(item.text(1) for item in page.list._items.values()))
    for column in (1, 2):
        assert page.list.tree.columnWidth(column) >= page.list.tree.sizeHintForColumn(column)
    shown: list[str] = []
    monkeypatch.setattr("app.widgets.model_list._show_facts", lambda item, facts: shown.append(facts.path.name))
    write_lora(webui / "models" / "Stable-diffusion" / "stray.safetensors", {"ss_output_name": "another"})
    page.list.look()
    wait(lambda: page.list._finds.busy is False and not page.list._unknown and not page.list._facts.busy and shown)
    assert shown == ["stray.safetensors"]


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
