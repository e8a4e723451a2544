"""What tests of the base model page share: the page, files of some families, and choosing one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel

from app.main_window import MainWindow
from app.pages.model import ModelPage
from tests.app.conftest import Wait
from tests.models import shapes
from tests.models.shapes import Shapes
from tests.tiny import save_tiny_file
from trainer.models.header import ModelFacts
from trainer.models.safetensors_file import read_header


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sd1(tiny: Path) -> Shapes:
    return read_header(tiny).shapes


@pytest.fixture
def page(window: MainWindow) -> ModelPage:
    made = window.page("model")
    assert isinstance(made, ModelPage)
    return made


@pytest.fixture
def sdxl(tmp_path: Path, sd1: Shapes) -> Path:
    return shapes.write(tmp_path / "xl.safetensors", shapes.sdxl(sd1))


def chosen(page: ModelPage, path: Path | str, wait: Wait, meant: Path | None = None) -> ModelFacts:
    """Choose a model, and wait until it is recognised. `meant`: where it lies, if not at `path`."""
    page.draft.set("model.path", str(path))
    asked = str(meant or path)
    wait(lambda: page._facts is not None and page._shown is not None and page._shown.path == asked)
    wait(lambda: not page._asks.busy and not page.context.family_defaults._asks.busy)
    assert page._facts is not None
    return page._facts


def chips(page: ModelPage) -> list[str]:
    return [made.text() for made in page.facts_card.chips.findChildren(QLabel) if made.isVisibleTo(page)]
