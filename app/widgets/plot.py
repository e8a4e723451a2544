"""A canvas for curves over the steps of a run: axes with round numbers, a log switch, lines, marks, a crosshair, zoom.

Drawn with QPainter: importing a plot library takes about a second and stops the window meanwhile, and a training needs one
kind of plot. Curves of any length are thinned to the pixels there are, and what does not change while the pointer moves is
kept as a picture: 100,000 steps are drawn in a few milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap

import numpy as np
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QFontMetrics,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
)
from PySide6.QtWidgets import QWidget

from app import theme
from app.journal import Floats, band, thinned

KEY_STEP = 8  # design pixels that a key moves the pointer
ROUNDING, LEAST_SPREAD = 1e-6, 0.005  # shares of a value: what is no change, and the least that the axis shows
MOST_LOOKED_AT = 5000  # values of a faint curve from which the range of the axis is told


@dataclass(frozen=True)
class Curve:
    """A line: x (n,) rising, y (n,) with nan for gaps; `role` names its colour in the theme."""

    name: str
    x: Floats
    y: Floats
    role: str
    width: float = 1.0
    opacity: float = 1.0


@dataclass(frozen=True)
class View:
    """What part of the plane is shown: x from/to, y from/to (of log10 y where the axis is logarithmic), and where."""

    left: float
    right: float
    low: float
    high: float
    area: QRectF

    def to_pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        across = self.area.left() + (x - self.left) / (self.right - self.left) * self.area.width()
        down = self.area.bottom() - (y - self.low) / (self.high - self.low) * self.area.height()
        return across, down

    def x_of(self, pixel: float) -> float:
        return self.left + (pixel - self.area.left()) / max(1.0, self.area.width()) * (self.right - self.left)


class Plot(QWidget):
    """See the module. Drag to look closer at a stretch of steps, double-click for all of them.

    By keys: Left and Right move the pointer, plus looks closer at where it is, minus and Escape show all.

    Signals:
        pointed(float): the pointer is at this step; nan when it has left.
    """

    pointed = Signal(float)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(theme.px(240), theme.px(160))
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.log_scale = False
        self._curves: tuple[Curve, ...] = ()
        self._lines: tuple[float, ...] = ()
        self._marks: tuple[float, ...] = ()
        self._end = 1.0
        self._zoom: tuple[float, float] | None = None
        self._pointer: float | None = None
        self._dragged_from: float | None = None
        self._drawn: QPixmap | None = None  # everything but the pointer, until something changes
        self._view = View(0.0, 1.0, 0.0, 1.0, QRectF())  # that of `_drawn`

    def show_curves(
        self, curves: Sequence[Curve], *, end: float, lines: Sequence[float] = (), marks: Sequence[float] = ()
    ) -> None:
        """Show curves over 0 to `end`, faint vertical `lines` (epochs) and `marks` on the axis (saves)."""
        self._curves, self._lines, self._marks = tuple(curves), tuple(lines), tuple(marks)
        self._end = max(1.0, end)
        self._draw_again()

    def set_log_scale(self, log_scale: bool) -> None:
        self.log_scale = log_scale
        self._draw_again()

    def _draw_again(self) -> None:
        self._drawn = None
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._draw_again()

    def values_at(self, x: float) -> list[tuple[Curve, float, float]]:
        """Each curve with its point nearest to `x`."""
        found = []
        for curve in self._curves:
            if len(curve.x):
                place = int(np.clip(np.searchsorted(curve.x, x), 0, len(curve.x) - 1))
                if place and abs(curve.x[place - 1] - x) < abs(curve.x[place] - x):
                    place -= 1
                found.append((curve, float(curve.x[place]), float(curve.y[place])))
        return found

    def view(self) -> View:
        """What is shown now."""
        if self._drawn is None:
            self._view = self._new_view()
        return self._view

    def _new_view(self) -> View:
        left, right = self._zoom or (0.0, self._end)
        low, high = self._y_range(left, right)
        metrics = QFontMetrics(theme.font("small"))
        margin = metrics.horizontalAdvance("0.0000") + theme.px(10)
        bottom = metrics.height() + theme.px(8)
        top, end = theme.px(6), theme.px(8)
        area = QRectF(margin, top, max(1, self.width() - margin - end), max(1, self.height() - bottom - top))
        return View(left, right, low, high, area)

    # ---- drawing ----

    def paintEvent(self, event: QPaintEvent) -> None:
        view = self.view()
        if self._drawn is None:
            self._drawn = self._draw(view)
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.hasFocus():
            painter.setPen(theme.qcolour("accent"))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), theme.px(4), theme.px(4))
        painter.setClipRect(view.area.adjusted(0, -1, 1, 1))
        self._draw_pointer(painter, view)

    def _draw(self, view: View) -> QPixmap:
        """Axes, curves and marks."""
        made = self._empty_picture()
        painter = QPainter(made)
        painter.setFont(theme.font("small"))
        self._draw_axes(painter, view)
        painter.setClipRect(view.area.adjusted(0, -1, 1, 1))
        self._draw_lines(painter, view)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for curve in self._curves:
            self._draw_curve(painter, view, curve)
        painter.setClipping(False)
        self._draw_marks(painter, view)
        self._draw_names(painter, view)
        painter.end()
        return made

    def _empty_picture(self) -> QPixmap:
        ratio = self.devicePixelRatioF()
        made = QPixmap(self.size() * ratio)
        made.setDevicePixelRatio(ratio)
        made.fill(Qt.GlobalColor.transparent)
        return made

    def _draw_axes(self, painter: QPainter, view: View) -> None:
        grid, words = QPen(theme.qcolour("border")), QPen(theme.qcolour("muted"))
        metrics = painter.fontMetrics()
        height = metrics.height()
        for value, text in self._y_ticks(view):
            _, y = view.to_pixels(np.zeros(1), np.array([value]))
            painter.setPen(grid)
            painter.drawLine(QPointF(view.area.left(), y[0]), QPointF(view.area.right(), y[0]))
            painter.setPen(words)
            place = QRectF(0, y[0] - height / 2, view.area.left() - theme.px(6), height)
            painter.drawText(place, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), text)
        painter.setPen(words)
        widest = metrics.horizontalAdvance(f"{int(view.right):,}") * 2
        for value in round_ticks(view.left, view.right, max(2, int(view.area.width() / max(1, widest)))):
            x, _ = view.to_pixels(np.array([value]), np.zeros(1))
            text = f"{value:,.0f}" if view.right - view.left > 4 else f"{value:g}"
            width = metrics.horizontalAdvance(text)
            left = min(max(x[0] - width / 2, 0), self.width() - width)
            painter.drawText(QPointF(left, view.area.bottom() + metrics.ascent() + theme.px(5)), text)

    def _draw_lines(self, painter: QPainter, view: View) -> None:
        """Epochs, faint; only as many as can be told apart."""
        inside = [line for line in self._lines if view.left <= line <= view.right]
        if len(inside) > view.area.width() / theme.px(12):
            return
        painter.setPen(QPen(theme.qcolour("border"), 1))
        across, _ = view.to_pixels(np.array(inside), np.zeros(len(inside)))
        top, bottom = view.area.top(), view.area.bottom()
        painter.drawLines([QLineF(x, top, x, bottom) for x in across.tolist()])

    def _draw_curve(self, painter: QPainter, view: View, curve: Curve) -> None:
        x, y = _between(curve, view.left, view.right)
        width, thick = int(view.area.width()), theme.px(curve.width * 2) / 2
        if len(x) > 4 * width:
            self._draw_band(painter, view, curve, thick)
            return
        x, y = thinned(x, y, 2 * width)
        x, y = view.to_pixels(x, self._scaled(y))
        layer = self._empty_picture()  # the parts cover one another: what is faint is made faint as a whole
        on_layer = QPainter(layer)
        on_layer.setRenderHint(QPainter.RenderHint.Antialiasing)
        on_layer.setPen(QPen(theme.qcolour(curve.role), thick))
        for piece in _unbroken(x, y):
            if len(piece) == 1:
                on_layer.drawEllipse(piece[0], 1.5, 1.5)
            else:  # no polyline: one that is thick and goes up and down takes Qt a second for 2,000 points
                on_layer.drawLines(list(starmap(QLineF, pairwise(piece))))
        on_layer.end()
        painter.setOpacity(curve.opacity)
        painter.drawPixmap(0, 0, layer)
        painter.setOpacity(1.0)

    def _draw_band(self, painter: QPainter, view: View, curve: Curve, thick: float) -> None:
        """A curve with many steps to a pixel: an upright line for each column looks the same, ten times faster."""
        columns = np.arange(int(view.area.width()) + 1, dtype=np.float64)
        edges = view.left + columns / view.area.width() * (view.right - view.left)
        least, greatest = band(curve.x, curve.y, edges)
        across = view.area.left() + columns[:-1] + 0.5
        _, bottom = view.to_pixels(across, self._scaled(least))
        _, top = view.to_pixels(across, self._scaled(greatest))
        joined_top, joined_bottom = top.copy(), bottom.copy()  # each column reaches its neighbour: no gaps where it is steep
        joined_top[1:] = np.fmin(top[1:], bottom[:-1])
        joined_bottom[1:] = np.fmax(bottom[1:], top[:-1])
        known = np.isfinite(top) & np.isfinite(bottom)
        figures = (across[known], joined_top[known] - thick / 2, joined_bottom[known] + thick / 2)
        pen = QPen(theme.qcolour(curve.role, curve.opacity), 1)
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        lines = zip(*(figure.tolist() for figure in figures), strict=True)
        painter.drawLines([QLineF(x, high, x, low) for x, high, low in lines])

    def _draw_marks(self, painter: QPainter, view: View) -> None:
        """Saves, as small triangles on the axis."""
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.qcolour("good"))
        side = theme.px(4)
        for mark in self._marks:
            if not view.left <= mark <= view.right:
                continue
            x, _ = view.to_pixels(np.array([mark]), np.zeros(1))
            bottom = view.area.bottom()
            corners = [QPointF(x[0] - side, bottom), QPointF(x[0] + side, bottom), QPointF(x[0], bottom - 2 * side)]
            painter.drawPolygon(QPolygonF(corners))
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def _draw_names(self, painter: QPainter, view: View) -> None:
        """Which line is which, at the top right, where there are several."""
        if len(self._curves) < 2:
            return
        right, metrics = view.area.right() - theme.px(8), painter.fontMetrics()
        for curve in reversed(self._curves):
            left = right - metrics.horizontalAdvance(curve.name)
            middle = view.area.top() + metrics.height() / 2
            painter.setPen(theme.qcolour("text"))
            place = QRectF(left, view.area.top(), right - left + 1, metrics.height())
            painter.drawText(place, int(Qt.AlignmentFlag.AlignVCenter), curve.name)
            painter.setPen(QPen(theme.qcolour(curve.role, curve.opacity), theme.px(3)))
            painter.drawLine(QPointF(left - theme.px(22), middle), QPointF(left - theme.px(6), middle))
            right = left - theme.px(34)

    def _draw_pointer(self, painter: QPainter, view: View) -> None:
        if self._dragged_from is not None and self._pointer is not None:
            left, right = sorted((self._dragged_from, self._pointer))
            painter.fillRect(QRectF(left, view.area.top(), right - left, view.area.height()), theme.qcolour("accent", 0.15))
            return
        if self._pointer is None or not view.area.left() <= self._pointer <= view.area.right():
            return
        found = self.values_at(view.x_of(self._pointer))
        if not found:
            return
        across, _ = view.to_pixels(np.array([found[0][1]]), np.zeros(1))
        painter.setPen(QPen(theme.qcolour("strong_border"), 1))
        painter.drawLine(QPointF(across[0], view.area.top()), QPointF(across[0], view.area.bottom()))
        for curve, x, y in found:
            shown = self._scaled(np.array([y]))
            if np.isfinite(shown[0]):
                px, py = view.to_pixels(np.array([x]), shown)
                painter.setBrush(theme.qcolour(curve.role))
                painter.drawEllipse(QPointF(px[0], py[0]), theme.px(3), theme.px(3))

    # ---- ranges ----

    def _scaled(self, y: Floats) -> Floats:
        """y as it is drawn: log10 of it where the axis is logarithmic; nan where that is not possible."""
        if not self.log_scale:
            return y
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(y > 0, np.log10(np.where(y > 0, y, 1.0)), np.nan)

    def _y_range(self, left: float, right: float) -> tuple[float, float]:
        """Room for what is shown; single outliers of a faint curve may be cut off (the 1 and 99 per cent decide)."""
        lows, highs = [], []
        for curve in self._curves:
            _, y = _between(curve, left, right)
            faint = curve.opacity < 1 and len(y) > 200
            y = self._scaled(y[:: 1 + len(y) // MOST_LOOKED_AT] if faint else y)
            y = y[np.isfinite(y)]
            if len(y):
                lows.append(_ranked(y, 0.005) if faint else float(y.min()))
                highs.append(_ranked(y, 0.995) if faint else float(y.max()))
        if not lows:
            return (-3.0, 0.0) if self.log_scale else (0.0, 1.0)
        low, high = min(lows), max(highs)
        if not self.log_scale:
            low = min(low, 0.0) if low < 0.5 * high else low
        spread = high - low
        if spread <= ROUNDING * abs(high):
            room = abs(high) * 0.1 or 1.0
        else:
            room = max(spread * 0.05, (LEAST_SPREAD * abs(high) - spread) / 2)
        return (low if low == 0 else low - room), high + room

    def _y_ticks(self, view: View) -> list[tuple[float, str]]:
        """Where the grid lines are (as drawn) and what stands beside them."""
        count = max(2, int(view.area.height() / theme.px(40)))
        if not self.log_scale:
            return [(tick, number_words(tick)) for tick in round_ticks(view.low, view.high, count)]
        if view.high - view.low < 1:
            ticks = round_ticks(10**view.low, 10**view.high, count)
            return [(math.log10(tick), number_words(tick)) for tick in ticks if tick > 0]
        return [(float(power), f"1e{power}") for power in range(math.ceil(view.low), math.floor(view.high) + 1)]

    # ---- pointer ----

    def keyPressEvent(self, event: QKeyEvent) -> None:
        area = self.view().area
        pointer = area.center().x() if self._pointer is None else self._pointer
        moves = {Qt.Key.Key_Left: -KEY_STEP, Qt.Key.Key_Right: KEY_STEP}
        key = Qt.Key(event.key())
        if key in moves:
            self._point(min(area.right(), max(area.left(), pointer + theme.px(moves[key]))))
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            middle, span = self.view().x_of(pointer), (self.view().right - self.view().left) / 4
            self._zoom_to(middle - span, middle + span)
        elif key in (Qt.Key.Key_Minus, Qt.Key.Key_Escape) and self._zoom is not None:
            self._zoom = None
            self._draw_again()
        else:
            super().keyPressEvent(event)

    def _point(self, pixel: float) -> None:
        self._pointer = pixel
        self.pointed.emit(self.view().x_of(pixel))
        self.update()

    def _zoom_to(self, left: float, right: float) -> None:
        left = min(max(0.0, left), self._end - 1)
        self._zoom = (left, min(self._end, max(right, left + 1)))
        self._draw_again()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point(event.position().x())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged_from = event.position().x()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        start, self._dragged_from = self._dragged_from, None
        if start is not None and abs(event.position().x() - start) > theme.px(8):
            view = self.view()
            left, right = sorted((view.x_of(start), view.x_of(event.position().x())))
            self._zoom_to(left, right)
        self.update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self._zoom = None
        self._dragged_from = None
        self._draw_again()

    def leaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self._pointer = None
        self.pointed.emit(math.nan)
        self.update()


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """At most about `count` round numbers between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number_words(value: float) -> str:
    """A number on an axis: 0.125, 1e-04."""
    if value == 0:
        return "0"
    return f"{value:.0e}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.4g}"


def _ranked(values: Floats, share: float) -> float:
    """The value below which that share of the others lies. (np.percentile imports numpy.ma at its first use: 30 ms.)"""
    place = round(share * (len(values) - 1))
    return float(np.partition(values, place)[place])


def _between(curve: Curve, left: float, right: float) -> tuple[Floats, Floats]:
    """The part of a curve between two steps, with a neighbour on each side."""
    start = max(0, int(np.searchsorted(curve.x, left)) - 1)
    stop = int(np.searchsorted(curve.x, right, side="right")) + 1
    return curve.x[start:stop], curve.y[start:stop]


def _points(x: Floats, y: Floats) -> list[QPointF]:
    return [QPointF(across, down) for across, down in zip(x.tolist(), y.tolist(), strict=True)]


def _unbroken(x: Floats, y: Floats) -> list[list[QPointF]]:
    """The points in pixels, in pieces without gaps."""
    known = np.isfinite(y)
    ends = np.flatnonzero(known[1:] != known[:-1]) + 1
    pieces = np.split(np.arange(len(x)), ends)
    return [_points(x[piece], y[piece]) for piece in pieces if len(piece) and known[piece[0]]]
