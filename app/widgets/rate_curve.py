"""The learning rates over the run, drawn by hand: both rates, warm-up shaded, restarts marked, values under the mouse."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.editors import number_text
from app.i18n import tr
from app.words import count_words
from trainer.optim.curves import multiplier, restart_steps

HEIGHT = 248
POINTS = 400
KEY_STEP = 8  # design pixels that a key moves the crosshair


@dataclass(frozen=True)
class Curve:
    """What is drawn. `total_steps` is 0 while unknown: the axis then shows the share of the run."""

    schedule: str
    rates: tuple[tuple[str, str, float], ...]  # name, colour, full rate
    total_steps: int = 0
    warmup: int = 0
    cycles: int = 1
    power: float = 1.0
    epoch_ends: tuple[int, ...] = ()

    def rate_at(self, rate: float, step: float) -> float:
        return rate * multiplier(self.schedule, round(step), self.span, self.warmup, self.cycles, self.power)

    @property
    def span(self) -> int:
        return self.total_steps or 1000


class RateCurve(QWidget):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.curve: Curve | None = None
        self._margin = QFontMetricsF(theme.font("small")).horizontalAdvance("0.00e-00") + theme.px(12)
        self._mouse_x: float | None = None
        self.setFixedHeight(theme.px(HEIGHT))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(tr("Learning rates over the run"))

    def show_curve(self, curve: Curve) -> None:
        if curve == self.curve:
            return
        self.curve = curve
        ends = [f"{name}: {number_text(rate)}" for name, _, rate in curve.rates]
        self.setAccessibleDescription(f"{curve.schedule}, {', '.join(ends)}")
        self.update()

    # ---- geometry ----

    def _area(self) -> QRectF:
        left = self._margin
        return QRectF(left, theme.px(28), self.width() - left - theme.px(16), self.height() - theme.px(28 + 28))

    def _x(self, step: float) -> float:
        assert self.curve is not None
        area = self._area()
        return area.left() + area.width() * step / self.curve.span

    def _y(self, rate: float) -> float:
        area = self._area()
        return area.bottom() - area.height() * rate / self._top()

    def _top(self) -> float:
        assert self.curve is not None
        return max((rate for *_, rate in self.curve.rates), default=0.0) * 1.08 or 1.0

    # ---- painting ----

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.curve is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme.font("small"))
        self._paint_warmup(painter, self.curve)
        self._paint_axes(painter, self.curve)
        self._paint_restarts(painter, self.curve)
        for _, colour, rate in self.curve.rates:
            self._paint_rate(painter, colour, rate)
        self._paint_legend(painter, self.curve)
        if self.hasFocus():
            painter.setPen(theme.qcolour("accent"))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), theme.px(4), theme.px(4))
        if self._mouse_x is not None and not self._below_mouse(self._mouse_x):
            self._paint_crosshair(painter, self.curve, self._mouse_x)

    def _paint_warmup(self, painter: QPainter, curve: Curve) -> None:
        if not curve.warmup:
            return
        area = self._area()
        shaded = QRectF(area.left(), area.top(), self._x(min(curve.warmup, curve.span)) - area.left(), area.height())
        painter.fillRect(shaded, theme.qcolour("warning", 0.14))
        text = tr("warm-up")
        painter.setPen(theme.qcolour("warning"))
        if painter.fontMetrics().horizontalAdvance(text) < shaded.width() - theme.px(8):
            painter.drawText(shaded.adjusted(0, theme.px(4), 0, 0), Qt.AlignmentFlag.AlignHCenter, text)

    def _paint_axes(self, painter: QPainter, curve: Curve) -> None:
        area = self._area()
        line = painter.fontMetrics().height()
        if len(curve.epoch_ends) <= 60:
            painter.setPen(QPen(theme.qcolour("border"), 1))
            for end in curve.epoch_ends[:-1]:
                painter.drawLine(QPointF(self._x(end), area.top()), QPointF(self._x(end), area.bottom()))
        for part in range(5):
            rate = self._top() / 1.08 * part / 4
            painter.setPen(QPen(theme.qcolour("border"), 1))
            painter.drawLine(QPointF(area.left(), self._y(rate)), QPointF(area.right(), self._y(rate)))
            painter.setPen(theme.qcolour("muted"))
            place = QRectF(0, self._y(rate) - line / 2, area.left() - theme.px(8), line)
            text = number_text(float(f"{rate:.3g}"))
            painter.drawText(place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)
        for part in range(5):
            step = curve.span * part / 4
            text = count_words(round(step)) if curve.total_steps else f"{25 * part} %"
            width = painter.fontMetrics().horizontalAdvance(text) + 4
            left = min(max(self._x(step) - width / 2, area.left()), area.right() - width + theme.px(12))
            painter.drawText(QRectF(left, area.bottom() + theme.px(6), width, line), Qt.AlignmentFlag.AlignCenter, text)

    def _paint_restarts(self, painter: QPainter, curve: Curve) -> None:
        if curve.schedule != "cosine_with_restarts":
            return
        pen = QPen(theme.qcolour("muted"), theme.px(1), Qt.PenStyle.DashLine)
        area = self._area()
        for step in restart_steps(curve.span, curve.warmup, curve.cycles)[:200]:
            painter.setPen(pen)
            painter.drawLine(QPointF(self._x(step), area.top()), QPointF(self._x(step), area.bottom()))

    def _paint_rate(self, painter: QPainter, colour: str, rate: float) -> None:
        assert self.curve is not None
        curve, area = self.curve, self._area()
        steps = sorted({round(curve.span * n / POINTS) for n in range(POINTS + 1)} | {min(curve.warmup, curve.span)})
        right, up = area.width() / curve.span, area.height() / self._top()
        line = QPolygonF(
            [QPointF(area.left() + step * right, area.bottom() - curve.rate_at(rate, step) * up) for step in steps]
        )
        pen = QPen(theme.qcolour(colour), theme.px(2))
        pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(line)

    def _paint_legend(self, painter: QPainter, curve: Curve) -> None:
        left = self._area().left()
        for name, colour, rate in curve.rates:
            text = f"{name}  {number_text(rate)}"
            painter.setPen(QPen(theme.qcolour(colour), theme.px(3)))
            painter.drawLine(QPointF(left, theme.px(12)), QPointF(left + theme.px(18), theme.px(12)))
            painter.setPen(theme.qcolour("text"))
            width = painter.fontMetrics().horizontalAdvance(text)
            place = QRectF(left + theme.px(24), 0, width + 4, theme.px(24))
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
            left = place.right() + theme.px(20)

    # ---- the mouse ----

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._mouse_x = event.position().x()
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Left and Right move what the mouse moves."""
        moves = {Qt.Key.Key_Left: -KEY_STEP, Qt.Key.Key_Right: KEY_STEP}
        key, area = Qt.Key(event.key()), self._area()
        if key not in moves:
            super().keyPressEvent(event)
            return
        x = area.center().x() if self._mouse_x is None else self._mouse_x
        self._mouse_x = min(area.right(), max(area.left(), x + theme.px(moves[key])))
        self.update()

    def leaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self._mouse_x = None
        self.update()

    def _below_mouse(self, x: float) -> bool:
        area = self._area()
        return not area.left() <= x <= area.right()

    def _paint_crosshair(self, painter: QPainter, curve: Curve, x: float) -> None:
        area = self._area()
        step = round((x - area.left()) / area.width() * curve.span)
        where = tr("step {step}", step=count_words(step)) if curve.total_steps else f"{100 * step // curve.span} %"
        lines = [
            where,
            *(f"{name}  {number_text(float(f'{curve.rate_at(rate, step):.4g}'))}" for name, _, rate in curve.rates),
        ]
        painter.setPen(QPen(theme.qcolour("muted"), 1))
        painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        height = painter.fontMetrics().height()
        width = max(painter.fontMetrics().horizontalAdvance(line) for line in lines) + theme.px(16)
        left = x + theme.px(8) if x + width + theme.px(8) < self.width() else x - width - theme.px(8)
        box = QRectF(left, area.top() + theme.px(8), width, height * len(lines) + theme.px(10))
        painter.setBrush(theme.qcolour("card"))
        painter.setPen(QPen(theme.qcolour("strong_border"), 1))
        painter.drawRoundedRect(box, theme.px(4), theme.px(4))
        painter.setPen(theme.qcolour("text"))
        for number, line in enumerate(lines):
            painter.drawText(QPointF(box.left() + theme.px(8), box.top() + theme.px(4) + height * (number + 0.8)), line)
