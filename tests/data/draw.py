"""Pictures and folders made in a moment, for the data tests."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Entry:
    """A folder of the run file's list."""

    path: str
    enabled: bool = True
    repeats: int | None = None
    caption: str = ""


def pixels(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray[Any, Any]:
    """A picture whose corners differ: red, green, blue and white quarters, a little noise that depends on the seed."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (230, 20, 20)
    picture[: height // 2, width // 2 :] = (20, 230, 20)
    picture[height // 2 :, : width // 2] = (20, 20, 230)
    picture[height // 2 :, width // 2 :] = (230, 230, 230)
    return picture + np.random.default_rng(seed).integers(0, 8, picture.shape, np.uint8)


def save(path: Path, width: int = 96, height: int = 64, seed: int | None = None, **options: Any) -> Path:
    """Save a picture in the format of its ending; each name has its own content unless the seed says otherwise.

    The name is the file's and its folder's: the same in every run, wherever the test's temporary folder lies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number = zlib.crc32("/".join(path.parts[-2:]).encode()) if seed is None else seed
    Image.fromarray(pixels(width, height, number)).save(path, **options)
    return path


def dataset(parent: Path, folders: dict[str, int], captions: bool = False) -> Path:
    """Folders of that many pictures each below `parent`."""
    for name, count in folders.items():
        for number in range(count):
            picture = save(parent / name / f"{number:02}.png")
            if captions:
                picture.with_suffix(".txt").write_text(f"caption {number}, a tag", encoding="utf-8")
    return parent
