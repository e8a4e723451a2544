"""What tests of the window stand on: one application, a draft and a window that end with the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from PySide6.QtCore import QCoreApplication, QEvent
from PySide6.QtWidgets import QApplication, QWidget

from app import i18n, theme
from app.draft import Draft
from app.main_window import MainWindow, apply_look
from app.preferences import Preferences
from app.work import wait_for_all


class Wait(Protocol):
    def __call__(self, condition: Callable[[], object], seconds: float = 60) -> None: ...



@pytest.fixture
def app(qapp: QApplication) -> Iterator[QApplication]:
    """The application in English, light, at 100 %."""
    i18n.set_language("en")
    theme.apply("light", 100)
    yield qapp
    wait_for_all()


@pytest.fixture
def wait(app: QApplication) -> Wait:
    """`wait(condition)`: let the window work until the condition holds, a minute at most."""

    def until(condition: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            app.processEvents()
            time.sleep(0.005)

    return until


@pytest.fixture
def draft(app: QApplication, tmp_path: Path) -> Iterator[Draft]:
    made = Draft(tmp_path / "draft.json")
    yield made
    made.flush()
    made.deleteLater()


@pytest.fixture
def window(app: QApplication) -> Iterator[MainWindow]:
    """A window as a newcomer sees it, on an empty user folder."""
    preferences = Preferences()
    preferences.set("language", "en")
    preferences.set("theme", "light")
    preferences.set("said", ["training goes on"])
    apply_look(preferences)
    made = MainWindow(preferences)
    made.show()
    yield made
    close(made)


def close(widget: QWidget) -> None:
    """Close a window and let its pool finish, so that nothing of it reaches the next test."""
    widget.close()
    wait_for_all()
    widget.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
