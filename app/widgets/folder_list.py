"""A list of picture folders: cards, a place to drop more, and the histogram of their sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Signal

from app.draft import Draft
from app.i18n import tr
from app.path_editor import choose_path
from app.slices import Slices
from app.widgets.basics import Invitation, accept_paths, button, dropped_paths, row
from app.widgets.card_list import CardList
from app.widgets.folder_card import FolderCard


class FolderList(CardList):
    """The folders of "images" or "regularization".

    Signals:
        reported(): a card has looked through its folder, or has gone.
    """

    reported = Signal()

    def __init__(
        self,
        draft: Draft,
        section: str,
        slices: Slices,
        invitation: str,
        try_example: Callable[[], object] | None = None,
    ) -> None:
        actions: list[tuple[str, str, Callable[[], object]]] = [(tr("Choose a folder…"), "primary", self.choose)]
        if try_example is not None:
            actions.append((tr("Try the example"), "", try_example))
        empty = Invitation("image-plus", invitation, tuple(actions), self.add_paths)
        self._section = section
        super().__init__(draft, f"{section}.folders", slices, empty, self._card)
        self.setAcceptDrops(True)
        self.add_button = button(tr("Add a folder…"), self.choose, icon="folder-plus")
        again = button(tr("Look again"), self.look_again, role="flat", icon="refresh-cw")
        self.below.setLayout(row(self.add_button, again, None))
        self.cards_changed.connect(self.reported)

    def _card(self, number: int) -> FolderCard:
        made = FolderCard(self.draft, self._section, number)
        made.reported.connect(self.reported)
        return made

    def focus_first(self) -> None:
        """Give the keyboard to what adds a folder."""
        self.focus(self.add_button if self.entries else self.invitation.buttons[0])

    def choose(self) -> None:
        entries = self.entries
        start = str(Path(entries[-1]["path"]).parent) if entries else ""
        choose_path(self.window(), lambda path: self.add_paths([path]), folder=True, start=start)

    def add_paths(self, paths: list[str]) -> None:
        """Add folders; of a file, its folder. One that is in the list already is not added again."""
        entries = self.entries
        known = {str(entry.get("path")) for entry in entries}
        for path in paths:
            folder = str(Path(path) if Path(path).is_dir() else Path(path).parent)
            if folder not in known:
                known.add(folder)
                entries.append({"path": folder, "enabled": True, "repeats": None, "caption": ""})
        self.set_entries(entries)

    def look_again(self) -> None:
        for card in self.cards:
            card.look_again()
        self.draft.check_again()

    def bucket_counts(self) -> dict[tuple[int, int], int]:
        """Pictures by (width, height) over all folders that are in use, repeats counted."""
        counts: Counter[tuple[int, int]] = Counter()
        for card in self._in_use():
            if card.report is not None:
                counts.update({(bucket.width, bucket.height): count for bucket, count in card.report.buckets.items()})
        return dict(counts)

    def picture_folders(self) -> list[Path]:
        """The folders with pictures of all entries in use, for a tagger."""
        return [
            folder.path
            for card in self._in_use()
            if card.report is not None
            for folder in card.report.folders
        ]

    def _in_use(self) -> list[FolderCard]:
        return [card for card in self._built if isinstance(card, FolderCard) and card.switch.isChecked()]

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        accept_paths(event)

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self.add_paths(dropped_paths(event))
