"""What the pages with folders of pictures share: Images and Regularisation."""

from __future__ import annotations

from collections.abc import Callable

from app.pages.base import Page
from app.widgets.folder_list import FolderList


class FoldersPage(Page):
    """A page that begins with a list of folders; jumps to them lead to its first button."""

    folders: FolderList

    def add_folders(
        self, section: str, invitation: str, try_example: Callable[[], object] | None = None
    ) -> FolderList:
        """Put the list of `section` ("images" or "regularization") into the column."""
        self.folders = FolderList(self.draft, section, self.context.slices, invitation, try_example)
        self.add(self.folders)
        return self.folders

    def reveal(self, place: str) -> bool:
        if super().reveal(place):
            return True
        if place.startswith(self.folders.place):
            self.scroll_to(self.folders)
            self.folders.focus_first()
            return True
        return False
