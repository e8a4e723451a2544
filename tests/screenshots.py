"""Pictures of every page in both languages and themes, for people to look at: python tests/screenshots.py FOLDER.

`--icon` makes the program icon's .png and .ico from its SVG instead. Needs no display (QT_QPA_PLATFORM=offscreen).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("screenshots"))
    parser.add_argument("--pages", nargs="*", help="only these pages")
    parser.add_argument("--languages", nargs="*", default=["en", "zh_CN"])
    parser.add_argument("--themes", nargs="*", default=["light", "dark"])
    parser.add_argument("--scale", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 800])
    parser.add_argument("--run-file", type=Path, help="open this run file first")
    parser.add_argument("--home", type=Path, help="the user folder (with runs to show); an empty one if not given")
    parser.add_argument("--model", type=Path, help="show what this model file says as well")
    parser.add_argument("--icon", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if options.icon:
        make_icon()
        return
    with tempfile.TemporaryDirectory() as empty:
        os.environ["ATHANOR_HOME"] = str(options.home or empty)
        make_screenshots(options)


def make_screenshots(options: argparse.Namespace) -> None:
    from PySide6.QtWidgets import QApplication

    from app.main_window import MainWindow, apply_look
    from app.pages import PAGES
    from app.preferences import Preferences

    app = QApplication([])
    preferences = Preferences()
    preferences.set("language", "en")
    preferences.set("scale", options.scale)
    apply_look(preferences)
    window = MainWindow(preferences, options.run_file)
    window.resize(*options.size)
    window.show()
    options.folder.mkdir(parents=True, exist_ok=True)
    wait(app, 1.5)
    for language in options.languages:
        for theme in options.themes:
            preferences.set("language", language)
            preferences.set("theme", theme)
            window.rebuild()
            for key in options.pages or PAGES:
                window.page(key)
                wait(app, 0.6)
                name = f"{list(PAGES).index(key):02d}-{key}-{language}-{theme}-{options.scale}.png"
                window.grab().save(str(options.folder / name))
                print(options.folder / name)
            if options.model is not None:
                name = f"metadata-{language}-{theme}-{options.scale}.png"
                take_viewer(app, window, options.model, options.folder / name)
    window.close()


def take_viewer(app, window, model: Path, target: Path) -> None:  # type: ignore[no-untyped-def]
    """The metadata viewer with a model file."""
    from app.widgets.metadata_view import MetadataView

    view = MetadataView(window, model)
    view.show()
    wait(app, 1.0)
    view.grab().save(str(target))
    view.close()
    print(target)


def wait(app, seconds: float) -> None:  # type: ignore[no-untyped-def]
    """Let the window work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.processEvents()
        time.sleep(0.01)


def make_icon() -> None:
    from PIL import Image
    from PySide6.QtCore import QSize
    from PySide6.QtGui import QGuiApplication, QIcon

    app = QGuiApplication([])
    folder = ROOT / "resources" / "icons"
    icon = QIcon(str(folder / "athanor.svg"))
    icon.pixmap(QSize(256, 256)).save(str(folder / "athanor.png"))
    sizes = [(side, side) for side in (16, 24, 32, 48, 64, 128, 256)]
    Image.open(folder / "athanor.png").save(folder / "athanor.ico", sizes=sizes)
    del app


if __name__ == "__main__":
    main()
