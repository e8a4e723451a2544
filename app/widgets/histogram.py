"""The bucket histogram: each size as a small rectangle in its true shape, with the number of pictures."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import theme
from app.i18n import tr

CELL_WIDTH, CELL_HEIGHT, LONGEST = 84, 104, 56


class BucketHistogram(QWidget):
    """Buckets from portrait to landscape; the fuller a bucket, the stronger its colour."""

    def __init__(self) -> None:
        super().__init__()
        self._buckets: list[tuple[int, int, int]] = []
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMouseTracking(True)

    def set_buckets(self, counts: Mapping[tuple[int, int], int]) -> None:
        """Counts (repeats included) by (width, height)."""
        ordered = sorted(counts.items(), key=lambda entry: (entry[0][0] / entry[0][1], entry[0]))
        self._buckets = [(width, height, count) for (width, height), count in ordered]
        words = ", ".join(f"{width}×{height}: {count}" for width, height, count in self._buckets)
        self.setAccessibleName(tr("Buckets"))
        self.setAccessibleDescription(words)
        self.setVisible(bool(self._buckets))
        self.updateGeometry()
        self.update()

    def _columns(self, width: int) -> int:
        return max(1, width // theme.px(CELL_WIDTH))

    def heightForWidth(self, width: int) -> int:
        lines = -(-len(self._buckets) // self._columns(width))
        return lines * theme.px(CELL_HEIGHT)

    def sizeHint(self) -> QSize:
        width = self.width() or theme.px(theme.COLUMN)
        return QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QSize:
        return QSize(theme.px(CELL_WIDTH), self.heightForWidth(self.width() or theme.px(theme.COLUMN)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.updateGeometry()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        most = max((count for *_, count in self._buckets), default=1)
        longest = max((max(width, height) for width, height, _ in self._buckets), default=1)
        columns = self._columns(self.width())
        for number, bucket in enumerate(self._buckets):
            cell = QRectF(
                number % columns * theme.px(CELL_WIDTH), number // columns * theme.px(CELL_HEIGHT),
                theme.px(CELL_WIDTH), theme.px(CELL_HEIGHT),
            )  # fmt: skip
            self._paint_bucket(painter, cell, bucket, most, longest)

    def _paint_bucket(
        self, painter: QPainter, cell: QRectF, bucket: tuple[int, int, int], most: int, longest: int
    ) -> None:
        width, height, count = bucket
        factor = theme.px(LONGEST) / longest
        shape = QRectF(0, 0, width * factor, height * factor)
        area = QRectF(cell.left(), cell.top(), cell.width(), theme.px(LONGEST + 6))
        shape.moveCenter(area.center())
        painter.setPen(theme.qcolour("accent"))
        painter.setBrush(theme.qcolour("accent", 0.12 + 0.6 * count / most))
        painter.drawRoundedRect(shape, theme.px(2), theme.px(2))
        painter.setFont(theme.font("normal", bold=True))
        painter.setPen(theme.qcolour("text"))
        line = painter.fontMetrics().height()
        below = QRectF(cell.left(), area.bottom(), cell.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, str(count))
        painter.setFont(theme.font("small"))
        painter.setPen(theme.qcolour("muted"))
        painter.drawText(below.translated(0, line * 0.95), Qt.AlignmentFlag.AlignCenter, f"{width}×{height}")

    def mouseMoveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        column = int(event.position().x()) // theme.px(CELL_WIDTH)
        number = int(event.position().y()) // theme.px(CELL_HEIGHT) * self._columns(self.width()) + column
        if 0 <= number < len(self._buckets) and column < self._columns(self.width()):
            width, height, count = self._buckets[number]
            text = tr(
                "{count} pictures an epoch are trained at {width}×{height}", count=count, width=width, height=height
            )
            QToolTip.showText(event.globalPosition().toPoint(), text, self)
