"""The Tab key goes through a window as one reads it, in whatever order its parts were made.

Rows are built piece by piece, cards come and go: what was made last would be last for the key too.
"""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLayout, QScrollArea, QStackedWidget, QWidget


def move_focus(root: QWidget, forth: bool) -> bool:
    """Give the keyboard to what comes next (or before) in `root`; False if it is not in there now."""
    order = [widget for widget in in_reading_order(root) if widget.isEnabled()]
    now = QApplication.focusWidget()
    while now is not None and now not in order:
        now = now.parentWidget()
    if now is None:
        return False
    reason = Qt.FocusReason.TabFocusReason if forth else Qt.FocusReason.BacktabFocusReason
    order[(order.index(now) + (1 if forth else -1)) % len(order)].setFocus(reason)
    return True


def in_reading_order(widget: QWidget) -> Iterator[QWidget]:
    """What can be seen in a widget and takes the Tab key, as its layouts have it."""
    if not widget.isVisible():
        return
    if widget.focusPolicy() & Qt.FocusPolicy.TabFocus:
        yield widget  # what lies in it belongs to it
        return
    if isinstance(widget, QStackedWidget):
        inside = [widget.currentWidget()]
    elif isinstance(widget, QScrollArea):
        inside = [widget.widget()]
    elif (layout := widget.layout()) is not None:
        inside = list(_of(layout))
    else:
        inside = []
    for part in inside:
        if part is not None:
            yield from in_reading_order(part)


def _of(layout: QLayout) -> Iterator[QWidget]:
    for place in range(layout.count()):
        item = layout.itemAt(place)
        if item is None:
            continue
        if (widget := item.widget()) is not None:
            yield widget
        elif (inner := item.layout()) is not None:
            yield from _of(inner)
