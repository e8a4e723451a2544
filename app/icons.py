"""Line icons from `resources/icons`, coloured from the palette and crisp at every scale."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PySide6.QtCore import QByteArray, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QGuiApplication, QIcon, QIconEngine, QImage, QPainter, QPixmap

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
    """Draws one SVG in one colour at whatever size it is asked for; faint where the widget is disabled."""

    def __init__(self, name: str, colour: str) -> None:
        super().__init__()
        self._name, self._colour = name, colour

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        from PySide6.QtSvg import QSvgRenderer

        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if mode == QIcon.Mode.Disabled:
            painter.setOpacity(painter.opacity() * 0.4)
        renderer = QSvgRenderer(QByteArray(svg_text(self._name, self._colour).encode()))
        renderer.render(painter, QRectF(rect))
        painter.restore()

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        image = QImage(size, QImage.Format.Format_ARGB32_Premultiplied)
        image.fill(Qt.GlobalColor.transparent)
        painter = QPainter(image)
        self.paint(painter, image.rect(), mode, state)
        painter.end()
        return QPixmap.fromImage(image)

    def clone(self) -> QIconEngine:
        return _LineIcon(self._name, self._colour)


def line_icon(name: str, colour: str) -> QIcon:
    """A line icon in `colour`. Pages take `app.theme.icon(name, role)`, which knows the palette."""
    _source(name)  # an unknown name fails here, not while painting
    return QIcon(_LineIcon(name, colour))


def line_pixmap(name: str, colour: str, side_px: int) -> QPixmap:
    """A line icon as a square pixmap for labels, in device pixels of the screen."""
    ratio = QGuiApplication.primaryScreen().devicePixelRatio() if QGuiApplication.primaryScreen() else 1.0
    pixmap = _LineIcon(name, colour).pixmap(
        QSize(round(side_px * ratio), round(side_px * ratio)), QIcon.Mode.Normal, QIcon.State.Off
    )
    pixmap.setDevicePixelRatio(ratio)
    return pixmap


def write_svg(name: str, colour: str, target: Path) -> None:
    """Write a coloured icon to `target`, for the style sheet, which takes pictures as files only."""
    target.write_text(svg_text(name, colour), encoding="utf-8")
