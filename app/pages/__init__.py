"""The window's pages: which there are, in which order, and where each setting lives. A page is built when it is opened."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from app.i18n import tr

if TYPE_CHECKING:
    from app.pages.base import Context


@dataclass(frozen=True)
class PageRow:
    """One page. `places`: the sections or single settings that it edits, as prefixes of places."""

    key: str
    icon: str
    module: str
    kind: str
    places: tuple[str, ...] = ()


WIZARD = (
    PageRow("model", "box", "app.pages.model", "ModelPage", ("model.",)),
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
    PageRow("run", "flame", "app.pages.run", "RunPage"),
    PageRow("gallery", "layout-grid", "app.pages.gallery", "GalleryPage"),
    PageRow("settings", "settings", "app.pages.settings", "SettingsPage"),
)
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
        "settings": tr("Settings"),
    }
    return titles[key]


def page_of(place: str) -> str:
    """The page on which a place is edited; the review shows what no page knows."""
    for row in WIZARD:
        if any(place.startswith(prefix) or place == prefix.rstrip(".") for prefix in row.places):
            return row.key
    return "review"


def build(key: str, context: Context) -> QWidget:
    """Build a page. The trainer's run pages know nothing of the draft and are given what they need."""
    row = PAGES[key]
    kind = getattr(importlib.import_module(row.module), row.kind)
    if key in ("run", "gallery"):
        page: QWidget = kind(context.runs, context.preferences)
        return page
    return kind(context)
