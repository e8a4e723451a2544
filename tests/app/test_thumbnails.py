"""Thumbnails: read in threads, which must not be the first to use Qt's classes for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication

from app.widgets.thumbnails import ANY_PICTURE, Thumbnails, prepare_reading, read_scaled
from tests.app.conftest import Wait
from trainer.paths import ROOT

RACE = """
import sys, threading
sys.setswitchinterval(1e-6)
from app.widgets.thumbnails import ANY_PICTURE, prepare_reading, read_scaled
prepare_reading()
gate = threading.Barrier(8)
def read():
    gate.wait()
    read_scaled(ANY_PICTURE, 20)
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_pictures_are_read_by_several_threads_at_once(tmp_path: Path) -> None:
    """Without the preparation about one process in four crashed."""
    environment = os.environ | {"ATHANOR_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    codes = [subprocess.run([sys.executable, "-c", RACE], env=environment, check=False).returncode for _ in range(4)]
    assert codes == [0, 0, 0, 0]


def test_a_picture_comes_later_and_is_prepared_for(app: QApplication, wait: Wait) -> None:
    prepare_reading.cache_clear()
    thumbnails = Thumbnails()
    assert prepare_reading.cache_info().currsize == 1
    arrived: list[bool] = []
    assert thumbnails.get(ANY_PICTURE, 20, lambda: arrived.append(True)) is None
    wait(lambda: arrived)
    image = thumbnails.get(ANY_PICTURE, 20, lambda: None)
    assert image is not None and image.height() == 20


def test_no_more_memory_is_taken_than_was_meant(app: QApplication, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.widgets.thumbnails.CACHE_BYTES", 3 * 20 * 20 * 4)
    thumbnails = Thumbnails()
    arrived: list[int] = []
    for side in range(15, 21):
        assert thumbnails.get(ANY_PICTURE, side, lambda side=side: arrived.append(side)) is None
    wait(lambda: len(arrived) == 6)
    kept = [side for _, side in thumbnails._known]
    assert kept == arrived[-len(kept) :] and 2 <= len(kept) <= 4
    assert thumbnails._num_bytes == sum(image.sizeInBytes() for image in thumbnails._known.values())


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_an_empty_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    assert read_scaled(tmp_path / "broken.png", 20).isNull()
    assert read_scaled(tmp_path / "gone.png", 20).isNull()
