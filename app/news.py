"""What has ended while another page was open: a mark beside its page in the sidebar until the page is visited."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QObject, Signal

What = Literal["done", "failed"]


class News(QObject):
    """See the module. Lives on the window's thread.

    Signals:
        changed(): `marks` is new.
        told(): something has ended, on whatever page.
    """

    changed = Signal()
    told = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.marks: dict[str, What] = {}  # page -> what has ended there
        self._open = ""

    def tell(self, page: str, what: What) -> None:
        """Something of this page has ended; nothing to mark if the page is open. A failure is not covered by a success."""
        if page != self._open and self.marks.get(page) not in (what, "failed"):
            self.marks[page] = what
            self.changed.emit()
        self.told.emit()

    def visit(self, page: str) -> None:
        """This page is open now."""
        self._open = page
        if self.marks.pop(page, None) is not None:
            self.changed.emit()
