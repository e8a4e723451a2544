"""Base model and Tools page in the states that one rarely sees: nothing is cut, in a small window and at twice the size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from app.main_window import MainWindow, apply_look
from app.pages.model import ModelPage
from app.pages.tools import ToolsPage
from app.preferences import Preferences
from app.tool_jobs import Job
from app.widgets.metadata_view import MetadataView
from app.widgets.strip import Strip
from tests.app.conftest import Wait, close
from tests.app.model_page import chosen
from tests.app.model_page import sd1 as sd1
from tests.app.model_page import sdxl as sdxl
from tests.app.model_page import tiny as tiny
from tests.app.test_metadata_view import write as write_lora
from tests.app.test_window import cut_when_settled, lacks_room
from tests.fake_worker import run_of
from tests.models import shapes
from tests.models.shapes import Shapes
from trainer.config.files import write_run
from trainer.ipc import events
from trainer.ipc.journal import Journal
from trainer.ipc.runfolder import create
from trainer.messages import say
from trainer.models.keys import LDM_CLIP, LDM_VAE
from trainer.tools.catalog import TOOLS

LOOKS = [("en", 100, 1024, 700), ("zh_CN", 100, 1024, 700), ("en", 200, 1024, 700), ("zh_CN", 200, 1024, 700)]


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]} {look[1]} %")
def window(app: QApplication, request: pytest.FixtureRequest) -> Iterator[MainWindow]:
    language, scale, width, height = request.param
    preferences = Preferences()
    for key, value in (("language", language), ("scale", scale), ("theme", "light")):
        preferences.set(key, value)
    apply_look(preferences)
    made = MainWindow(preferences)
    made.resize(width, height)
    made.show()
    yield made
    close(made)
    theme.apply("light", 100)


def test_every_base_model(
    app: QApplication, window: MainWindow, tmp_path: Path, sd1: Shapes, sdxl: Path, wait: Wait
) -> None:
    page = window.page("model")
    assert isinstance(page, ModelPage)
    folder = tmp_path / "a rather long name of a folder 测试 空格(1)"
    folder.mkdir()
    (folder / "broken.safetensors").write_bytes(b"PK\x03\x04")
    models = [
        sdxl,
        shapes.write(folder / "v2-1_768-nonema-pruned.safetensors", shapes.sd2(sd1)),
        shapes.write(folder / "refiner.safetensors", shapes.refiner(sd1)),
        shapes.write(folder / "bare.safetensors", shapes.without(shapes.without(sd1, LDM_VAE), LDM_CLIP)),
        write_lora(folder / "l.safetensors", {"ss_network_module": "networks.lora", "ss_network_dim": "128"}),
        folder / "broken.safetensors",
        "someone/a-model-with-a-rather-long-name-on-the-hub-v1-5-pruned",
    ]
    for model in models:
        chosen(page, model, wait)
        assert not cut_when_settled(window, "model", app)


def test_every_tool_and_job(app: QApplication, window: MainWindow, sdxl: Path, wait: Wait) -> None:
    page = window.page("tools")
    assert isinstance(page, ToolsPage)
    for name in TOOLS:
        page.choose(name)
        form = page.whole_form()
        form.take_files([str(sdxl)])
        form.settings()
        assert not cut_when_settled(window, "tools", app)
    subject = "a-long-name-of-a-model.safetensors, another-long-name.safetensors → both.safetensors"
    failed = Job(say("Merge models"), subject, ("no-such-command",))
    done = Job(say("Convert"), subject, (), state="done", text="It is there.", outputs=(sdxl,), notes=("A note.",))
    done.makes_model = True
    page.jobs.jobs.append(done)
    page.jobs.add(failed)
    wait(lambda: failed.is_over)
    assert not cut_when_settled(window, "tools", app)


def test_the_viewer_stays_on_the_screen(app: QApplication, window: MainWindow, sdxl: Path, wait: Wait) -> None:
    viewer = MetadataView(window, sdxl)
    viewer.show()
    wait(lambda: viewer.tables)
    room = viewer.screen().availableSize()
    assert viewer.width() <= room.width() and viewer.height() <= room.height()
    viewer.close()


def test_the_strip_leaves_out_what_has_no_place(app: QApplication, window: MainWindow) -> None:
    ground = QWidget()
    strip = Strip(window.draft)
    strip.setParent(ground)
    ground.show()
    known = [strip.steps, strip.file_size, strip.free]
    for figure in known:
        figure.show_value("123,456,789")
    strip.problems.setText(" 12 things to choose")
    for width, is_whole in ((theme.px(900), True), (theme.px(500), False), (theme.px(360), False), (theme.px(900), True)):
        strip.problems.show()
        strip.resize(width, strip.height())
        app.processEvents()
        shown = [figure.isVisible() for figure in known]
        assert all(shown) is is_whole and shown == sorted(shown, reverse=True), width
        assert not [made.text() for made in (strip.problems, strip.start) if lacks_room(made)]
    strip.show_progress("a name that somebody has made as long as names may be " * 3, 10, 20_000, 3600.0, 0.123, "saving")
    app.processEvents()
    assert strip.minimumSizeHint().width() <= theme.px(400)
    assert not [made.text() for made in (strip.show_run, strip.stop) if lacks_room(made)]
    ground.close()


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_run_that_is_over(app: QApplication, window: MainWindow, tmp_path: Path, wait: Wait, ends_well: bool) -> None:
    folder = create(tmp_path, "a rather long name of a run 测试")
    write_run(folder.run_file, run_of())
    end = events.Done(20, "finished", "a-long-name-of-a-lora.safetensors") if ends_well else events.Failed(
        say("The loss became not a number at step {step}.", step=20), say("Lower the learning rate.")
    )
    reports = [events.Hello(1, 1, 0.0, 0, 20, 2, 10, "cpu"), events.Plan(20, 10, 2, 100, 0, 1, 1, ("unet",))]
    for step in range(1, 21):
        reports.append(events.Step(step, 1, 0.1 + 1 / step, (1e-4,), 0.4, 3 << 30))
        reports.append(events.Sample(step, 0, "a cat that sits on a wall in the evening light", 1, f"samples/{step}.png"))
    reports.append(events.Saved("final", 20, 2, str(tmp_path / "a-long-name-of-a-lora.safetensors"), 9_000_000))
    journal = Journal(folder.journal)
    for report in (*reports, end):
        journal.append(report)
    journal.close()
    runs, page = window.starter.runs(), window.page("run")
    runs.open(folder.path)
    wait(lambda: runs.current is not None and runs.current.is_read)
    wait(lambda: page.banner.banner is not None)  # type: ignore[attr-defined]
    assert not cut_when_settled(window, "run", app)
