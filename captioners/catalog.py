"""What captioners there are, as plain data: the window reads it without onnxruntime, torch or numpy.

Every other module of this folder is a captioner and holds one `CARD`; a new captioner is one new file. The window
shows the cards, starts `python -m captioners` with `arguments(...)` in a process of its own and reads that process's lines
with `captioners.common.events`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import captioners
from trainer.config.fields import Choice, Section, plain_type, setting, settings_of
from trainer.config.options import option_name
from trainer.messages import Message

if TYPE_CHECKING:
    from captioners.base import Captioner

NOT_CAPTIONERS = {"__main__", "base", "catalog", "common"}

Mode = Literal["missing", "append", "prepend", "overwrite"]


@dataclass(frozen=True)
class PictureInput:
    """How a model wants its picture: the picture is put on `background`, padded to a square with it, resized, and each
    8-bit value v becomes v × `scale` + `offset`."""

    layout: Literal["NHWC", "NCHW"]
    colour: Literal["BGR", "RGB"]
    scale: float = 1.0
    offset: float = 0.0
    size: int = 448  # where the model's own input leaves it open
    background: tuple[int, int, int] = (255, 255, 255)


@dataclass(frozen=True)
class Card:
    """One captioner: what it is called, what must lie in its folder, what can be set, and how it is checked and loaded.

    Attributes:
        check: raises BadInput if the folder cannot be a model of this kind; looks at names and first bytes only, so
            a window may call it while the user types.
        load: opens the model with (folder, settings, device); raises BadInput. Only a captioner process calls it.
    """

    name: str
    title: Message
    summary: Message
    files: tuple[str, ...]
    settings: type[Section]
    check: Callable[[Path], None]
    load: Callable[[Path, Any, str], Captioner]
    picture: PictureInput | None = None
    outputs: Literal["probabilities", "logits", "text"] = "probabilities"


class WriteSettings(Section):
    """How captions are written, whichever captioner makes them."""

    mode: Mode = setting(
        "missing",
        "Existing captions",
        "What happens to a picture that has a caption already. Whatever changes a caption copies it first to "
        "captions_backup beside the pictures.",
        choices=(
            Choice("missing", "Leave them alone", "Only pictures without a caption file get one."),
            Choice("append", "Add at the end", "New tags follow the caption; tags it already has are not repeated."),
            Choice("prepend", "Add at the front", "New tags stand before the caption, without repeating its own."),
            Choice("overwrite", "Replace them", "The caption is replaced; the old one stays in captions_backup."),
        ),
    )
    extension: str = setting(
        ".txt",
        "Caption files",
        "The ending of new caption files. An existing .caption file counts as a caption too.",
        level="advanced",
        choices=(Choice(".txt", ".txt"), Choice(".caption", ".caption")),
    )
    dry_run: bool = setting(
        False,
        "Only show",
        "Says what would be written and writes nothing. With scores from an earlier run the answer comes at once.",
        level="advanced",
    )


@cache
def cards() -> Mapping[str, Card]:
    """Every captioner in this folder by name, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(captioners.__path__))
    found = [importlib.import_module(f"captioners.{name}").CARD for name in names if name not in NOT_CAPTIONERS]
    return {card.name: card for card in found}


def arguments(
    name: str,
    model: Path,
    pictures: Sequence[Path],
    settings: Section,
    writing: WriteSettings,
    *,
    device: str = "auto",
) -> list[str]:
    """What follows `python -m captioners` to run a captioner that reports JSON lines.

    Settings at their default are left out. Options may be added in front of the "--" that the pictures follow.
    """
    line = [name, "--json", f"--model={model}", f"--device={device}"]
    for section in (settings, writing):
        line += _options(section)
    return [*line, "--", *(str(path) for path in pictures)]


def _options(section: Section) -> Iterable[str]:
    for key, field, _ in settings_of(type(section)):
        value = getattr(section, key)
        if value == field.get_default():
            continue
        if plain_type(field) is bool:
            yield option_name(key) if value else option_name("no_" + key)
        elif plain_type(field) is tuple:
            yield f"{option_name(key)}={', '.join(value)}"
        else:
            yield f"{option_name(key)}={value}"
