"""The dataset as a list: every picture that will be trained, with its caption and size, and what is left out and why."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from trainer.data.buckets import Size
from trainer.data.captions import first_line
from trainer.data.encodings import MAX_BYTES, decode_folder
from trainer.data.folders import FolderSetting, PictureFolder, caption_file, find_folders
from trainer.data.memo import FileFacts, Known, Memo
from trainer.data.pictures import CannotUse, check_pixels, read_size
from trainer.errors import BadInput
from trainer.messages import Message, say

Progress = Callable[[int, int], None]  # done, total; may raise to stop
READERS = min(8, (os.cpu_count() or 2) + 2)
_NAMED = 5  # files named in one sentence; the rest are counted


@dataclass(frozen=True)
class Item:
    """A picture that is trained. `size` is upright; `folder` is the name that metadata and reports use."""

    id: int
    facts: FileFacts
    folder: str
    caption: str
    caption_source: Literal["file", "folder"]
    repeats: int
    is_reg: bool
    size: Size

    @property
    def path(self) -> Path:
        return self.facts.path


@dataclass(frozen=True)
class Skipped:
    """A file that is not trained, and why."""

    path: Path
    why: Message

    def sentence(self) -> Message:
        return say("{file} is left out: {why}.", file=str(self.path), why=str(self.why))


@dataclass(frozen=True)
class Index:
    """Items in the order of folders and names (ids count up from 0), what is skipped, and what is doubtful.

    `encodings` counts caption files by folder and encoding; `problems` are entries of the list that lead to nothing.
    """

    items: tuple[Item, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[Message, ...] = ()
    encodings: tuple[tuple[Path, Mapping[str, int]], ...] = ()
    folders: tuple[PictureFolder, ...] = ()
    problems: tuple[Message, ...] = ()

    def without(self, skipped: Iterable[Skipped]) -> Index:
        """The same without files that turned out to be broken; the other items keep their ids.

        Raises BadInput if no training picture is left.
        """
        more = tuple(skipped)
        gone = {entry.path for entry in more}
        left = replace(self, items=tuple(i for i in self.items if i.path not in gone), skipped=self.skipped + more)
        if not left.train:
            raise BadInput(say("No picture to learn can be used."), _reasons(left.skipped))
        return left

    @property
    def train(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if not item.is_reg)

    @property
    def reg(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.is_reg)


def index_dataset(
    folders: Sequence[FolderSetting],
    reg_folders: Sequence[FolderSetting] = (),
    *,
    caption_extension: str = ".txt",
    smallest_side: int = 1,
    memo: Memo | None = None,
    verify: bool = False,
    on_progress: Progress | None = None,
) -> Index:
    """All that a run trains, training pictures first. With `verify` every picture is decoded once (and remembered).

    Raises BadInput if an entry leads to nothing, no training picture can be used, no class picture can though folders
    are given, or the same picture (by content) is in both; always before anything heavy is imported.
    """
    memo = memo or Memo()
    rules = _Rules(caption_extension, smallest_side, memo, verify, on_progress)
    train = _index(folders, False, 0, rules)
    reg = _index(reg_folders, True, len(train.items), rules)
    both = _join(train, reg)
    if len(both.problems) == 1:
        raise BadInput(both.problems[0])
    if both.problems:
        lines = "\n".join(f"- {problem}" for problem in both.problems)
        raise BadInput(say("Folders that can't be used: {count}\n{lines}", count=len(both.problems), lines=lines))
    if not train.items:
        raise BadInput(say("No picture to learn can be used."), _reasons(both.skipped))
    if reg.folders and not reg.items:
        raise BadInput(say("No class picture can be used."), _reasons(reg.skipped))
    refuse_overlap(both, memo)
    return both


def index_folders(
    folders: Sequence[FolderSetting],
    *,
    is_reg: bool = False,
    caption_extension: str = ".txt",
    smallest_side: int = 1,
    memo: Memo | None = None,
    verify: bool = False,
    on_progress: Progress | None = None,
) -> Index:
    """The pictures of some folders. Never raises for what is on the disk: see the index's `problems` and `skipped`."""
    rules = _Rules(caption_extension, smallest_side, memo or Memo(), verify, on_progress)
    return _index(folders, is_reg, 0, rules)


