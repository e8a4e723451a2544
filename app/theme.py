"""The look in one table of tokens: colours (light and dark), spacings, radii and font sizes, and Qt's palette from them.

No other file names a colour or a size: they ask `colour("accent")`, `px(8)`, `font("small")`. `app/stylesheet.qss` is
the one style sheet, its `@names` filled in from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from PySide6.QtCore import QDir, Qt
from PySide6.QtGui import QColor, QFont, QGuiApplication, QIcon, QPalette, QPixmap
from PySide6.QtWidgets import QApplication

from app import icons
from trainer.temporary import TemporaryFolder


@dataclass(frozen=True)
class Colours:
    """One palette. Text colours have a contrast of at least 4.5 : 1 on every ground they are used on (tested)."""

    ground: str  # behind the cards
    sidebar: str
    card: str
    raised: str  # buttons and hovered rows
    field: str  # where one types
    border: str
    strong_border: str  # of what can be pressed or typed into: 3 : 1
    text: str
    muted: str  # second-rank text
    accent: str  # text, marks, the Start button
    accent_hover: str
    accent_soft: str  # ground of what is chosen
    on_accent: str
    good: str
    good_soft: str
    warning: str
    warning_soft: str
    problem: str
    problem_soft: str
    info: str  # the second line of a plot
    info_soft: str


LIGHT = Colours(
    ground="#f7f5f2",
    sidebar="#efebe6",
    card="#ffffff",
    raised="#f5f2ee",
    field="#ffffff",
    border="#e4ded7",
    strong_border="#948a80",
    text="#231f1c",
    muted="#665e56",
    accent="#b5400b",
    accent_hover="#953409",
    accent_soft="#fbe9de",
    on_accent="#ffffff",
    good="#22703a",
    good_soft="#e4f3e8",
    warning="#855400",
    warning_soft="#fdf1d9",
    problem="#b3261e",
    problem_soft="#fce8e6",
    info="#1f5fa8",
    info_soft="#e3eefa",
)
DARK = Colours(
    ground="#1b1816",
    sidebar="#151311",
    card="#24201d",
    raised="#2f2a26",
    field="#1b1816",
    border="#38322d",
    strong_border="#7d7268",
    text="#efeae4",
    muted="#b3a89d",
    accent="#ff9350",
    accent_hover="#ffab77",
    accent_soft="#46291a",
    on_accent="#231006",
    good="#74cf91",
    good_soft="#1f3526",
    warning="#ecbb5c",
    warning_soft="#3b2f18",
    problem="#ff8f86",
    problem_soft="#45221f",
    info="#7fb4f2",
    info_soft="#1d2f45",
)

SPACE = 8  # the grid
COLUMN = 760  # the widest a page's column of cards becomes
RADIUS = {"small": 4, "normal": 6, "card": 10, "pill": 11}
FONT_SIZES = {"small": 12, "normal": 13, "title": 20}  # three text sizes, in px at 100 %
LATIN_FONTS = ("Segoe UI Variable Text", "Segoe UI", "Inter", "Noto Sans", "Ubuntu", "Cantarell", "Helvetica Neue")
CHINESE_FONTS = ("Microsoft YaHei UI", "Noto Sans CJK SC", "PingFang SC", "Source Han Sans SC", "WenQuanYi Micro Hei")
MONO_FONTS = ("Cascadia Mono", "Consolas", "Noto Sans Mono", "DejaVu Sans Mono", "Menlo")
THEMES = ("system", "light", "dark")
SCALES = (100, 125, 150, 175, 200)


@dataclass
class _State:
    colours: Colours = LIGHT
    dark: bool = False
    scale: float = 1.0
    folder: TemporaryFolder | None = None


_state = _State()


def colour(name: str) -> str:
    """A colour of the palette in force, as #rrggbb. Raises AttributeError for an unknown name."""
    value: str = getattr(_state.colours, name)
    return value


def qcolour(name: str, opacity: float = 1.0) -> QColor:
    """The same as a QColor, with an opacity."""
    value = QColor(colour(name))
    value.setAlphaF(opacity)
    return value


def is_dark() -> bool:
    return _state.dark


def px(size: float) -> int:
    """A length of the design (at 100 %) in the pixels of the scale in force."""
    return round(size * _state.scale)


