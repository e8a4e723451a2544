"""A list of picture folders: cards, a place to drop more, and the histogram of their sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.draft import Draft
from app.i18n import tr
from app.path_editor import choose_path
from app.widgets.basics import Invitation, button, dropped_paths, row
from app.widgets.folder_card import FolderCard


class FolderList(QWidget):
    """The folders of "images" or "regularization".

    Signals:
        reported(): a card has looked through its folder.
    """

    reported = Signal()

    def __init__(
        self, draft: Draft, section: str, invitation: str, try_example: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.draft, self._section = draft, section
        self.place = f"{section}.folders"
        self.setAcceptDrops(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme.px(2 * theme.SPACE))
        actions: list[tuple[str, str, Callable[[], object]]] = [(tr("Choose a folder…"), "primary", self.choose)]
        if try_example is not None:
            actions.append((tr("Try the example"), "", try_example))
        self.invitation = Invitation("image-plus", invitation, tuple(actions), self.add_paths)
        column.addWidget(self.invitation)
        self._cards = QVBoxLayout()
        self._cards.setSpacing(theme.px(1.5 * theme.SPACE))
        column.addLayout(self._cards)
        self.more = QWidget()
        self.add_button = button(tr("Add a folder…"), self.choose, icon="folder-plus")
        again = button(tr("Look again"), self.look_again, role="flat", icon="refresh-cw")
        self.more.setLayout(row(self.add_button, again, None))
        column.addWidget(self.more)
        self.cards: list[FolderCard] = []
        draft.changed.connect(self._on_changed)
        self._rebuild()

    def _entries(self) -> list[dict[str, Any]]:
        entries = self.draft.get(self.place)
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    def _on_changed(self, place: str) -> None:
        if place in ("", self.place) and len(self._entries()) != len(self.cards):
            self._rebuild()

    def _rebuild(self) -> None:
        entries = self._entries()
        while len(self.cards) > len(entries):
            card = self.cards.pop()
            card.hide()
            card.deleteLater()
        while len(self.cards) < len(entries):
            card = FolderCard(self.draft, self._section, len(self.cards) + 1)
            card.removed.connect(self.remove)
            card.reported.connect(self.reported)
            self.cards.append(card)
            self._cards.addWidget(card)
        for card in self.cards:
            card.refresh()
        self.invitation.setVisible(not entries)
        self.more.setVisible(bool(entries))
        self.reported.emit()

    def focus(self) -> None:
        """Give the keyboard to what adds a folder."""
        target = self.add_button if self.cards else self.invitation.buttons[0]
        QTimer.singleShot(0, target, lambda: target.setFocus(Qt.FocusReason.ShortcutFocusReason))

    def choose(self) -> None:
        entries = self._entries()
        start = str(Path(entries[-1]["path"]).parent) if entries else ""
        choose_path(self, lambda path: self.add_paths([path]), folder=True, start=start)

    def add_paths(self, paths: list[str]) -> None:
        """Add folders; of a file, its folder. One that is in the list already is not added again."""
        entries = self._entries()
        known = {str(entry.get("path")) for entry in entries}
        for path in paths:
            folder = str(Path(path) if Path(path).is_dir() else Path(path).parent)
            if folder not in known:
                known.add(folder)
                entries.append({"path": folder, "enabled": True, "repeats": None, "caption": ""})
        self.draft.set(self.place, entries)

    def remove(self, number: int) -> None:
        """Take an entry out of the list (Ctrl+Z brings it back)."""
        entries = self._entries()
        self.draft.set(self.place, entries[: number - 1] + entries[number:])

    def look_again(self) -> None:
        for card in self.cards:
            card.look_again()
        self.draft.check_again()

    def bucket_counts(self) -> dict[tuple[int, int], int]:
        """Pictures by (width, height) over all folders that are in use, repeats counted."""
        counts: Counter[tuple[int, int]] = Counter()
        for card in self.cards:
            if card.report is not None and card.switch.isChecked():
                counts.update({(bucket.width, bucket.height): count for bucket, count in card.report.buckets.items()})
        return dict(counts)

    def picture_folders(self) -> list[Path]:
        """The folders with pictures of all entries in use, for a tagger."""
        return [
            folder.path
            for card in self.cards
            if card.report is not None and card.switch.isChecked()
            for folder in card.report.folders
        ]

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self.add_paths(dropped_paths(event))