def refuse_overlap(index: Index, memo: Memo) -> None:
    """Raises BadInput if a picture is, by content, both a training and a class picture: it would be learnt and held."""
    train_sizes = {item.facts.num_bytes for item in index.train}
    shared = {item.facts.num_bytes for item in index.reg} & train_sizes
    suspects = [item for item in index.items if item.facts.num_bytes in shared]  # others can't be equal
    hashes, _ = hash_files([item.facts for item in suspects], memo)
    train = {hashes[item.path]: item.path for item in suspects if not item.is_reg and item.path in hashes}
    pairs = [
        (train[hashes[item.path]], item.path)
        for item in suspects
        if item.is_reg and item.path in hashes and hashes[item.path] in train
    ]
    if pairs:
        names = "\n".join(f"{ours}\n{theirs}" for ours, theirs in pairs[:_NAMED])
        raise BadInput(
            say(
                "The same picture is both a training and a class picture ({count} times):\n{names}",
                count=len(pairs),
                names=names,
            ),
            say("Take them out of one of the folders."),
        )


def hash_files(
    files: Sequence[FileFacts], memo: Memo, on_progress: Progress | None = None
) -> tuple[dict[Path, str], tuple[Skipped, ...]]:
    """SHA-256 of each file's bytes, from memory where the file has not changed; and the files that can't be read."""
    known = memo.recall(files)
    hashes = {path: entry.sha256 for path, entry in known.items() if entry.sha256}
    todo = [facts for facts in files if facts.path not in hashes]
    news: list[tuple[FileFacts, Known]] = []
    skipped: list[Skipped] = []
    for facts, result in _in_threads(_hash, todo, on_progress):
        if isinstance(result, Message):
            skipped.append(Skipped(facts.path, result))
        else:
            hashes[facts.path] = result
            news.append((facts, Known(sha256=result)))
    memo.remember(news)
    return hashes, tuple(skipped)


def _hash(facts: FileFacts) -> str | Message:
    try:
        with facts.path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        return say("it can't be read ({detail})", detail=error.strerror or str(error))


@dataclass(frozen=True)
class _Rules:
    caption_extension: str
    smallest_side: int
    memo: Memo
    verify: bool
    on_progress: Progress | None


def _index(settings: Sequence[FolderSetting], is_reg: bool, first_id: int, rules: _Rules) -> Index:
    folders: list[PictureFolder] = []
    warnings: list[Message] = []
    problems: list[Message] = []
    for setting in settings:
        if not setting.enabled:
            continue
        found = find_folders(setting)
        warnings += found.warnings
        if found.problem:
            problems.append(found.problem)
        for folder in found.folders:
            if any(_same(folder.path, other.path) for other in folders):
                warnings.append(say("{folder}: this folder is listed twice; it is used once.", folder=str(folder.path)))
            else:
                folders.append(folder)
    sizes, skipped = _measure([facts for folder in folders for facts in folder.pictures], rules)
    index = Index(skipped=tuple(skipped), warnings=tuple(warnings), problems=tuple(problems), folders=tuple(folders))
    for folder in folders:
        index = _join(index, _index_folder(folder, sizes, is_reg, first_id + len(index.items), rules))
    return index


def _index_folder(folder: PictureFolder, sizes: Mapping[Path, Size], is_reg: bool, first_id: int, rules: _Rules) -> Index:
    pictures = [facts for facts in folder.pictures if facts.path in sizes]
    captions = _read_captions(folder, pictures, rules.caption_extension)
    items = tuple(
        Item(
            first_id + number,
            facts,
            folder.name,
            captions.texts.get(facts.path, folder.words),
            "file" if facts.path in captions.texts else "folder",
            folder.repeats,
            is_reg,
            sizes[facts.path],
        )
        for number, facts in enumerate(pictures)
    )
    warnings = (*captions.warnings, *_same_stems(folder, pictures), *_no_words(folder, items))
    encodings = ((folder.path, captions.encodings),) if captions.encodings else ()
    return Index(items, captions.skipped, warnings, encodings)


def _join(first: Index, second: Index) -> Index:
    return Index(
        first.items + second.items,
        first.skipped + second.skipped,
        first.warnings + second.warnings,
        first.encodings + second.encodings,
        first.folders + second.folders,
        first.problems + second.problems,
    )


def _same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _measure(files: Sequence[FileFacts], rules: _Rules) -> tuple[dict[Path, Size], list[Skipped]]:
    """Sizes of the pictures that can be used, read in threads; remembered ones are not opened again."""
    known = rules.memo.recall(files)
    sizes: dict[Path, Size] = {}
    skipped: list[Skipped] = []
    news: list[tuple[FileFacts, Known]] = []

    def look(facts: FileFacts) -> Known | Message:
        old = known.get(facts.path, Known())
        try:
            size = old.size or read_size(facts.path)
        except CannotUse as cannot:
            return cannot.why
        if not rules.verify or old.decoded:
            return Known(size, decoded=old.decoded)
        return check_pixels(facts.path) or Known(size, decoded=True)

    for facts, result in _in_threads(look, files, rules.on_progress):
        if isinstance(result, Message):
            skipped.append(Skipped(facts.path, result))
            continue
        assert result.size is not None
        old = known.get(facts.path)
        if old is None or old.size is None or result.decoded != old.decoded:
            news.append((facts, result))
        if min(result.size) < rules.smallest_side:
            skipped.append(Skipped(facts.path, _too_small(result.size, rules.smallest_side)))
        else:
            sizes[facts.path] = result.size
    rules.memo.remember(news)
    return sizes, skipped


