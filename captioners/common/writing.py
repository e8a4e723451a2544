"""Caption files: which picture has one, how new tags join an old caption, and the copy made before anything changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from captioners.catalog import WriteSettings
from captioners.common.tags import tag_key, without_repeats
from trainer.data.captions import first_line, split_tags
from trainer.data.encodings import MAX_BYTES, decode_folder
from trainer.data.folders import caption_file, list_captions
from trainer.errors import RunFailed
from trainer.files import atomic_path, write_text
from trainer.messages import Message, say

BACKUPS = "captions_backup"


@dataclass(frozen=True)
class Written:
    """A caption as its file has it now (in a dry run: would have it), and whether the file was changed."""

    file: Path
    text: str
    changed: bool


@dataclass(frozen=True)
class Plan:
    """Pictures to caption; those left alone since they have a caption; those that cannot have one of their own."""

    todo: tuple[Path, ...]
    kept: tuple[Path, ...]
    skipped: Mapping[Path, Message]


@dataclass
class CaptionFolder:
    """The caption files of one folder, read together, since together they tell their encoding best."""

    path: Path
    files: Mapping[str, Path]
    captions: set[Path] = field(default_factory=set)  # those of `files` that belong to a picture of the run
    backup: Path | None = None  # once something has been copied there

    @cached_property
    def texts(self) -> Mapping[Path, str]:
        """The folder's captions as text. Raises RunFailed if one cannot be read."""
        content: dict[str, bytes] = {}
        for file in self.captions:
            try:
                with file.open("rb") as handle:
                    content[file.name] = handle.read()
            except OSError as error:
                raise RunFailed(
                    say("{file} cannot be read ({reason}).", file=str(file), reason=error.strerror or ""),
                    say("Check that you may read it, or move it away."),
                ) from error
        decoded = decode_folder(content).texts
        return {self.path / name: text for name, text in decoded.items()}

    def file_for(self, picture: Path, extension: str) -> tuple[Path, bool]:
        """The caption file of a picture and whether it exists."""
        existing = caption_file(self.files, picture, extension)
        return (existing, True) if existing else (picture.with_suffix(extension), False)


@dataclass
class CaptionWriter:
    """Writes captions as the settings say, all changes of one run with their backups under one time.

    A caption that exists is only ever changed if the mode says so, and is copied to `captions_backup/<time>/` first.
    """

    settings: WriteSettings
    now: Callable[[], datetime] = datetime.now
    _folders: dict[Path, CaptionFolder] = field(default_factory=dict)

    def plan(self, pictures: Iterable[Path]) -> Plan:
        """Sort the pictures; of several that share one caption file (a.png, a.jpg) only the first is captioned.

        Call it once, before the first `write`. Raises OSError if a picture's folder is gone.
        """
        todo: list[Path] = []
        kept: list[Path] = []
        skipped: dict[Path, Message] = {}
        owners: dict[Path, Path] = {}
        for picture in pictures:
            file, exists = self._file(picture)
            owner = owners.setdefault(file, picture)
            if owner != picture:
                skipped[picture] = say("it shares its caption {file} with {other}", file=file.name, other=owner.name)
            elif exists and self.settings.mode == "missing":
                kept.append(picture)
            elif exists and file.stat().st_size > MAX_BYTES:
                skipped[picture] = say("{file} is too large for a caption and is left alone", file=file.name)
            else:
                todo.append(picture)
                if exists:
                    self._folder(picture).captions.add(file)
        return Plan(tuple(todo), tuple(kept), skipped)

    def write(self, picture: Path, tags: Sequence[str]) -> Written:
        """Give a picture these tags (at least one), in the way of the mode.

        Raises:
            RunFailed: if the file or its backup cannot be written; the old caption then stands as it was.
        """
        file, exists = self._file(picture)
        if not exists and file.exists():  # somebody has written it since the run began
            return Written(file, "", False)
        old = self._folder(picture).texts[file] if exists else ""
        text = merged(old, tags, self.settings.mode) if exists else ", ".join(tags)
        if text.strip() == old.strip():
            return Written(file, old, False)
        if self.settings.dry_run:
            return Written(file, text, False)
        try:
            if exists:
                self._back_up(picture.parent, file)
            write_text(file, text)
        except OSError as error:
            raise RunFailed(
                say("{file} cannot be written ({reason}).", file=str(file), reason=error.strerror or str(error)),
                say("Check the folder's permissions and the free space, then start again: nothing is done twice."),
            ) from error
        return Written(file, text, True)

    @property
    def backups(self) -> tuple[Path, ...]:
        """The folders that hold the captions as they were before this run."""
        return tuple(sorted(folder.backup for folder in self._folders.values() if folder.backup))

    def _file(self, picture: Path) -> tuple[Path, bool]:
        return self._folder(picture).file_for(picture, self.settings.extension)

    def _folder(self, picture: Path) -> CaptionFolder:
        path = picture.parent
        if path not in self._folders:
            self._folders[path] = CaptionFolder(path, list_captions(path))
        return self._folders[path]

    def _back_up(self, folder: Path, file: Path) -> None:
        """Copy `file` as it is, byte by byte, once a run. Raises OSError."""
        entry = self._folders[folder]
        if entry.backup is None:
            entry.backup = self._new_backup(folder)
        if not (entry.backup / file.name).exists():
            with atomic_path(entry.backup / file.name) as temporary:
                shutil.copy2(file, temporary)

    def _new_backup(self, folder: Path) -> Path:
        """A new folder named by the time; two runs in one second get two folders."""
        name = self.now().strftime("%Y-%m-%d_%H-%M-%S")
        number = 1
        while True:
            path = folder / BACKUPS / (name if number == 1 else f"{name}_{number}")
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                number += 1


def merged(old: str, tags: Sequence[str], mode: str) -> str:
    """The text of a caption file that held `old` after `tags` joined it.

    Added tags join the first line that is not blank, the one that is read; further lines stay. Tags that the line has
    already are not added again, so a second run changes nothing.
    """
    if mode == "overwrite" or not first_line(old):
        return ", ".join(tags)
    line = first_line(old)
    present = {tag_key(tag) for tag in split_tags(line)}
    new = [tag for tag in without_repeats(tags) if not {tag_key(part) for part in split_tags(tag)} <= present]
    if not new:
        return old
    parts = [", ".join(new), line] if mode == "prepend" else [line.rstrip(" ,"), ", ".join(new)]
    return old.replace(line, ", ".join(parts), 1)
