"""Finding the folders that hold pictures: kohya's `<parent>/<repeats>_<words>/`, the inner folder, or any folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainer.data.memo import FileFacts
from trainer.data.pictures import is_picture
from trainer.messages import Message, say

CAPTION_ENDINGS = (".txt", ".caption")


class FolderSetting(Protocol):
    """An entry of the run file's list (`trainer.config.run.Folder` is one)."""

    @property
    def path(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def repeats(self) -> int | None: ...
    @property
    def caption(self) -> str: ...


@dataclass(frozen=True)
class PictureFolder:
    """A folder whose pictures are used: how often an epoch shows each, and the words for those without a caption."""

    path: Path
    repeats: int
    words: str
    pictures: tuple[FileFacts, ...]  # by name
    captions: Mapping[str, Path]  # caption files by name, and by lower-case name where that is another's

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Found:
    """What one entry of the list leads to. `problem` is why it leads to nothing at all."""

    folders: tuple[PictureFolder, ...] = ()
    warnings: tuple[Message, ...] = ()
    problem: Message | None = None


@dataclass(frozen=True)
class _Listing:
    pictures: tuple[FileFacts, ...]
    captions: Mapping[str, Path]
    subfolders: tuple[Path, ...]


def parse_name(name: str) -> tuple[int, str] | None:
    """(repeats, words) of a folder name such as "10_rufus cat"; None where it doesn't begin with a number and "_"."""
    number, underscore, words = name.partition("_")
    if not underscore:
        return (int(number), "") if number.isdecimal() else None
    try:
        return int(number), words.strip()
    except ValueError:
        return None


def list_captions(folder: Path) -> Mapping[str, Path]:
    """The caption files of a folder, by name and by lower-case name, for `caption_file`. Raises OSError."""
    return _list(folder).captions


def caption_file(captions: Mapping[str, Path], picture: Path, extension: str) -> Path | None:
    """The caption beside a picture: with the chosen ending, else with the other usual one; case doesn't matter."""
    for ending in dict.fromkeys((extension, *CAPTION_ENDINGS)):
        for name in (picture.stem + ending, (picture.stem + ending).lower()):
            if name in captions:
                return captions[name]
    return None


def find_folders(setting: FolderSetting) -> Found:
    """The picture folders of one entry: the folder itself if pictures lie in it, else its numbered subfolders.

    The entry's own repeats and words, where given, stand above those in the name. Never raises for what is on the disk.
    """
    path = Path(os.path.expanduser(setting.path.strip()))
    try:
        listing = _list(path)
    except OSError as error:
        return Found(problem=_unreadable(path, error))
    named = {sub: parsed for sub in listing.subfolders if (parsed := parse_name(sub.name)) is not None}
    if listing.pictures and not (named and parse_name(path.name) is None):
        return _itself(setting, path, listing)
    return _inside(setting, path, listing, named)


def _itself(setting: FolderSetting, path: Path, listing: _Listing) -> Found:
    repeats, words = parse_name(path.name) or (1, path.name.strip())
    if repeats < 1 and setting.repeats is None:
        return Found(problem=say("{folder}: 0 repeats in its name mean that it is not used.", folder=path.name))
    folder = PictureFolder(path, setting.repeats or repeats, setting.caption.strip() or words, listing.pictures,
                           listing.captions)  # fmt: skip
    return Found((folder,), tuple(_left_out(sub) for sub in listing.subfolders if _has_pictures(sub)))


def _inside(
    setting: FolderSetting, path: Path, listing: _Listing, named: dict[Path, tuple[int, str]]
) -> Found:
    folders: list[PictureFolder] = []
    warnings: list[Message] = []
    if listing.pictures:
        warnings.append(
            say(
                "{folder}: pictures beside its numbered folders are not used ({count}); "
                "put them into one of those, or into a folder of their own.",
                folder=path.name,
                count=len(listing.pictures),
            )
        )
    for sub in listing.subfolders:
        try:
            inner = _list(sub)
        except OSError as error:
            warnings.append(_unreadable(sub, error))
            continue
        repeats, words = named.get(sub, (0, ""))
        if not inner.pictures:
            if sub in named:
                warnings.append(say("{folder}: there are no pictures in it.", folder=sub.name))
        elif sub not in named:
            warnings.append(_unnumbered(sub))
        elif repeats < 1 and setting.repeats is None:
            warnings.append(say("{folder}: 0 repeats in its name mean that it is not used.", folder=sub.name))
        else:
            folders.append(
                PictureFolder(sub, setting.repeats or repeats, setting.caption.strip() or words, inner.pictures,
                              inner.captions)
            )  # fmt: skip
    problem = None if folders else _nothing(path, warnings)
    return Found(tuple(folders), tuple(warnings), problem)


def _nothing(path: Path, warnings: list[Message]) -> Message:
    if warnings:
        return say("{folder}: no folder in it can be used. {reason}", folder=str(path), reason=str(warnings[0]))
    return say(
        "{folder}: there are no pictures in it. Choose a folder with pictures, a folder named like “10_rufus cat”, "
        "or the folder that holds such folders.",
        folder=str(path),
    )


def _unnumbered(sub: Path) -> Message:
    return say(
        "{folder}: its name doesn't begin with a number of repeats, so it is not used; "
        "rename it like “10_{folder}”, or add it to the list by itself.",
        folder=sub.name,
    )


def _left_out(sub: Path) -> Message:
    return say(
        "{folder}: pictures in this subfolder are not used, as there are pictures beside it; "
        "add it to the list by itself if you want them.",
        folder=f"{sub.parent.name}/{sub.name}",
    )


def _unreadable(path: Path, error: OSError) -> Message:
    if isinstance(error, FileNotFoundError):
        return say("{folder}: this folder does not exist.", folder=str(path))
    if isinstance(error, NotADirectoryError):
        return say("{folder}: this is a file, not a folder; choose the folder that it lies in.", folder=str(path))
    if isinstance(error, PermissionError):
        return say("{folder}: there is no permission to read this folder.", folder=str(path))
    return say("{folder}: this folder can't be read ({detail}).", folder=str(path), detail=error.strerror or str(error))


def _has_pictures(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_picture(entry.name) for entry in entries)
    except OSError:
        return False


def _list(folder: Path) -> _Listing:
    """One reading of a folder: pictures with their facts, possible caption files, subfolders; each sorted by name."""
    pictures: list[FileFacts] = []
    captions: dict[str, Path] = {}
    subfolders: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_picture(entry.name):
                pictures.append(_facts(entry))
            elif entry.name.lower().endswith(CAPTION_ENDINGS):
                captions[entry.name] = Path(entry.path)
            elif _is_folder(entry):
                subfolders.append(Path(entry.path))
    return _Listing(
        tuple(sorted(pictures, key=lambda facts: _by_name(facts.path))),
        {name.lower(): path for name, path in sorted(captions.items())} | captions,
        tuple(sorted(subfolders, key=_by_name)),
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _facts(entry: os.DirEntry[str]) -> FileFacts:
    """The file's size and time; a link that leads nowhere has neither, and is named when it is opened."""
    try:
        status = entry.stat()
    except OSError:
        return FileFacts(Path(entry.path), 0, 0)
    return FileFacts(Path(entry.path), status.st_size, status.st_mtime_ns)


def _by_name(path: Path) -> tuple[str, str]:
    return path.name.casefold(), path.name
