"""The longest stretch for which the window's thread hears nobody: `python -m tests.benchmarks.stretches [RESULT.json]`.

A timer ticks as fast as the event loop lets it; the longest pause between two ticks is how long a key would have waited.
Processor time of the thread is told too: on a busy machine it says what the clock would on a quiet one.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from app.main_window import MainWindow

STEPS = 100_000
PICTURES, MODELS, PREVIEWS = 10_000, 500, 2_000


@dataclass
class Pulse:
    """The longest pause between ticks in seconds: by the clock, and the most that this thread worked in one.

    (Only the longest: to throw away a list of half a million pauses is one of 40 ms.)
    """

    wall: float = 0.0
    work: float = 0.0
    _last: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        self.wall, self.work, self._last = 0.0, 0.0, (time.perf_counter(), time.thread_time())

    def tick(self) -> None:
        now = time.perf_counter(), time.thread_time()
        self.wall = max(self.wall, now[0] - self._last[0])
        self.work = max(self.work, now[1] - self._last[1])
        self._last = now

    def result(self) -> dict[str, float]:
        """The longest pause, in milliseconds."""
        return {"ms": round(1000 * self.wall, 1), "work_ms": round(1000 * self.work, 1)}


class Watch:
    """Keeps the longest pause of each thing that is done to a window, by name, in milliseconds: `found`."""

    def __init__(self, app: QApplication) -> None:
        from PySide6.QtCore import QTimer

        self.found: dict[str, Any] = {}
        self._app = app
        self._pulse = Pulse()
        self._timer = QTimer(interval=0)
        self._timer.timeout.connect(self._pulse.tick)
        self._timer.start()

    @contextmanager
    def __call__(self, name: str, seconds: float = 0.4, until: Callable[[], object] = lambda: True) -> Iterator[None]:
        """What the block does, and the events of `seconds` after it and until the condition holds."""
        self._pulse.begin()
        yield
        end, latest = time.monotonic() + seconds, time.monotonic() + 60
        while time.monotonic() < end or (not until() and time.monotonic() < latest):
            self._app.processEvents()
        self.found[name] = self._pulse.result()


def stretches() -> dict[str, Any]:
    """What `Watch` finds in a window that is used as a person would."""
    from PySide6.QtWidgets import QApplication

    from app.collector import Collector
    from app.imports import import_plainly

    import_plainly()
    from app.main_window import MainWindow, apply_look
    from app.preferences import Preferences
    from app.work import wait_for_all

    app = QApplication([])
    collector = Collector(app)
    preferences = Preferences()
    preferences.set("language", "en")
    apply_look(preferences)
    window = MainWindow(preferences)
    window.show()
    app.processEvents()
    watch = Watch(app)
    turn_pages(window, watch)
    open_files(window, watch)
    open_a_long_run(window, watch)
    add_many_pictures(window, watch)
    list_many_models(window, watch)
    open_many_previews(window, watch)
    window.close()
    wait_for_all(120)  # the pool writes into the home
    collector.end()
    return watch.found


def turn_pages(window: MainWindow, watch: Watch) -> None:
    """Every page before it is built, as fast as a person could, and after."""
    from app.pages import PAGES

    for key in PAGES:
        with watch(f"first visit: {key}"):
            window.open_page(key)
    with watch("language, theme and scale (a change may take longer)", 0.1):
        window.rebuild()
    with watch("pages built while idle", 3.0):
        pass
    for key in PAGES:
        with watch(f"opened: {key}"):
            window.open_page(key)


def open_files(window: MainWindow, watch: Watch) -> None:
    """Run files, tools, models; and a key typed."""
    from trainer.paths import RESOURCES

    ember = RESOURCES / "demo" / "ember.safetensors"
    with watch("a run file opened", 1.0):
        window.context.try_example()
    with watch("a tool's form opened"):
        window.page("tools").choose("merge")  # type: ignore[attr-defined]
    with watch("what a file says opened", 1.0):
        window.page("tools").look(ember)  # type: ignore[attr-defined]
    window.page("model")
    with watch("the base model's page opened"):
        pass
    with watch("a base model chosen", 1.0):
        window.draft.set("model.path", str(ember))
    with watch("a key typed"):
        window.draft.set("network.rank", 24)


def open_a_long_run(window: MainWindow, watch: Watch) -> None:
    folder = long_run(Path(os.environ["ATHANOR_HOME"]) / "runs")
    runs = window.starter.runs()
    window.open_page("run")
    with watch("the run's page, after the window stood still for the making of a long run", 1.0):
        pass
    name = f"a run of {STEPS:,} steps opened"
    began = time.perf_counter()
    with watch(name, 0.5, lambda: runs.current is not None and runs.current.is_read):
        runs.open(folder)
    watch.found[name]["seconds"] = round(time.perf_counter() - began - 0.5, 2)
    for number in range(3):
        with watch(f"smoothing and log scale moved ({number + 1})"):
            plot = window.page("run").plot  # type: ignore[attr-defined]
            plot.smoothing.setValue(20 + 30 * number)
            plot.log_switch.toggle()


def add_many_pictures(window: MainWindow, watch: Watch) -> None:
    folder = many_pictures(Path(os.environ["ATHANOR_HOME"]) / "many")
    draft, folders = window.draft, window.page("images").folders  # type: ignore[attr-defined]
    with watch(f"a folder of {PICTURES:,} pictures added", 0.5, lambda: folders.cards[-1].report is not None):
        folders.add_paths([str(folder)])
    with watch(f"{PICTURES:,} pictures checked", 0.5, lambda: draft.is_checked):
        draft.check_again()
    with watch(f"{PICTURES:,} pictures: repeats typed", 0.5, lambda: draft.is_checked):
        draft.set(f"images.folders[{len(folders.entries)}].repeats", 7)


def list_many_models(window: MainWindow, watch: Watch) -> None:
    window.preferences.set("export_targets", [str(many_models(Path(os.environ["ATHANOR_HOME"]) / "webui"))])
    models = window.page("model").list  # type: ignore[attr-defined]
    with watch(f"{MODELS} models of a program listed", 1.0, lambda: models._items and not models._unknown):
        models.look()
    for word in "number 4", "":
        with watch(f"{MODELS} models searched: “{word}”"):
            models.search.setText(word)


def open_many_previews(window: MainWindow, watch: Watch) -> None:
    folder = many_previews(Path(os.environ["ATHANOR_HOME"]) / "runs")
    runs = window.starter.runs()
    page: Any = window.page("run")
    with watch(f"a run with {PREVIEWS:,} previews opened", 1.0, lambda: runs.current is not None and runs.current.is_read):
        runs.open(folder)
    with watch(f"{PREVIEWS:,} previews drawn", 0.5):
        window.open_page("run")
        page._scroll.ensureWidgetVisible(page.pictures.area)
    for place in 0.0, 0.5:
        with watch(f"{PREVIEWS:,} previews scrolled to {place:.0%}"):
            bar = page.pictures.area.horizontalScrollBar()
            bar.setValue(round(place * bar.maximum()))
    with watch(f"{PREVIEWS:,} previews in the gallery", 1.0):
        window.open_page("gallery")


def many_pictures(folder: Path) -> Path:
    """A folder of PICTURES small pictures with captions."""
    folder.mkdir()
    data = picture(64)
    for number in range(PICTURES):
        (folder / f"{number}.png").write_bytes(data)
        (folder / f"{number}.txt").write_text("a cat, sitting", encoding="utf-8")
    return folder


def many_models(folder: Path) -> Path:
    """A WebUI's folder with MODELS names of one model."""
    from trainer.paths import RESOURCES

    (folder / "modules").mkdir(parents=True)
    (folder / "webui.py").touch()
    models = folder / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    first = models / "model number 0.safetensors"
    shutil.copy(RESOURCES / "demo" / "ember.safetensors", first)
    for number in range(1, MODELS):
        os.link(first, models / f"model number {number}.safetensors")
    return folder