def font(size: str = "normal", *, bold: bool = False, mono: bool = False) -> QFont:
    """A font of the design: "small", "normal" or "title"; figures are tabular."""
    chosen = QFont(QApplication.font())
    if mono:
        chosen.setFamilies(list(MONO_FONTS + CHINESE_FONTS))
    chosen.setPixelSize(px(FONT_SIZES[size]))
    chosen.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
    chosen.setFeature(QFont.Tag("tnum"), 1)
    return chosen


def icon(name: str, role: str = "text") -> QIcon:
    """A line icon in a colour of the palette in force."""
    # what lies on the accent would not be seen on the ground of a disabled button
    return icons.line_icon(name, colour(role), colour("muted") if role == "on_accent" else "")


def pixmap(name: str, role: str = "text", size: float = 16) -> QPixmap:
    """A line icon as a pixmap of `size` design pixels."""
    return icons.line_pixmap(name, colour(role), px(size))


def apply(theme: str = "system", scale_percent: int = 100, language: str = "en") -> None:
    """Put palette, fonts and style sheet in force. Widgets built before must be built again (colours, sizes).

    Args:
        theme: one of THEMES.
        scale_percent: 100 to 200, on top of the screen's own.
        language: "en" or "zh_CN": whose fonts come first.
    """
    _state.dark = theme == "dark" or (theme == "system" and system_is_dark())
    _state.colours = DARK if _state.dark else LIGHT
    _state.scale = scale_percent / 100
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    if app.style().objectName().lower() != "fusion":
        app.setStyle("Fusion")
    app.setFont(_base_font(language))
    app.setPalette(_palette(_state.colours))
    _write_pictures()
    app.setStyleSheet(_style_sheet())


def system_is_dark() -> bool:
    return QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark


def _base_font(language: str) -> QFont:
    chosen = QFont()
    families = CHINESE_FONTS + LATIN_FONTS if language == "zh_CN" else LATIN_FONTS + CHINESE_FONTS
    chosen.setFamilies(list(families))
    chosen.setPixelSize(px(FONT_SIZES["normal"]))
    chosen.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    return chosen


def _palette(colours: Colours) -> QPalette:
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: colours.ground,
        QPalette.ColorRole.WindowText: colours.text,
        QPalette.ColorRole.Base: colours.field,
        QPalette.ColorRole.AlternateBase: colours.raised,
        QPalette.ColorRole.Text: colours.text,
        QPalette.ColorRole.Button: colours.raised,
        QPalette.ColorRole.ButtonText: colours.text,
        QPalette.ColorRole.ToolTipBase: colours.card,
        QPalette.ColorRole.ToolTipText: colours.text,
        QPalette.ColorRole.PlaceholderText: colours.muted,
        QPalette.ColorRole.Highlight: colours.accent,
        QPalette.ColorRole.HighlightedText: colours.on_accent,
        QPalette.ColorRole.Link: colours.accent,
        QPalette.ColorRole.Accent: colours.accent,
    }
    for role, value in roles.items():
        palette.setColor(role, QColor(value))
        if role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
            palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(colours.muted))
    return palette


_PICTURES = {  # names used in the style sheet -> icon, colour
    "down": ("chevron-down", "muted"),
    "up": ("chevron-up", "muted"),
    "right": ("chevron-right", "muted"),
    "check": ("check", "on_accent"),
}


def _write_pictures() -> None:
    """The few pictures that a style sheet needs as files, in a folder that goes away with the process."""
    folder = TemporaryFolder()
    for name, (source, role) in _PICTURES.items():
        icons.write_svg(source, colour(role), folder.path / f"{name}.svg")
    QDir.setSearchPaths("theme", [str(folder.path)])
    _state.folder = folder


def _style_sheet() -> str:
    """`stylesheet.qss` with `@name` replaced by colours and `12px` by scaled pixels."""
    source = Path(__file__).with_name("stylesheet.qss").read_text(encoding="utf-8")
    source = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    source = re.sub(r"\b(\d+)px\b", lambda found: f"{px(int(found[1]))}px", source)
    names = {f"font_{name}": f"{px(size)}px" for name, size in FONT_SIZES.items()}
    names |= {f"radius_{name}": f"{px(size)}px" for name, size in RADIUS.items()}
    names |= {part.name: colour(part.name) for part in fields(Colours)}
    return re.sub(r"@(\w+)", lambda found: names[found[1]], source)
