"""Editors: what is typed becomes a value, or stays the text that it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QToolButton, QWidget

from app import theme
from app.editors import ArgumentsEditor, NumberEditor, SizeEditor, number_text, parse_number, parse_size, size_text
from app.path_editor import PathEditor, clean_path
from app.widgets.flow import FlowLayout
from app.widgets.named import Named


@pytest.mark.parametrize(
    ("text", "kind", "optional", "value"),
    [
        ("16", int, False, 16), ("1e-4", float, False, 1e-4), ("0,5", float, False, 0.5), ("", float, True, None),
        ("", int, False, ""), ("1e-", float, False, "1e-"), ("1.5", int, False, "1.5"), (" 8 ", int, False, 8),
    ],
)  # fmt: skip
def test_numbers_are_read_or_kept(text: str, kind: type, optional: bool, value: Any) -> None:
    assert parse_number(text, kind, optional) == value


@given(st.floats(min_value=1e-12, max_value=1e9).map(lambda value: float(f"{value:.6e}")))
def test_a_number_is_the_same_after_writing_and_reading(value: float) -> None:
    assert parse_number(number_text(value), float, False) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-4, "1e-4"), (5e-5, "5e-5"), (0.0, "0"), (8.0, "8"), (0.05, "0.05"), (1.0, "1")]
)
def test_rates_are_written_as_people_write_them(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", [512, 512]), ("768, 512", [768, 512]), ("768x512", [768, 512]), ("768 × 512", [768, 512]),
        ("big", "big"), ("", ""),
    ],
)  # fmt: skip
def test_sizes_are_read_in_every_usual_form(text: str, value: Any) -> None:
    assert parse_size(text) == value


def test_sizes_are_written_shortly() -> None:
    assert size_text([512, 512]) == "512"
    assert size_text([768, 512]) == "768, 512"


def test_arguments_are_toml_lines_and_pythons_words(app: QApplication) -> None:
    editor = ArgumentsEditor()
    editor.edit.setPlainText('weight_decay = 0.1\nbetas=(0.9, 0.99)\nrelative_step = False\nname = "x"')
    assert editor.value() == {"weight_decay": 0.1, "betas": [0.9, 0.99], "relative_step": False, "name": "x"}
    editor.edit.setPlainText("weight_decay = ")
    assert editor.value() == "weight_decay = "
    editor.set_value({"eps": 1e-8})
    assert editor.value() == {"eps": 1e-8}


def test_keys_step_within_the_bounds(app: QApplication) -> None:
    editor = NumberEditor(int, bounds={"ge": 1, "le": 3})
    edited: list[Any] = []
    editor.edited.connect(edited.append)
    editor.set_value(2)
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Down):
        QTest.keyClick(editor.edit, key)
    assert edited == [3, 3, 2, 1, 1]


def test_showing_a_value_that_is_shown_leaves_the_text_alone(app: QApplication) -> None:
    editor = NumberEditor(float, arrows=False)
    editor.edit.setText("0.00010")
    editor.set_value(1e-4)
    assert editor.edit.text() == "0.00010"
    size = SizeEditor()
    size.edit.setText("512,512")
    size.set_value([512, 512])
    assert size.edit.text() == "512,512"


def test_paths_lose_the_quotes_that_windows_adds(app: QApplication) -> None:
    assert clean_path('"C:\\models\\a b.safetensors"') == "C:\\models\\a b.safetensors"
    editor = PathEditor()
    editor.edit.setText(" '/a/b' ")
    assert editor.value() == "/a/b"


@pytest.mark.parametrize("scale", [100, 200])
def test_the_button_that_empties_a_field_grows_with_the_scale(app: QApplication, scale: int) -> None:
    theme.apply("light", scale)
    editor = PathEditor(placeholder="Drop a file here")
    editor.resize(600, 80)
    editor.show()
    edited: list[Any] = []
    editor.edited.connect(edited.append)
    button = editor.edit.findChild(QToolButton)
    assert isinstance(button, QToolButton) and not button.isVisible()
    editor.set_value("/a/b")
    assert button.isVisible() and button.iconSize().width() == button.width() == theme.px(16)
    assert editor.edit.rect().contains(button.geometry())
    assert editor.edit.textMargins().right() >= button.width()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert edited == [""] and editor.value() == "" and not button.isVisible()
    editor.close()


@pytest.mark.parametrize("scale", [100, 200])
def test_a_name_stands_above_what_it_names_where_it_is_narrow(app: QApplication, scale: int) -> None:
    theme.apply("light", scale)
    named, name, field = Named(), QLabel("a name that is rather long for its place"), PathEditor()
    named.put(name, field)
    named.show()
    for width in (430, 450, 430):
        named.resize(theme.px(width), theme.px(200))
        QApplication.processEvents()
        is_above = field.geometry().top() >= name.geometry().bottom()
        assert is_above is (width < 440)
        assert name.width() == (named.width() if is_above else theme.px(168))
    assert named.minimumSizeHint().width() < theme.px(300)
    named.close()


def test_what_flows_stands_in_the_middle_of_its_line(app: QApplication) -> None:
    ground, sizes = QWidget(), [(100, 40), (60, 20), (80, 30), (90, 10)]
    flow = FlowLayout(ground, 10)
    made = []
    for width, height in sizes:
        part = QLabel()
        part.setFixedSize(width, height)
        flow.addWidget(part)
        made.append(part)
    ground.resize(180, 200)
    ground.show()
    QApplication.processEvents()
    assert [part.pos().toTuple() for part in made] == [(0, 0), (110, 10), (0, 50), (90, 60)]
    assert flow.heightForWidth(180) == 40 + 10 + 30
    assert flow.heightForWidth(1000) == 40
    ground.close()
