"""The grid of previews: it paints what is in view, and knows what lies under the mouse, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QPoint
from PySide6.QtGui import QImage, QRegion
from PySide6.QtWidgets import QApplication

from app import theme
from app.journal import History
from app.widgets.sample_grid import GridArea, SampleGrid
from tests.app.conftest import Wait
from trainer.ipc.events import Sample
from trainer.ipc.runfolder import RunFolder

STEPS, PROMPTS = 500, 4


@pytest.fixture(params=[100, 130, 200])
def grid(app: QApplication, tmp_path: Path, request: pytest.FixtureRequest) -> SampleGrid:
    theme.apply("light", request.param)
    history = History()
    for step in range(STEPS):
        for index in range(PROMPTS):
            history.samples[step, index] = Sample(step, index, f"prompt {index}", 1, f"samples/{step}-{index}.png")
    made = SampleGrid(112)
    made.show_history(RunFolder(tmp_path), history)
    return made


def test_only_what_is_in_view_is_painted(grid: SampleGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    monkeypatch.setattr(grid, "_draw_cell", lambda painter, place, column, line: drawn.append((column, line)))
    words: list[str] = []
    monkeypatch.setattr("app.widgets.sample_grid.step_words", lambda step: words.append(step) or str(step))
    seen = grid.cell_rect(300, 1).united(grid.cell_rect(302, 2))
    picture = QImage(seen.size(), QImage.Format.Format_RGB32)
    grid.render(picture, QPoint(), QRegion(seen))
    assert set(drawn) == {(column, line) for column in (300, 301, 302) for line in (1, 2)}
    assert words == [300, 301, 302]


def test_the_picture_under_the_mouse_is_found_in_every_column(grid: SampleGrid) -> None:
    for place in (0, 0), (1, 3), (STEPS - 1, PROMPTS - 1):
        middle = grid.cell_rect(*place).center()
        assert grid._at(middle.x(), middle.y()) == place
        assert grid.rect().contains(grid.cell_rect(*place))
    gap = grid.cell_rect(1, 1).bottomRight()
    assert grid._at(gap.x() + 2, gap.y() + 2) is None


def test_the_grid_stays_at_its_newest_column_if_it_was_there(grid: SampleGrid, wait: Wait) -> None:
    area = GridArea(grid)
    area.resize(600, 500)
    area.show()
    bar = area.horizontalScrollBar()
    wait(lambda: bar.maximum() > 0)
    wait(lambda: bar.value() == bar.maximum())
    before, history = bar.maximum(), grid._history

    def draw(step: int) -> None:
        history.samples[step, 0] = Sample(step, 0, "prompt 0", 1, f"samples/{step}-0.png")
        grid.show_history(grid._folder, history)  # type: ignore[arg-type]

    draw(STEPS)
    wait(lambda: bar.maximum() > before)
    assert bar.value() == bar.maximum()
    bar.setValue(40)
    before = bar.maximum()
    draw(STEPS + 1)
    wait(lambda: bar.maximum() > before)
    assert bar.value() == 40
    area.go_to_end()
    assert bar.value() == bar.maximum()
    area.close()
