"""The window as a whole: no torch, nothing cut off, everything reachable by keyboard and by name, problems with jumps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QFontMetrics, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QScrollArea,
    QWidget,
)

from app import theme
from app.main_window import MainWindow, apply_look
from app.pages import PAGES, WIZARD, page_of
from app.pages.base import Page
from app.preferences import Preferences
from app.widgets.basics import ElidedLabel
from app.widgets.sample_grid import SampleGrid
from app.widgets.sidebar import SideButton
from tests.app.conftest import Wait, close
from trainer.config.fields import item_section, settings_of
from trainer.config.run import sections
from trainer.paths import RESOURCES, ROOT

DEMO = RESOURCES / "demo" / "demo.toml"


def run_python(program: str, home: Path) -> str:
    environment = os.environ | {"ATHANOR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_page_imports_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from PySide6.QtWidgets import QApplication
app = QApplication([])
from pathlib import Path
from app.main_window import MainWindow, apply_look
from app.pages import PAGES
from app.preferences import Preferences
preferences = Preferences()
apply_look(preferences)
window = MainWindow(preferences, Path({str(DEMO)!r}))
window.show()
for key in PAGES:
    page = window.page(key)
    for form in getattr(page, "forms", []):
        if form.fold:
            form.fold.set_open(True)
    app.processEvents()
    if key == "images":
        page.tagger.open()
bad = {{"torch", "diffusers", "transformers", "accelerate", "onnxruntime"}} & set(sys.modules)
window.close()
print("imported:", sorted(bad))
"""
    assert "imported: []" in run_python(program, tmp_path)


def test_every_setting_has_a_page_that_shows_it(window: MainWindow) -> None:
    for section, kind in sections().items():
        for key, field, _ in settings_of(kind):
            place = f"{section}.{key}"
            if item_section(field) is None:
                page = window.page(page_of(place))
                assert isinstance(page, Page)
                assert page.reveal(place), f"{place} is on no page"
                QApplication.processEvents()


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("scale", [100, 150, 200])
def test_no_label_or_button_is_cut(app: QApplication, language: str, scale: int, wait: Wait) -> None:
    preferences = Preferences()
    for key, value in (("language", language), ("scale", scale), ("theme", "light")):
        preferences.set(key, value)
    for name in ("more.model", "more.network", "more.optimizer", "more.speed", "more.sizes", "more.saving", "review.toml"):
        preferences.set_folded(name, False)
    apply_look(preferences)
    window = MainWindow(preferences, DEMO)
    window.resize(1280 if scale < 200 else 1024, 800)
    window.show()
    try:
        wait(lambda: window.draft.is_checked)
        cut = [f"{key}: {what}" for key in PAGES for what in cut_when_settled(window, key, app)]
        assert not cut, "\n".join(cut)
        buttons = [made for made in window.findChildren(QAbstractButton) if not made.icon().isNull()]
        assert not [made.text() for made in buttons if made.iconSize().width() < theme.px(14)], "icons grow too"
    finally:
        close(window)
        theme.apply("light", 100)


