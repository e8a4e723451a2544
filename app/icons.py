"""Line icons from `resources/icons`, coloured from the palette and crisp at every scale."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PySide6.QtCore import QByteArray, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QGuiApplication, QIcon, QIconEngine, QPainter, QPixmap

from trainer.paths import RESOURCES

FOLDER = RESOURCES / "icons"


def app_icon() -> QIcon:
    """The furnace, for window and task bar."""
    return QIcon(str(FOLDER / "athanor.svg"))


def svg_text(name: str, colour: str) -> str:
    """The SVG of a line icon with its lines in `colour` (#rrggbb). Raises FileNotFoundError for an unknown name."""
    return _source(name).replace("currentColor", colour)


@lru_cache(maxsize=256)
def _source(name: str) -> str:
    return (FOLDER / f"{name}.svg").read_text(encoding="utf-8")


class _LineIcon(QIconEngine):
    """Draws one SVG in one colour at whatever size it is asked for; in another or faint where the widget is disabled."""

    def __init__(self, name: str, colour: str, disabled: str) -> None:
        super().__init__()
        self._name, self._colour, self._disabled = name, colour, disabled

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        device = painter.device()
        ratio = device.devicePixelRatio() if device is not None else 1.0
        size = QSize(round(rect.width() * ratio), round(rect.height() * ratio))
        painter.drawPixmap(rect, self.pixmap(size, mode, state))

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        if size.isEmpty():
            return QPixmap()
        is_disabled = mode == QIcon.Mode.Disabled
        colour = self._disabled if is_disabled and self._disabled else self._colour
        return _drawn(self._name, colour, size.width(), size.height(), is_disabled and not self._disabled)

    def clone(self) -> QIconEngine:
        return _LineIcon(self._name, self._colour, self._disabled)


@lru_cache(maxsize=1024)
def _drawn(name: str, colour: str, width: int, height: int, faint: bool) -> QPixmap:
    """An icon at one size, in device pixels; drawn once, as reading an SVG takes as long as painting ten buttons."""
    from PySide6.QtSvg import QSvgRenderer

    made = QPixmap(width, height)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setOpacity(0.4 if faint else 1.0)
    renderer = QSvgRenderer(QByteArray(svg_text(name, colour).encode()))
    renderer.render(painter, QRectF(0, 0, width, height))
    painter.end()
    return made


def line_icon(name: str, colour: str, disabled: str = "") -> QIcon:
    """A line icon in `colour`. Pages take `app.theme.icon(name, role)`, which knows the palette.

    `disabled`: its colour where the widget is disabled; "" is the same, faint.
    """
    _source(name)  # an unknown name fails here, not while painting
    return QIcon(_LineIcon(name, colour, disabled))


def line_pixmap(name: str, colour: str, side_px: int) -> QPixmap:
    """A line icon as a square pixmap for labels, in device pixels of the screen."""
    ratio = QGuiApplication.primaryScreen().devicePixelRatio() if QGuiApplication.primaryScreen() else 1.0
    pixmap = QPixmap(_drawn(name, colour, round(side_px * ratio), round(side_px * ratio), False))
    pixmap.setDevicePixelRatio(ratio)
    return pixmap


def write_svg(name: str, colour: str, target: Path) -> None:
    """Write a coloured icon to `target`, for the style sheet, which takes pictures as files only."""
    target.write_text(svg_text(name, colour), encoding="utf-8")
