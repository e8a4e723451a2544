"""Start: check once more, write the run file, hand it to a worker of its own; and what the strip shows of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from app.i18n import tr
from app.widgets.strip import Strip
from app.work import run as in_pool

if TYPE_CHECKING:
    from app.pages.base import Context
    from app.run_folders import Summary
    from app.runs import Runs


class Starter(QObject):
    """Starts the draft's run, and follows the one that goes on for the strip.

    Signals:
        running_changed(): the run that is followed has something new; `show_in` shows it.
        ended(well): it is over by itself, finished or not.
    """

    running_changed = Signal()
    ended = Signal(bool)

    def __init__(self, parent: QObject, context: Context) -> None:
        super().__init__(parent)
        self._context = context
        self._runs: Runs | None = None
        self._wanted: list[Callable[[Runs], object]] = []
        self._waiting = False  # for the checks
        self._is_beginning = False  # a worker is being started
        self._active: Any = None  # the run that was last seen at work
        context.draft.checked.connect(self._go_on)

    # ---- the runs, whose module brings numpy: imported in the pool ----

    def with_runs(self, action: Callable[[Runs], object]) -> None:
        """Call `action(runs)`, now or as soon as they are there."""
        if self._runs is not None:
            action(self._runs)
            return
        self._wanted.append(action)
        if len(self._wanted) == 1:
            in_pool(self, lambda: importlib.import_module("app.runs"), self._make_runs)

    def look_for_runs(self) -> None:
        """At the window's start: show the run that is at work. If none is, numpy is not brought in for it."""
        from app.run_folders import newest_runs, run_places

        places = run_places(self._context.preferences)
        in_pool(self, lambda: newest_runs(places), self._show_at_work)

    def _show_at_work(self, found: list[Summary]) -> None:
        if any(summary.alive for summary in found):
            self.with_runs(lambda runs: runs.show_newest())

    def runs(self) -> Runs:
        """The runs at once."""
        if self._runs is None:
            self._make_runs(importlib.import_module("app.runs"))
        assert self._runs is not None
        return self._runs

    def _make_runs(self, module: Any) -> None:
        if self._runs is None:
            self._runs = module.Runs(self._context.preferences, self)
            self._runs.progressed.connect(self.running_changed)
            self._runs.progressed.connect(self._look_for_end)
            self._runs.current_changed.connect(self._on_begun)
            self._runs.start_failed.connect(self._on_begun)
            self._runs.start_failed.connect(lambda _: self._context.open_page("run"))  # it says why
            self._context.runs = self._runs
        wanted, self._wanted = self._wanted, []
        for action in wanted:
            action(self._runs)

    def close(self) -> None:
        """The window closes; runs go on."""
        self._wanted.clear()
        if self._runs is not None:
            self._runs.close()

    # ---- starting and stopping ----

    @property
    def is_running(self) -> bool:
        """Whether the run that is followed is at work."""
        return self._runs is not None and self._runs.current is not None and self._runs.current.is_active

    def start(self) -> None:
        """Start the draft's run as soon as its checks are complete; with errors, go to the review."""
        if self.is_running:
            self._context.open_page("run")
        elif not self._waiting and not self._is_beginning:
            self._waiting = True
            self._context.draft.check_again()
            self.running_changed.emit()

    def stop(self) -> None:
        """Ask the run to save and end."""
        if self._runs is not None and self._runs.current is not None:
            self._runs.current.stop()

    def _go_on(self) -> None:
        draft = self._context.draft
        if not self._waiting or not draft.is_checked:
            return
        self._waiting = False
        run = draft.run
        if run is not None:
            self._is_beginning = True
            self.with_runs(lambda runs: runs.start(run))
        self.running_changed.emit()
        self._context.open_page("review" if run is None else "run")

    def _on_begun(self, _: object = None) -> None:
        """A run is there, or could not be started."""
        self._is_beginning = False
        self.running_changed.emit()

    def _look_for_end(self) -> None:
        run = self._runs.current if self._runs is not None else None
        before, self._active = self._active, run if run is not None and run.is_active else None
        if run is not None and run is before and run.state in ("finished", "failed", "died"):
            self.ended.emit(run.state == "finished")

    # ---- the strip ----

    def show_in(self, strip: Strip) -> None:
        """Show the run that goes on in the strip, or the draft's figures if none does."""
        run = self._runs.current if self._runs is not None else None
        if run is None or not run.is_active:
            strip.show_draft(is_starting=self._waiting or self._is_beginning)
            return
        history = run.history
        loss = float(history.column(_loss_column())[-1]) if history.num_rows else None
        strip.show_progress(
            run.name,
            history.step,
            history.total_steps,
            history.seconds_left,
            loss,
            stage_words(run.state, history.stage),
        )
        strip.stop.setEnabled(run.state != "stopping")


def _loss_column() -> int:
    from app.journal import LOSS

    return LOSS


def stage_words(state: str, stage: Any) -> str:
    """What a run is doing, in the window's words; "" while it simply trains."""
    states = {"starting": tr("starting"), "paused": tr("paused"), "stopping": tr("saving and ending")}
    if state in states:
        return states[state]
    stages = {
        "downloading": tr("downloading the model"),
        "loading": tr("loading the model"),
        "checking": tr("checking the pictures"),
        "caching": tr("encoding the pictures"),
        "sampling": tr("drawing previews"),
        "saving": tr("saving"),
        "exporting": tr("copying the LoRA"),
    }
    return stages.get(stage.name, "") if stage is not None else ""
