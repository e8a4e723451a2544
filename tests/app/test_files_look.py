"""The pages about model files in all their states: nothing is cut at any scale, everything can be named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QComboBox, QLineEdit, QPlainTextEdit, QWidget

from app import theme
from app.main_window import MainWindow, apply_look
from app.pages.model import ModelPage
from app.pages.tools import ToolsPage
from app.preferences import Preferences
from app.tool_editors import EntriesEditor
from app.widgets.metadata_view import MetadataView
from tests.app.conftest import Wait, close
from tests.app.test_metadata_view import TAGS, write
from tests.app.test_model_page import chosen  # fixtures
from tests.app.test_model_page import sd1 as sd1
from tests.app.test_model_page import sdxl as sdxl
from tests.app.test_model_page import tiny as tiny
from tests.app.test_window import cut_when_settled, lacks_room
from tests.models import shapes
from tests.models.shapes import Shapes
from trainer.models.keys import LDM_CLIP, LDM_VAE
from trainer.tools.catalog import TOOLS


@pytest.mark.parametrize(("language", "scale"), [("en", 100), ("zh_CN", 150), ("en", 200), ("zh_CN", 200)])
def test_nothing_is_cut(
    app: QApplication, tmp_path: Path, sd1: Shapes, sdxl: Path, wait: Wait, language: str, scale: int
) -> None:
    preferences = Preferences()
    for key, value in (("language", language), ("scale", scale), ("theme", "light")):
        preferences.set(key, value)
    preferences.set_folded("hub.mirror", False)
    apply_look(preferences)
    window = MainWindow(preferences)
    window.resize(1280, 800)
    window.show()
    try:
        cut = [*look_at_models(window, app, wait, tmp_path, sd1, sdxl), *look_at_tools(window, app, wait, tmp_path)]
        cut += look_at_viewer(window, app, wait, tmp_path)
        assert not cut, "\n".join(cut)
    finally:
        close(window)
        theme.apply("light", 100)


def look_at_models(
    window: MainWindow, app: QApplication, wait: Wait, folder: Path, sd1: Shapes, sdxl: Path
) -> list[str]:
    """SDXL with its strip, one that lacks parts, a stranger, one on the hub."""
    page = window.page("model")
    assert isinstance(page, ModelPage)
    window.draft.set("optimizer.learning_rate", 3e-4)
    bare = shapes.write(folder / "bare.safetensors", shapes.without(shapes.without(sd1, LDM_VAE), LDM_CLIP))
    lora = write(folder / "rufus.safetensors", {"ss_base_model_version": "sd_v1"})
    found = []
    for path in (sdxl, bare, lora, "someone/some-model"):
        chosen(page, path, wait)
        found += [f"{path}: {what}" for what in cut_when_settled(window, "model", app)]
    return found


def look_at_tools(window: MainWindow, app: QApplication, wait: Wait, folder: Path) -> list[str]:
    page = window.page("tools")
    assert isinstance(page, ToolsPage)
    found = []
    for name in TOOLS:
        page.choose(name)
        form = page.whole_form()
        for line in form.lines.values():
            if isinstance(line.editor, EntriesEditor):
                line.editor.take([str(folder / "rufus.safetensors")])
                if line.editor.rows[0].numbers:
                    line.editor.rows[0]._show_rest()
        assert name in ("hash", "metadata") or form.settings() is None
        if form.fold is not None:
            form.fold.set_open(True)
        found += [f"{name}: {what}" for what in cut_when_settled(window, "tools", app)]
    page.start()
    wait(lambda: page.jobs.jobs and page.jobs.jobs[0].is_over)
    return [*found, *cut_when_settled(window, "tools", app)]


def look_at_viewer(window: MainWindow, app: QApplication, wait: Wait, folder: Path) -> list[str]:
    view = MetadataView(window, write(folder / "tags.safetensors", {"ss_tag_frequency": str(TAGS).replace("'", '"')}))
    view.show()
    wait(lambda: view.document is not None and view.tree_model.rowCount())
    found = [text for widget in view.findChildren(QWidget) if widget.isVisibleTo(view) and (text := lacks_room(widget))]
    view.close()
    return found


def test_everything_that_takes_the_keyboard_has_a_name(
    window: MainWindow, tmp_path: Path, sdxl: Path, wait: Wait
) -> None:
    page = window.page("tools")
    assert isinstance(page, ToolsPage)
    for name in TOOLS:
        page.choose(name)
        for line in page.whole_form().lines.values():
            if isinstance(line.editor, EntriesEditor):
                line.editor.take([str(sdxl)])
        check_names(page, window)
    view = MetadataView(window, sdxl)
    view.show()
    wait(lambda: view.document is not None)
    check_names(view, view)
    view.close()


def check_names(place: QWidget, window: QWidget) -> None:
    kinds = QAbstractButton | QLineEdit | QPlainTextEdit | QComboBox
    for widget in (made for made in place.findChildren(QWidget) if isinstance(made, kinds)):
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisibleTo(window):
            inner = isinstance(widget.parent(), QComboBox)
            name = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
            assert inner or name, f"{type(widget).__name__} without a name"
