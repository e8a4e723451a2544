"""Editors of single values: each shows a plain value, keeps whatever was typed, and says when it was edited.

An editor never corrects: text that is no number yet is handed on as text, and the checks say what is wrong with it.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QSignalBlocker, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent, QPixmap, QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import tr, translate_trainer
from app.widgets.basics import label
from trainer.config.fields import Choice


class Editor(QWidget):
    """Base of all editors.

    Signals:
        edited(value): the user changed it; the value is plain data, or the text typed if it is no value yet.
    """

    edited = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.line = QHBoxLayout(self)
        self.line.setContentsMargins(0, 0, 0, 0)
        self.line.setSpacing(theme.px(theme.SPACE))

    def value(self) -> Any:
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show a value without emitting `edited`; what shows it already is left alone (the cursor stays)."""
        raise NotImplementedError

    def field(self) -> QWidget:
        """The widget that takes the keyboard: the label's buddy."""
        raise NotImplementedError

    def show_unit(self, unit: str) -> None:
        """Write the unit behind the field."""
        after = self.line.indexOf(self.field()) + 1
        self.line.insertWidget(after, label(unit, "muted"))

    def set_state(self, state: str) -> None:
        """ "problem", "warning" or "": how the field is framed."""
        field = self.field()
        if field.property("state") != state:
            field.setProperty("state", state)
            field.style().unpolish(field)
            field.style().polish(field)


class ComboBox(QComboBox):
    """Hands the wheel on to the page: scrolling past it never changes it.

    (No filter of events: all of them would go through Python, each waiting for what a thread does there.)
    """

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class _NumberField(QLineEdit):
    """Signals:
    stepped(sign): Up (1) or Down (-1) was pressed.
    """

    stepped = Signal(int)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        sign = {Qt.Key.Key_Up.value: 1, Qt.Key.Key_Down.value: -1}.get(event.key())
        if sign is None:
            super().keyPressEvent(event)
        else:
            self.stepped.emit(sign)


class TextEditor(Editor):
    """One line of text."""

    def __init__(self, placeholder: str = "") -> None:
        super().__init__()
        self.edit = QLineEdit(placeholderText=placeholder)
        self.edit.textEdited.connect(lambda _: self.edited.emit(self.value()))
        self.line.addWidget(self.edit, 1)

    def value(self) -> Any:
        return self.edit.text()

    def set_value(self, value: Any) -> None:
        text = "" if value is None else str(value)
        if text != self.edit.text():
            self.edit.setText(text)

    def field(self) -> QWidget:
        return self.edit


class LongTextEditor(Editor):
    """Several lines of text; Tab leaves it."""

    def __init__(self, lines: int = 2, mono: bool = False) -> None:
        super().__init__()
        self.edit = QPlainTextEdit(tabChangesFocus=True)
        if mono:
            self.edit.setFont(theme.font(mono=True))
        self.edit.setFixedHeight(self.edit.fontMetrics().lineSpacing() * lines + theme.px(20))
        self.edit.textChanged.connect(lambda: self.edited.emit(self.value()))
        self.line.addWidget(self.edit, 1)

    def value(self) -> Any:
        return self.edit.toPlainText()

    def set_value(self, value: Any) -> None:
        text = "" if value is None else str(value)
        if text != self.edit.toPlainText():
            with QSignalBlocker(self.edit):
                self.edit.setPlainText(text)

    def field(self) -> QWidget:
        return self.edit


class ArgumentsEditor(LongTextEditor):
    """`name = value` a line, values as in TOML (0.1, true, "text", [0.9, 0.99]); `None` may be written as none."""

    def __init__(self) -> None:
        super().__init__(lines=3, mono=True)
        self.edit.setPlaceholderText("weight_decay = 0.1")

    def value(self) -> Any:
        text = super().value()
        try:
            return tomllib.loads(_with_toml_words(text))
        except tomllib.TOMLDecodeError:
            return text

    def set_value(self, value: Any) -> None:
        if value != self.value():
            super().set_value(_arguments_text(value) if isinstance(value, dict) else value)


def _with_toml_words(text: str) -> str:
    """Python's True, False and (a, b) as pasted from other trainers, in TOML's spelling."""
    words = {"True": "true", "False": "false"}
    lines = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        value = words.get(value.strip(), value.strip())
        if value.startswith("(") and value.endswith(")"):
            value = f"[{value[1:-1]}]"
        lines.append(f"{name}{equals} {value}" if equals else line)
    return "\n".join(lines)


def _arguments_text(value: dict[str, Any]) -> str:
    import tomli_w

    return "\n".join(tomli_w.dumps({name: entry}).strip().replace("\n", " ") for name, entry in value.items())