def many_previews(parent: Path) -> Path:
    """A finished run with four previews at each step, PREVIEWS in all; returns its folder."""
    from tests.fake_worker import run_of
    from trainer.config.files import write_run
    from trainer.ipc import events
    from trainer.ipc.journal import Journal
    from trainer.ipc.runfolder import create

    folder = create(parent, "previews")
    folder.samples.mkdir(exist_ok=True)
    write_run(folder.run_file, run_of())
    steps, data = PREVIEWS // 4, picture(512)
    writer = Journal(folder.journal)
    writer.append(events.Hello(1, 1, 0.0, 0, steps, 100, 1, "cpu"))
    writer.append(events.Plan(steps, 100, 1, 1000, 0, 1, 1, ("unet", "text_encoder")))
    for step in range(steps):
        writer.append(events.Step(step, 1, 0.1, (1e-4, 5e-5), 0.4, 1 << 30))
        for index in range(4):
            file = f"samples/{step}-{index}.png"
            (folder.path / file).write_bytes(data)
            writer.append(events.Sample(step, index, f"prompt number {index}, a cat that sits on a wall", 1, file))
    writer.append(events.Done(steps, "finished", "a.safetensors"))
    writer.close()
    return folder.path


def picture(side: int) -> bytes:
    """A small PNG."""
    from PIL import Image

    made = io.BytesIO()
    Image.new("RGB", (side, side), (200, 90, 20)).save(made, "PNG")
    return made.getvalue()


def long_run(parent: Path) -> Path:
    """A finished run of STEPS steps; returns its folder."""
    import random

    from tests.fake_worker import run_of
    from trainer.config.files import write_run
    from trainer.ipc import events
    from trainer.ipc.journal import Journal, Record, encode
    from trainer.ipc.runfolder import create

    folder = create(parent, "long")
    write_run(folder.run_file, run_of())
    writer = Journal(folder.journal)
    writer.append(events.Hello(1, 1, 0.0, 0, STEPS, 100, STEPS // 100, "cpu"))
    writer.append(events.Plan(STEPS, STEPS // 100, 100, 1000, 0, 1, 1, ("unet", "text_encoder")))
    writer.close()
    dice = random.Random(0)
    with folder.journal.open("ab") as journal:
        for step in range(1, STEPS + 1):
            loss = 0.1 + 1 / step + 0.05 * dice.random()
            event = events.Step(step, step * 100 // (STEPS + 1) + 1, loss, (1e-4, 5e-5), 0.4, 1 << 30)
            journal.write(encode(Record(step + 2, 1.7e9 + step, event)) + b"\n")
        journal.write(encode(Record(STEPS + 3, 1.8e9, events.Done(STEPS, "finished", "a.safetensors"))) + b"\n")
    return folder.path


def main() -> None:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with tempfile.TemporaryDirectory(prefix="athanor-home-") as home:
        os.environ["ATHANOR_HOME"] = home
        found = stretches()
    for name, figures in found.items():
        print(f"{name:<55} {figures['ms']:>7.1f} ms  (of it work {figures['work_ms']:.1f} ms)", figures.get("seconds", ""))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
