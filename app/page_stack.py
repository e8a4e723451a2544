"""The pages of the window, each built on its first visit or while the window is idle, in pieces."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QStackedWidget, QWidget

from app.pages import PAGES, build
from app.slices import Slices, Task

if TYPE_CHECKING:
    from app.pages.base import Context

WithRuns = Callable[[Callable[[Any], object]], None]


class PageStack(QStackedWidget):
    """See the module. `with_runs(action)` calls an action as soon as the runs (and numpy) are there."""

    def __init__(self, context: Context, with_runs: WithRuns) -> None:
        super().__init__()
        self._context, self._with_runs = context, with_runs
        self._slices: Slices = context.slices
        self._pages: dict[str, QWidget] = {}
        self._tasks: dict[str, Task] = {}
        self._wanted = ""
        self._nothing = QWidget()
        self.addWidget(self._nothing)

    def open(self, key: str) -> None:
        """Show a page: what is built of it at once, the rest as it comes."""
        self._wanted = key
        if key not in self._pages and PAGES[key].needs_runs and self._context.runs is None:
            self.setCurrentWidget(self._nothing)
            self._with_runs(lambda _: self._show(key))
        else:
            self._show(key)

    def _show(self, key: str) -> None:
        if key == self._wanted:
            page = self._begin(key)
            self._slices.hurry(self._tasks[key])
            self.setCurrentWidget(page)

    def when_built(self, key: str, action: Callable[[QWidget], object]) -> None:
        """Call `action(page)` as soon as the whole page is there."""
        page = self._begin(key)
        self._slices.hurry(self._tasks[key])
        self._tasks[key].when_done(lambda: action(page))

    def whole(self, key: str) -> QWidget:
        """A page, all of it, now."""
        page = self._begin(key)
        self._tasks[key].finish()
        QCoreApplication.sendPostedEvents()  # layouts show what was added to them
        return page

    def build_ahead(self, keys: Sequence[str]) -> None:
        """Build these pages while the window is idle."""
        self._slices.start(self._ahead(keys), first=False)

    def _ahead(self, keys: Sequence[str]) -> Any:
        for key in keys:
            if PAGES[key].needs_runs and self._context.runs is None:
                continue
            for module in PAGES[key].brings:
                importlib.import_module(module)
                yield
            PAGES[key].load()
            yield
            self._begin(key)
            task = self._tasks[key]
            while not task.is_done:
                yield
                task.go_on()
            yield

    def _begin(self, key: str) -> QWidget:
        """The page with its frame; its pieces are begun."""
        if key not in self._pages:
            page: Any = build(key, self._context)
            self._pages[key] = page
            self.addWidget(page)
            self._tasks[key] = self._slices.start(page.build(), first=False)
        return self._pages[key]
