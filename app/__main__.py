"""`python -m app [RUN.toml]`: start Qt, the error hook and the window. torch is never imported here."""

from __future__ import annotations

import argparse
import gc
import locale
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def main(arguments: list[str] | None = None) -> int:
    """Open the window; returns when it is closed."""
    options = _parser().parse_args(arguments)
    gc.disable()  # until the `Collector` runs it
    from PySide6.QtWidgets import QApplication

    from app.imports import import_plainly

    import_plainly()
    app = QApplication(sys.argv[:1])
    locale.setlocale(locale.LC_NUMERIC, "C")  # Qt takes the system's; number parsers below us expect the C one
    app.setApplicationName("Athanor")
    app.setDesktopFileName("athanor")
    _own_taskbar_button()
    from app.collector import Collector
    from app.errors import ErrorHook
    from app.main_window import MainWindow, apply_look
    from app.preferences import Preferences

    preferences = Preferences()
    collector = Collector(app)
    apply_look(preferences)
    window = MainWindow(preferences, options.run_file)
    hook = ErrorHook(window)
    hook.install()
    if options.measure_start:
        window.first_painted.connect(lambda: _report_start(app))
    window.show()
    answer = app.exec()
    collector.end()
    return answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="Athanor's window.")
    parser.add_argument("run_file", nargs="?", type=Path, help="a run file to open")
    parser.add_argument(
        "--measure-start", action="store_true", help="print the seconds from the start to the first paint, and end"
    )
    return parser


def _report_start(app) -> None:  # type: ignore[no-untyped-def]
    print(f"{time.perf_counter() - STARTED:.3f}", flush=True)  # noqa: T201
    app.exit(0)


def _own_taskbar_button() -> None:
    """On Windows the button would otherwise be Python's."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.shell32.SetCurrentProcessExplicitAppUserModelID("Athanor.Window")


if __name__ == "__main__":
    sys.exit(main())
