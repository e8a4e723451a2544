"""The window's pages: which there are, in which order, and where each setting lives.

A page is a widget whose constructor makes its frame and whose `build()` makes the rest, piece by piece (app/slices.py).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QWidget

from app.i18n import tr

if TYPE_CHECKING:
    from app.pages.base import Context


@dataclass(frozen=True)
class PageRow:
    """One page.

    `places`: the sections or single settings that it edits, as prefixes of places.
    `brings`: modules that the page imports, each a piece of work of its own.
    """

    key: str
    icon: str
    module: str
    kind: str
    places: tuple[str, ...] = ()
    needs_runs: bool = False  # shows runs, and nothing of the draft
    brings: tuple[str, ...] = ()

    def load(self) -> Any:
        """The page's class, imported when it is first needed."""
        return getattr(importlib.import_module(self.module), self.kind)


WIZARD = (
    PageRow(
        "model", "box", "app.pages.model", "ModelPage", ("model.",),
        brings=(
            "trainer.models.weights_file", "trainer.models.folders", "trainer.models.header", "app.widgets.metadata_view",
            "trainer.export_targets", "app.widgets.model_list", "app.widgets.model_parts",
        ),
    ),
    PageRow("images", "images", "app.pages.images", "ImagesPage", ("images.",)),
    PageRow("regularization", "layers", "app.pages.regularization", "RegularizationPage", ("regularization.",)),
    PageRow("network", "network", "app.pages.simple", "NetworkPage", ("network.",)),
    PageRow("optimizer", "gauge", "app.pages.simple", "OptimizerPage", ("optimizer.", "training.seed")),
    PageRow(
        "scheduler", "chart-spline", "app.pages.scheduler", "SchedulerPage",
        ("scheduler.", "training.epochs", "training.steps"),
    ),
    PageRow("noise", "activity", "app.pages.simple", "NoisePage", ("noise.",)),
    PageRow("speed", "cpu", "app.pages.speed", "SpeedPage", ("speed.", "training.batch_size", "training.accumulation")),
    PageRow("samples", "image", "app.pages.samples", "SamplesPage", ("samples.",)),
    PageRow("output", "folder-output", "app.pages.output", "OutputPage", ("output.",)),
    PageRow("review", "list-checks", "app.pages.review", "ReviewPage"),
)  # fmt: skip
BELOW = (
    PageRow(
        "run", "flame", "app.pages.run", "RunPage", needs_runs=True,
        brings=("app.widgets.loss_plot", "app.widgets.run_figures", "app.widgets.run_files", "app.widgets.run_pictures"),
    ),
    PageRow("gallery", "layout-grid", "app.pages.gallery", "GalleryPage", needs_runs=True),
    PageRow(
        "tools", "wrench", "app.pages.tools", "ToolsPage", ("tools.",),
        brings=("trainer.tools.catalog", "app.tool_editors", "app.tool_form", "app.widgets.job_card"),
    ),
    PageRow("settings", "settings", "app.pages.settings", "SettingsPage"),
)  # fmt: skip
PAGES = {row.key: row for row in (*WIZARD, *BELOW)}


def title_of(key: str) -> str:
    """A page's name in the window's language."""
    titles = {
        "model": tr("Base model"),
        "images": tr("Images"),
        "regularization": tr("Regularisation"),
        "network": tr("Network"),
        "optimizer": tr("Optimiser"),
        "scheduler": tr("Scheduler"),
        "noise": tr("Noise and loss"),
        "speed": tr("Speed and memory"),
        "samples": tr("Samples"),
        "output": tr("Output"),
        "review": tr("Review"),
        "run": tr("Runs"),
        "gallery": tr("Gallery"),
        "tools": tr("Tools"),
        "settings": tr("Settings"),
    }
    return titles[key]


def page_of(place: str) -> str:
    """The page on which a place is edited; the review shows what no page knows."""
    for row in PAGES.values():
        if any(place.startswith(prefix) or place == prefix.rstrip(".") for prefix in row.places):
            return row.key
    return "review"


def build(key: str, context: Context) -> QWidget:
    """A page's frame; call its `build()` for the rest. Pages that show runs know nothing of the draft."""
    row = PAGES[key]
    page: QWidget = row.load()(context.runs, context.preferences) if row.needs_runs else row.load()(context)
    return page
