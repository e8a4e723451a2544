"""The pages of the window, each built on its first visit or while the window is idle, in pieces."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QStackedWidget, QWidget

from app.pages import PAGES, build
from app.slices import Pieces, Slices, Task

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
        """Show a page as soon as its frame is there, and the rest of it as it comes."""
        self._wanted = key
        if key in self._pages:
            self._show(key)
        elif PAGES[key].needs_runs and self._context.runs is None:
            self.setCurrentWidget(self._nothing)
            self._with_runs(lambda _: self._slices.hurry(self._begin(key)))
        else:
            self._slices.hurry(self._begin(key))

    def _show(self, key: str) -> None:
        if key == self._wanted:
            self._slices.hurry(self._tasks[key])
            self.setCurrentWidget(self._pages[key])

    def when_built(self, key: str, action: Callable[[QWidget], object]) -> None:
        """Call `action(page)` as soon as the whole page is there."""
        task = self._begin(key)
        self._slices.hurry(task)
        task.when_done(lambda: action(self._pages[key]))

    def built(self, key: str) -> QWidget | None:
        """A page, None if not even its frame is there."""
        return self._pages.get(key)

    def whole(self, key: str) -> QWidget:
        """A page, all of it, now."""
        self._begin(key).finish()
        QCoreApplication.sendPostedEvents()  # layouts show what was added to them
        return self._pages[key]

    def build_ahead(self, done: Callable[[], object] | None = None) -> None:
        """Build all pages while the window is idle, those that show runs only if these are there; then call `done()`."""
        self._slices.start(self._ahead(), done, first=False)

    def _ahead(self) -> Pieces:
        for key, row in PAGES.items():
            if row.needs_runs and self._context.runs is None:
                continue
            task = self._begin(key)
            while not task.is_done:
                task.go_on()
                yield

    def _begin(self, key: str) -> Task:
        """The work that makes a page, under way or done."""
        if key not in self._tasks:
            self._tasks[key] = self._slices.start(self._build(key), first=False)
        return self._tasks[key]

    def _build(self, key: str) -> Pieces:
        """What the page imports, its frame, and what is in it."""
        for module in (*PAGES[key].brings, PAGES[key].module):
            importlib.import_module(module)
            yield
        page: Any = build(key, self._context)
        self._pages[key] = page
        self.addWidget(page)
        self._show(key)
        yield
        yield from page.build()