def cut_when_settled(window: MainWindow, key: str, app: QApplication) -> list[str]:
    """What is cut on a page for good: answers from threads lay it out anew while it is being looked at."""
    end = time.monotonic() + 5
    while (found := cut_on(window, key, app)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def cut_on(window: MainWindow, key: str, app: QApplication) -> list[str]:
    """Texts of a page, its frame included, that have less room than they need."""
    page = window.page(key)
    for _ in range(4):
        app.processEvents()
    found = []
    frame = [*window.sidebar.findChildren(QWidget), *window.strip.findChildren(QWidget), *window.help.findChildren(QWidget)]
    areas = [page] if isinstance(page, Page) else [area for area in page.findChildren(QScrollArea) if area.isVisible()]
    for area in areas:
        if area.horizontalScrollBarPolicy() == Qt.ScrollBarPolicy.ScrollBarAlwaysOff or key == "run":
            wide, room = area.widget().width(), area.viewport().width()
            if wide > room and not isinstance(area.widget(), SampleGrid):
                found.append(f"{area.widget().objectName()} is {wide} wide and has room for {room}")
    for widget in [*page.findChildren(QWidget), *frame]:
        if widget.isVisibleTo(window) and (text := lacks_room(widget)):
            found.append(f"{type(widget).__name__} {text!r} {widget.width()}×{widget.height()}")
    return found


def lacks_room(widget: QWidget) -> str:
    """The text of a label, button, combo box or tab that does not fit, else ""."""
    if isinstance(widget, ElidedLabel):
        return ""
    if isinstance(widget, QLabel) and widget.text() and not widget.pixmap():
        needed = widget.heightForWidth(widget.width()) if widget.wordWrap() else widget.sizeHint().height()
        wide = longest_word(widget) if widget.wordWrap() else widget.sizeHint().width()
        return widget.text() if widget.height() < needed - 1 or widget.width() < wide - 1 else ""
    if isinstance(widget, SideButton):
        return widget.title if not widget.narrow and widget.text_width() > widget.room_for_text() else ""
    if isinstance(widget, QAbstractButton) and widget.text():
        return widget.text() if widget.width() < widget.sizeHint().width() - 1 else ""
    if isinstance(widget, QComboBox):
        needed = QFontMetrics(widget.font()).horizontalAdvance(widget.currentText()) + theme.px(30)
        return widget.currentText() if widget.width() < needed else ""
    return ""


def longest_word(label: QLabel) -> int:
    """The width of the longest part that cannot be broken (Chinese breaks anywhere; so may paths)."""
    metrics = QFontMetrics(label.font())
    words = (word for word in label.text().split() if word.isascii() and "/" not in word and "\\" not in word)
    return max((metrics.horizontalAdvance(word) for word in words), default=0)


def test_everything_that_takes_the_keyboard_has_a_name(window: MainWindow) -> None:
    window.context.try_example()
    for key in PAGES:
        page = window.page(key)
        QApplication.processEvents()
        for widget in page.findChildren(QWidget):
            focusable = widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisibleTo(window)
            inner = isinstance(widget.parent(), QComboBox | QAbstractSpinBox)
            if focusable and not inner and isinstance(widget, QAbstractButton | QLineEdit | QPlainTextEdit | QComboBox):
                name = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
                assert name, f"{key}: {type(widget).__name__} without a name"


@pytest.mark.parametrize("key", ["model", "images", "network", "speed", "samples", "tools"])
def test_tab_goes_through_a_page_in_reading_order(window: MainWindow, wait: Wait, key: str) -> None:
    """Parts are made in another order: rows come after what unfolds the rest of them, cards after what adds one."""
    window.context.try_example()
    for name in ("more.model", "more.network", "more.speed", "more.sizes"):
        window.preferences.set_folded(name, False)
    page = window.page(key)
    assert isinstance(page, Page)
    wait(lambda: window.draft.is_checked and not window.context.slices._tasks)  # nothing moves any more
    window.activateWindow()
    window.sidebar.buttons["settings"].setFocus()
    tops, names = [], []
    for _ in range(200):
        focused = QApplication.focusWidget()
        assert focused is not None
        QTest.keyClick(focused, Qt.Key.Key_Tab)
        focused = QApplication.focusWidget()
        if focused is not None and page.isAncestorOf(focused):
            tops.append(focused.mapTo(page.widget(), focused.rect().center()).y())
            names.append(focused.accessibleName())
        elif tops:
            break
    assert len(tops) > 4
    slack = theme.px(20)  # of what stands side by side
    assert not [names[n : n + 2] for n in range(len(tops) - 1) if tops[n + 1] < tops[n] - slack]
    for name in reversed(names):
        QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
        assert QApplication.focusWidget().accessibleName() == name


def test_search_finds_by_both_names_and_jumps(window: MainWindow, wait: Wait) -> None:
    assert "network.rank" in window.search.results("network_dim")
    assert "optimizer.unet_rate" in window.search.results("unet lr")
    assert "images.folders" in window.search.results("num_repeats")
    assert "training.batch_size" in window.search.results("batch si")
    window.activateWindow()
    QTest.keyClick(window, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    assert window.search.hasFocus()
    QTest.keyClicks(window.search, "bucket_no_upscale")
    QTest.keyClick(window.search, Qt.Key.Key_Return)
    wait(lambda: window.page_key == "images")
    page = window.page("images")
    assert isinstance(page, Page)
    field = page.forms[0].rows["images.no_upscale"].editor.field()
    wait(lambda: field.hasFocus() and field.isVisible())


def test_a_setting_chosen_with_arrows_in_the_search_list_is_jumped_to(window: MainWindow, wait: Wait) -> None:
    window.activateWindow()
    window.focus_search()
    QTest.keyClicks(window.search, "rate")
    completer = window.search.completer()
    assert completer is not None
    second = window.search.results("rate")[1]
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Return):
        QTest.keyClick(completer.popup(), key)
    wait(lambda: window.page_key == page_of(second))
    page = window.page(page_of(second))
    assert isinstance(page, Page)
    field = page.forms[0].rows[second].editor.field()
    wait(lambda: window.focusWidget() is field)
    assert not window.search.text()


def test_the_focused_setting_is_explained(window: MainWindow, wait: Wait) -> None:
    window.jump("network.alpha")
    wait(lambda: window.help.place == "network.alpha")
    texts = " ".join(label.text() for label in window.help.findChildren(QLabel))
    assert "network_\u200balpha" in texts
    assert "alpha ÷ rank" in texts


def test_f1_folds_the_help_and_remembers_it(window: MainWindow) -> None:
    shown = window.help.isVisible()
    QTest.keyClick(window, Qt.Key.Key_F1)
    assert window.help.isVisible() != shown
    assert window.preferences.folded("help", False) == shown


def test_pages_go_back_and_forth(window: MainWindow) -> None:
    for key in ("model", "network", "speed"):
        window.open_page(key)
    QTest.keyClick(window, Qt.Key.Key_Left, Qt.KeyboardModifier.AltModifier)
    assert window.page_key == "network"
    QTest.keyClick(window, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert window.page_key == "speed"


def test_a_typed_mistake_is_shown_under_its_field_and_marks_the_page(window: MainWindow, wait: Wait) -> None:
    page = window.page("network")
    assert isinstance(page, Page)
    row = page.forms[0].rows["network.rank"]
    edit = row.editor.field()
    assert isinstance(edit, QLineEdit)
    edit.selectAll()
    QTest.keyClicks(edit, "2000")
    wait(lambda: row.message.isVisible())
    assert "1024" in row.message.text()
    assert edit.property("state") == "problem"
    assert window.sidebar.buttons["network"].mark == "problem"
    QTest.keyClick(edit, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)


def test_a_changed_value_has_a_way_back(window: MainWindow) -> None:
    page = window.page("network")
    assert isinstance(page, Page)
    row = page.forms[0].rows["network.rank"]
    assert not row.back.isVisible()
    window.draft.set("network.rank", 64)
    assert row.back.isVisible()
    row.back.click()
    assert window.draft.get("network.rank") == 16


def test_there_is_no_help_where_there_is_no_setting(window: MainWindow) -> None:
    for key, is_there in (("output", True), ("review", False), ("model", True), ("tools", False)):
        window.open_page(key)
        assert window.help.isVisible() is window.help_button.isVisible() is is_there


def test_an_undo_on_another_page_shows_where_it_was(window: MainWindow) -> None:
    rank = window.page("network").forms[0].rows["network.rank"].editor  # type: ignore[attr-defined]
    window.draft.set("network.rank", 64)
    window.open_page("samples")
    for action, shown in ((window.undo, 16), (window.redo, 64)):
        action()
        assert window.page_key == "network"
        assert rank.value() == window.draft.get("network.rank") == shown
        window.open_page("samples")
    window.draft.set_many({"network.rank": 8, "training.epochs": 3})
    window.undo()
    assert window.page_key == "samples" and rank.value() == 64, "many places have no page"


def test_the_wheel_changes_nothing_in_passing(window: MainWindow) -> None:
    for key in ("network", "speed", "scheduler", "samples"):
        page = window.page(key)
        before = [box.currentIndex() for box in page.findChildren(QComboBox)]
        for box in page.findChildren(QComboBox):
            box.setFocus()
            turn_wheel(box)
        assert [box.currentIndex() for box in page.findChildren(QComboBox)] == before
        for edit in page.findChildren(QLineEdit):
            text = edit.text()
            turn_wheel(edit)
            assert edit.text() == text


def turn_wheel(widget: QWidget) -> None:
    middle = QPointF(widget.rect().center())
    event = QWheelEvent(
        middle, widget.mapToGlobal(middle), QPoint(0, 0), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(widget, event)


def test_problems_jump_to_their_field(window: MainWindow, wait: Wait) -> None:
    window.open_page("review")
    window.draft.set("scheduler.power", -1.0)
    wait(lambda: any(problem.place == "scheduler.power" for problem in window.draft.errors))
    window.jump("scheduler.power")
    assert window.page_key == "scheduler"


def test_language_theme_and_scale_change_while_running(window: MainWindow, wait: Wait) -> None:
    window.open_page("network")
    window.preferences.set("language", "zh_CN")
    window.preferences.set("theme", "dark")
    window.preferences.set("scale", 150)
    window.rebuild()
    assert window.page_key == "network"
    assert window.sidebar.buttons["network"].title == "网络"
    assert theme.is_dark()
    assert theme.px(100) == 150
    window.preferences.set("language", "en")
    window.preferences.set("scale", 100)
    window.rebuild()
    assert window.sidebar.buttons["network"].title == "Network"


def test_the_window_follows_the_system_from_light_to_dark(
    window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.preferences.set("theme", "system")
    window.open_page("network")
    for scheme in (Qt.ColorScheme.Dark, Qt.ColorScheme.Light):
        dark = scheme == Qt.ColorScheme.Dark
        monkeypatch.setattr(theme, "system_is_dark", lambda dark=dark: dark)
        QApplication.styleHints().colorSchemeChanged.emit(scheme)
        assert theme.is_dark() is dark and window.page_key == "network"
        assert isinstance(window.page("network"), Page)


def test_closing_while_training_says_once_that_it_goes_on(window: MainWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(QMessageBox, "information", lambda parent, title, text: said.append(text))
    monkeypatch.setattr(type(window.starter), "is_running", property(lambda _: True))
    window.preferences.set("said", [])
    for _ in range(2):
        window.show()
        window.close()
    assert len(said) == 1 and "goes on without this window" in said[0]


def test_the_window_opens_where_it_was_left(app: QApplication) -> None:
    preferences = Preferences()
    first = MainWindow(preferences)
    first.show()
    first.open_page("noise")
    first.draft.set("noise.noise_offset", 0.05)
    close(first)
    second = MainWindow(Preferences())
    assert second.page_key == "noise"
    assert second.draft.get("noise.noise_offset") == 0.05
    close(second)


def test_texts_can_be_read_in_both_themes() -> None:
    for colours in (theme.LIGHT, theme.DARK):
        for ground in ("ground", "sidebar", "card", "raised", "field", "accent_soft"):
            for text in ("text", "muted", "accent", "good", "warning", "problem", "info"):
                assert contrast(getattr(colours, text), getattr(colours, ground)) >= 4.5, (text, ground)
        for name in ("good", "warning", "problem", "info"):
            assert contrast(getattr(colours, name), getattr(colours, f"{name}_soft")) >= 4.5
        assert contrast(colours.on_accent, colours.accent) >= 4.5
        assert contrast(colours.on_accent, colours.accent_hover) >= 4.5
        assert contrast(colours.strong_border, colours.field) >= 3


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two #rrggbb colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pages_stand_in_the_specifications_order() -> None:
    assert [row.key for row in WIZARD] == [
        "model", "images", "regularization", "network", "optimizer", "scheduler", "noise", "speed", "samples",
        "output", "review",
    ]  # fmt: skip
