"""Small pictures, read and scaled in threads of their own; the window paints grey places until they come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from PySide6.QtCore import QObject, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QImage, QImageReader, QPainter, QPainterPath, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.i18n import tr
from app.work import run
from trainer.paths import RESOURCES

CACHE_BYTES = 256 * 2**20  # of pixels: 64 large previews, or thousands of small pictures
HEIGHT = 76
MOST_SHOWN = 60  # on a line, however wide the window is
ANY_PICTURE = RESOURCES / "icons" / "athanor.png"


class Thumbnails(QObject):
    """Scaled pictures by path and height, the last used kept. Ask on the window's thread."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._known: OrderedDict[tuple[str, int], QImage] = OrderedDict()
        self._num_bytes = 0
        self._asked: dict[tuple[str, int], list[Callable[[], object]]] = {}
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="thumbnails")
        prepare_reading()

    def get(self, path: Path, height_px: int, arrived: Callable[[], object]) -> QImage | None:
        """The picture if it is there (a null image for one that cannot be read); else `arrived()` is called later."""
        key = (str(path), height_px)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        waiting = self._asked.setdefault(key, [])
        waiting.append(arrived)
        if len(waiting) == 1:
            run(self, lambda: read_scaled(path, height_px), lambda image: self._take(key, image), pool=self._pool)
        return None

    def _take(self, key: tuple[str, int], image: QImage) -> None:
        self._known[key] = image
        self._num_bytes += image.sizeInBytes()
        while self._num_bytes > CACHE_BYTES and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._num_bytes -= oldest.sizeInBytes()
        for arrived in self._asked.pop(key, []):
            try:
                arrived()
            except RuntimeError:
                continue  # the widget that asked has gone

    def forget(self) -> None:
        """Read files again that may have changed."""
        self._known.clear()
        self._num_bytes = 0


@cache
def prepare_reading() -> None:
    """Read one picture on the window's thread: PySide finishes a class at its first use, and two threads at once crash."""
    image = read_scaled(ANY_PICTURE, HEIGHT)
    image.scaledToHeight(HEIGHT // 2, Qt.TransformationMode.SmoothTransformation)


def read_scaled(path: Path, height_px: int) -> QImage:
    """A picture scaled to a height, turned as its EXIF says; a null image if it cannot be read. Any thread."""
    reader = QImageReader(str(path))
    reader.setAutoTransform(True)
    size = reader.size()
    if size.isValid() and size.height() > 0:
        turned = bool(reader.transformation().value & 4)
        longest = size.width() if turned else size.height()
        factor = height_px / max(1, longest)
        if factor < 1:
            reader.setScaledSize(QSize(max(1, round(size.width() * factor)), max(1, round(size.height() * factor))))
    image = reader.read()
    if image.isNull() or image.height() <= height_px:
        return image
    return image.scaledToHeight(height_px, Qt.TransformationMode.SmoothTransformation)


_shared: list[Thumbnails] = []


def shared() -> Thumbnails:
    """The one store of the window."""
    if not _shared:
        _shared.append(Thumbnails())
    return _shared[0]


class ThumbnailStrip(QWidget):
    """As many pictures of a folder as fit on a line, and how many more there are."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: list[Path] = []
        self._total = 0
        self.setFixedHeight(theme.px(HEIGHT))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._repaint = QTimer(self, singleShot=True, interval=50)
        self._repaint.timeout.connect(self.update)

    def set_paths(self, paths: Sequence[Path], total: int | None = None) -> None:
        self._paths = list(paths[:MOST_SHOWN])
        self._total = len(paths) if total is None else total
        self.setAccessibleName(tr("{count} pictures", count=self._total))
        self.setVisible(bool(paths))
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        height = self.height()
        left, shown = 0.0, 0
        room = self.width() - theme.px(64)
        for path in self._paths:
            ratio = self.devicePixelRatioF()
            image = shared().get(path, round(height * ratio), self._repaint.start)
            width = height if image is None or image.isNull() else image.width() / image.height() * height
            width = min(width, height * 1.8)
            if left + width > room:
                break
            self._paint_one(painter, QRectF(left, 0, width, height), image)
            left += width + theme.px(6)
            shown += 1
        if shown < self._total:
            painter.setPen(theme.qcolour("muted"))
            place = QRectF(left, 0, theme.px(60), height)
            painter.drawText(
                place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, f"+{self._total - shown}"
            )

    def _paint_one(self, painter: QPainter, place: QRectF, image: QImage | None) -> None:
        shape = QPainterPath()
        radius = theme.px(theme.RADIUS["small"])
        shape.addRoundedRect(place, radius, radius)
        painter.fillPath(shape, theme.qcolour("raised"))
        if image is None:
            return
        if image.isNull():
            side = theme.px(24)
            middle = place.center()
            theme.icon("image-off", "muted").paint(
                painter, round(middle.x() - side / 2), round(middle.y() - side / 2), side, side
            )
            return
        painter.save()
        painter.setClipPath(shape)
        source_width = place.width() / place.height() * image.height()
        source = QRectF((image.width() - source_width) / 2, 0, source_width, image.height())
        painter.drawImage(place, image, source)
        painter.restore()