class NumberEditor(Editor):
    """A number typed as text, with small arrows and the keys Up and Down. Empty is None where that is allowed."""

    def __init__(
        self, kind: type = int, *, step: float = 1, bounds: dict[str, float] | None = None, empty: str | None = None,
        arrows: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self._kind, self._step, self._bounds, self._empty = kind, step, bounds or {}, empty
        self.edit = _NumberField(placeholderText=empty or "")
        self.edit.textEdited.connect(lambda _: self.edited.emit(self.value()))
        self.edit.stepped.connect(self._move)
        self.edit.setFont(theme.font())
        self.line.addWidget(self.edit)
        self.line.setSpacing(theme.px(2))
        if arrows:
            self.edit.setFixedWidth(theme.px(112))
            self._add_arrows()
        else:
            self.edit.setFixedWidth(theme.px(160))
        self.line.addStretch(1)

    def _add_arrows(self) -> None:
        for name, icon, sign in ((tr("Less"), "minus", -1), (tr("More"), "plus", 1)):
            button = QToolButton(icon=theme.icon(icon, "muted"), autoRepeat=True, toolTip=name, accessibleName=name)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keys Up and Down do the same
            button.setIconSize(QSize(theme.px(14), theme.px(14)))
            button.clicked.connect(lambda _=False, sign=sign: self._move(sign))
            self.line.addWidget(button)

    def value(self) -> Any:
        return parse_number(self.edit.text(), self._kind, self._empty is not None)

    def set_value(self, value: Any) -> None:
        if value != self.value() or (isinstance(value, str) and value != self.edit.text()):
            self.edit.setText(number_text(value))

    def field(self) -> QWidget:
        return self.edit

    def _move(self, sign: int) -> None:
        value = self.value()
        if not isinstance(value, int | float):
            value = 0 if value is None else None
        if value is None:
            return
        self.edit.setText(number_text(self._bounded(value + sign * self._step)))
        self.edited.emit(self.value())

    def _bounded(self, value: float) -> float:
        """The nearest value within the bounds (an open bound is not stepped onto)."""
        value = round(value, 10)
        low = self._bounds.get("ge", self._bounds["gt"] + self._step if "gt" in self._bounds else None)
        high = self._bounds.get("le", self._bounds["lt"] - self._step if "lt" in self._bounds else None)
        value = value if low is None else max(low, value)
        value = value if high is None else min(high, value)
        return self._kind(value)


def parse_number(text: str, kind: type, optional: bool) -> Any:
    """The number in `text`, None for an empty one where that is allowed, else the text itself."""
    text = text.strip()
    if not text:
        return None if optional else ""
    try:
        return int(text) if kind is int else float(text.replace(",", "."))
    except ValueError:
        return text


def number_text(value: Any) -> str:
    """A number as people write it: 1e-4 rather than 0.0001, 8 rather than 8.0."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 0.01 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.10g}"


class SeedEditor(NumberEditor):
    """A seed with a die."""

    def __init__(self, bounds: dict[str, float]) -> None:
        super().__init__(int, bounds=bounds, arrows=False)
        name = tr("Roll a new seed")
        self.die = QToolButton(icon=theme.icon("dices"), toolTip=name, accessibleName=name)
        self.die.clicked.connect(self._roll)
        self.line.insertWidget(1, self.die)

    def _roll(self) -> None:
        self.edit.setText(str(random.randrange(2**32)))
        self.edited.emit(self.value())


class SizeEditor(TextEditor):
    """A size such as "512" (a square) or "768, 512" (width, height)."""

    def __init__(self) -> None:
        super().__init__(placeholder=tr("such as 512 or 768, 512"))
        self.edit.setMaximumWidth(theme.px(160))
        self.line.addStretch(1)

    def value(self) -> Any:
        return parse_size(self.edit.text())

    def set_value(self, value: Any) -> None:
        if list(value) != self.value() if isinstance(value, list | tuple) else value != self.value():
            self.edit.setText(size_text(value))


def parse_size(text: str) -> Any:
    """[width, height] from "512", "768, 512", "768x512" or "768 × 512", else the text."""
    parts = text.lower().replace("×", ",").replace("x", ",").split(",")
    try:
        sides = [int(part) for part in parts]
    except ValueError:
        return text
    return sides * 2 if len(sides) == 1 else sides


def size_text(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    if len(value) == 2 and value[0] == value[1]:
        return str(value[0])
    return ", ".join(map(str, value))


class Switch(QCheckBox):
    """A check box drawn as a switch."""

    def sizeHint(self) -> QSize:
        text = self.fontMetrics().horizontalAdvance(self.text()) + theme.px(8) if self.text() else 0
        return QSize(theme.px(42) + text, max(theme.px(26), self.fontMetrics().height() + theme.px(4)))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def hitButton(self, pos) -> bool:  # type: ignore[no-untyped-def]
        return self.rect().contains(pos)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width, height = theme.px(36), theme.px(20)
        top = (self.height() - height) / 2
        on = self.isChecked()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setOpacity(1.0 if self.isEnabled() else 0.4)
        painter.setBrush(theme.qcolour("accent" if on else "strong_border"))
        painter.drawRoundedRect(1, round(top), width, height, height / 2, height / 2)
        knob = height - theme.px(6)
        left = width - knob - theme.px(2) if on else theme.px(4)
        painter.setBrush(theme.qcolour("on_accent" if on else "card"))
        painter.drawEllipse(left, round(top + theme.px(3)), knob, knob)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(theme.qcolour("accent" if not on else "text"))
            painter.drawRoundedRect(0, round(top) - 1, width + 2, height + 2, height / 2 + 1, height / 2 + 1)
        if self.text():
            painter.setPen(theme.qcolour("text"))
            painter.drawText(self.rect().adjusted(theme.px(44), 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, self.text())


class SwitchEditor(Editor):
    """Yes or no."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = Switch()
        self.line.setContentsMargins(0, theme.px(2), 0, 0)  # in the middle of a field's height, as the label stands
        self.switch.clicked.connect(lambda on: self.edited.emit(bool(on)))
        self.line.addWidget(self.switch)
        self.line.addStretch(1)

    def value(self) -> Any:
        return self.switch.isChecked()

    def set_value(self, value: Any) -> None:
        self.switch.setChecked(value is True)

    def field(self) -> QWidget:
        return self.switch


class ChoiceEditor(Editor):
    """One of a fixed list, with the choice's own help beneath. A value outside the list is shown as it is."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        super().__init__()
        self._choices = tuple(choices)
        self.box = ComboBox(sizeAdjustPolicy=QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.box.setMinimumWidth(theme.px(200))
        for choice in self._choices:
            self.box.addItem(translate_trainer(choice.label), choice.value)
            self.box.setItemData(self.box.count() - 1, translate_trainer(choice.help), Qt.ItemDataRole.ToolTipRole)
        self.box.activated.connect(self._on_activated)
        self.help = label("", "small", wrap=True)
        column = QVBoxLayout()
        column.setSpacing(theme.px(4))
        line = QHBoxLayout()
        line.addWidget(self.box)
        line.addStretch(1)
        column.addLayout(line)
        column.addWidget(self.help)
        self.line.addLayout(column, 1)
        self._show_help()

    def value(self) -> Any:
        return self.box.currentData()

    def set_value(self, value: Any) -> None:
        while self.box.count() > len(self._choices):
            self.box.removeItem(self.box.count() - 1)
        if value not in [choice.value for choice in self._choices]:
            self.box.addItem(str(value), value)
        self.box.setCurrentIndex(self.box.findData(value))
        self._show_help()

    def field(self) -> QWidget:
        return self.box

    def _on_activated(self, _: int) -> None:
        self._show_help()
        self.edited.emit(self.value())

    def _show_help(self) -> None:
        text = next((choice.help for choice in self._choices if choice.value == self.value()), "")
        self.help.setText(translate_trainer(text))
        self.help.setVisible(bool(text))


class ColourEditor(TextEditor):
    """A colour as #rrggbb, with a swatch that opens a colour dialog."""

    def __init__(self) -> None:
        super().__init__(placeholder="#ffffff")
        self.edit.setFixedWidth(theme.px(112))
        name = tr("Choose a colour")
        self.swatch = QToolButton(toolTip=name, accessibleName=name)
        self.swatch.clicked.connect(self._choose)
        self.line.addWidget(self.swatch)
        self.line.addStretch(1)
        self.edit.textChanged.connect(self._paint_swatch)

    def _paint_swatch(self, text: str) -> None:
        picture = QPixmap(theme.px(20), theme.px(20))
        picture.fill(QColor(text) if QColor.isValidColorName(text) else QColor(Qt.GlobalColor.transparent))
        self.swatch.setIcon(picture)

    def _choose(self) -> None:
        dialog = QColorDialog(QColor(self.edit.text()), self)
        dialog.colorSelected.connect(self._take)
        dialog.open()

    def _take(self, chosen: QColor) -> None:
        self.edit.setText(chosen.name())
        self.edited.emit(self.value())


class DeviceEditor(Editor):
    """Automatic, the CPU, or a card by its name; names come from the window once they are known."""

    def __init__(self) -> None:
        super().__init__()
        self.box = ComboBox(editable=True, insertPolicy=QComboBox.InsertPolicy.NoInsert)
        self.box.setMinimumWidth(theme.px(200))
        self.box.addItem(tr("Automatic"), "auto")
        self.box.addItem(tr("CPU"), "cpu")
        self.box.activated.connect(lambda _: self.edited.emit(self.value()))
        edit = self.box.lineEdit()
        assert edit is not None
        edit.textEdited.connect(lambda _: self.edited.emit(self.value()))
        self.line.addWidget(self.box)
        self.line.addStretch(1)

    def set_cards(self, names: Sequence[str]) -> None:
        value = self.value()
        while self.box.count() > 2:
            self.box.removeItem(2)
        for name in names:
            self.box.addItem(name, name)
        self.set_value(value)

    def value(self) -> Any:
        text = self.box.currentText().strip()
        index = self.box.findText(text)
        return text if index < 0 else self.box.itemData(index)

    def set_value(self, value: Any) -> None:
        if value == self.value():
            return
        index = self.box.findData(value)
        self.box.setCurrentIndex(index)
        if index < 0:
            self.box.setEditText(str(value))

    def field(self) -> QWidget:
        return self.box
