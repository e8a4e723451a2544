"""The WD taggers by SmilingWolf (v2 and v3), as ONNX files in a local folder: booru tags for drawn pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from captioners.catalog import Card, PictureInput
from captioners.common.tags import Category, Label, TagSettings
from trainer.errors import BadInput
from trainer.messages import say

if TYPE_CHECKING:
    from captioners.base import Captioner

MODEL, LABELS = "model.onnx", "selected_tags.csv"
CATEGORIES: dict[str, Category] = {"0": "general", "4": "character", "9": "rating"}
LFS_POINTER = b"version https://git-lfs"
PICTURE = PictureInput("NHWC", "BGR", size=448)


def check(folder: Path) -> None:
    """Raise BadInput unless `folder` has both files and they are what their names say, by their first bytes."""
    if not folder.is_dir():
        raise BadInput(
            say("There is no folder {folder}.", folder=str(folder)),
            say("Choose the folder that holds {model} and {labels}.", model=MODEL, labels=LABELS),
        )
    for name in (MODEL, LABELS):
        path = folder / name
        if not path.is_file():
            raise BadInput(
                say("{folder} has no {file}.", folder=str(folder), file=name),
                say(
                    "Put {model} and {labels} of one model into one folder: both are on the model's page, among "
                    "its files.",
                    model=MODEL,
                    labels=LABELS,
                ),
            )
        _check_start(path)


def read_labels(path: Path) -> list[Label]:
    """The tags of selected_tags.csv in the order of the model's outputs. Raises BadInput if it is no such list."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
        # Other categories than these three are tags of no known kind: general is the honest guess.
        labels = [Label(row["name"], CATEGORIES.get(row["category"], "general")) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise _not_a_list(path) from error
    if not labels or any(not label.name for label in labels):
        raise _not_a_list(path)
    return labels


def load(folder: Path, settings: TagSettings, device: str) -> Captioner:
    """Open the tagger in `folder`; raises BadInput."""
    from captioners.common.onnx_tagger import OnnxTagger

    check(folder)
    return OnnxTagger(folder / MODEL, read_labels(folder / LABELS), PICTURE, settings, device=device)


def _check_start(path: Path) -> None:
    try:
        with path.open("rb") as handle:
            start = handle.read(64)
    except OSError as error:
        raise BadInput(
            say("{file} cannot be read ({reason}).", file=str(path), reason=error.strerror or ""),
            say("Check that you may read the file."),
        ) from error
    if start.startswith(LFS_POINTER):
        raise BadInput(
            say("{file} is not the file itself but a note of where Git keeps it.", file=str(path)),
            say("Run git lfs pull in that folder, or download the file from the model's page."),
        )
    if not start or start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise BadInput(
            say("{file} is empty or a web page: the download went wrong.", file=str(path)),
            say("Download the file itself from the model's page."),
        )


def _not_a_list(path: Path) -> BadInput:
    return BadInput(
        say("{file} is not a list of tags with the columns name and category.", file=str(path)),
        say("Download {labels} from the model's page again.", labels=LABELS),
    )


CARD = Card(
    name="wd14",
    title=say("WD tagger"),
    summary=say(
        "Tags drawn pictures with booru words (long hair, smile, outdoors). Needs a folder with {model} and {labels} "
        "of one of SmilingWolf's taggers, v2 or v3.",
        model=MODEL,
        labels=LABELS,
    ),
    files=(MODEL, LABELS),
    settings=TagSettings,
    check=check,
    load=load,
    picture=PICTURE,
)