def _too_small(size: Size, least: int) -> Message:
    return say(
        "it is only {width}×{height} pixels; the shorter side must have {least}",
        width=size[0], height=size[1], least=least,
    )  # fmt: skip


@dataclass(frozen=True)
class _Captions:
    texts: Mapping[Path, str]
    encodings: Mapping[str, int]
    warnings: tuple[Message, ...]
    skipped: tuple[Skipped, ...]


def _read_captions(folder: PictureFolder, pictures: Sequence[FileFacts], extension: str) -> _Captions:
    """The captions of a folder's pictures that have a file, decoded together."""
    owners = {facts.path: file for facts in pictures if (file := caption_file(folder.captions, facts.path, extension))}
    content: dict[str, bytes] = {}
    skipped: list[Skipped] = []
    for file in dict.fromkeys(owners.values()):
        try:
            with file.open("rb") as handle:
                content[file.name] = handle.read(MAX_BYTES)
        except OSError as error:
            skipped.append(Skipped(file, say("it can't be read ({detail})", detail=error.strerror or str(error))))
    decoded = decode_folder(content)
    texts = {path: first_line(decoded.texts[file.name]) for path, file in owners.items() if file.name in content}
    warnings = [*_encoding_warnings(folder, decoded.encodings, decoded.doubtful)]
    empty = [path.name for path, text in texts.items() if not text]
    if empty:
        warnings.append(
            say("{folder}: empty caption files: {count} ({names}). Their pictures are trained without words.",
                folder=folder.name, count=len(empty), names=_names(empty))
        )  # fmt: skip
    return _Captions(texts, decoded.encodings, tuple(warnings), tuple(skipped))


def _encoding_warnings(folder: PictureFolder, encodings: Mapping[str, int], doubtful: frozenset[str]) -> Iterator[Message]:
    others = {name: count for name, count in encodings.items() if name != "utf-8"}
    if others:
        yield say(
            "{folder}: captions that are not UTF-8: {count}, read as {encodings}. Check that their words look right.",
            folder=folder.name, count=sum(others.values()), encodings=", ".join(sorted(others)),
        )  # fmt: skip
    if doubtful:
        yield say(
            "{folder}: captions whose encoding is doubtful: {count} ({names}). Save them as UTF-8 to be sure.",
            folder=folder.name, count=len(doubtful), names=_names(sorted(doubtful)),
        )  # fmt: skip


def _same_stems(folder: PictureFolder, pictures: Sequence[FileFacts]) -> Iterator[Message]:
    stems: dict[str, list[str]] = {}
    for facts in pictures:
        stems.setdefault(facts.path.stem.casefold(), []).append(facts.path.name)
    shared = [" + ".join(names) for names in stems.values() if len(names) > 1]
    if shared:
        yield say("{folder}: pictures with the same name but another ending share one caption ({names}).",
                  folder=folder.name, names=_names(shared))  # fmt: skip


def _no_words(folder: PictureFolder, items: Sequence[Item]) -> Iterator[Message]:
    without = [item.path.name for item in items if item.caption_source == "folder"]
    if without and not folder.words:
        yield say("{folder}: pictures without a caption: {count} ({names}). The folder's name has no words for them either.",
                  folder=folder.name, count=len(without), names=_names(without))  # fmt: skip


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown}, … +{len(names) - _NAMED}"


def _reasons(skipped: Sequence[Skipped]) -> Message | None:
    if not skipped:
        return say("Choose folders with pictures in them.")
    lines = "\n".join(str(entry.sentence()) for entry in skipped[:_NAMED])
    return say("Files left out: {count}, such as:\n{lines}", count=len(skipped), lines=lines)


Result = TypeVar("Result")


def _in_threads(
    work: Callable[[FileFacts], Result], files: Sequence[FileFacts], on_progress: Progress | None
) -> Iterator[tuple[FileFacts, Result]]:
    """`work(file)` for each, in the files' order, by several threads; progress is told (and may raise) every 64 files."""
    rest = iter(files)
    done = 0
    with ThreadPoolExecutor(READERS, thread_name_prefix="files") as pool:
        while portion := list(islice(rest, 64)):
            yield from zip(portion, pool.map(work, portion), strict=True)
            done += len(portion)
            if on_progress:
                on_progress(done, len(files))
