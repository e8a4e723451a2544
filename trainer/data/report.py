"""What the Images page says about a folder before training: counts, captions, sizes, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.data.buckets import Bucket, Bucketing, scale_needed, share_kept
from trainer.data.folders import FolderSetting
from trainer.data.index import Index, Item, Skipped, index_folders
from trainer.data.memo import Memo
from trainer.data.order import place
from trainer.errors import Stopped
from trainer.estimate import bucket_histogram
from trainer.messages import Message, say

_MUCH_ENLARGED = 2.0
_MUCH_CUT = 0.5
_NAMED = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FolderSummary:
    """One picture folder of an entry (a parent leads to several)."""

    path: Path
    repeats: int
    words: str
    num_pictures: int
    num_captions_missing: int


@dataclass(frozen=True)
class FolderReport:
    """An entry of the list as the window shows it. `problem` is why it can't be used at all.

    `num_shown` are the pictures of an epoch, repeats counted, as in `buckets`; the pictures in `captions_missing` get the
    folder's words; `encodings` counts caption files; `is_complete` is False if the user stopped it.
    """

    folders: tuple[FolderSummary, ...] = ()
    items: tuple[Item, ...] = ()
    num_shown: int = 0
    captions_missing: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[Message, ...] = ()
    encodings: Mapping[str, int] = field(default_factory=dict)
    buckets: Mapping[Bucket, int] = field(default_factory=dict)
    problem: Message | None = None
    is_complete: bool = True

    @property
    def num_pictures(self) -> int:
        return len(self.items)


def describe_folder(
    setting: FolderSetting,
    *,
    is_reg: bool = False,
    bucketing: Bucketing | None = None,
    caption_extension: str = ".txt",
    smallest_side: int = 1,
    memo: Memo | None = None,
    verify: bool = False,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FolderReport:
    """Look through one entry, for the window's thread pool. Never raises for what is on the disk.

    Headers tell most of what will be skipped, in a moment; with `verify` every picture is decoded once (and remembered),
    which also finds those that are cut short.

    `on_progress(done, total)` is called every 64 pictures from the calling thread; `should_stop` is asked as often.
    """

    def progress(done: int, total: int) -> None:
        if on_progress:
            on_progress(done, total)
        if should_stop():
            raise Stopped(say("Stopped."))

    try:
        index = index_folders(
            [setting],
            is_reg=is_reg,
            caption_extension=caption_extension,
            smallest_side=smallest_side,
            memo=memo,
            verify=verify,
            on_progress=progress,
        )
    except Stopped:
        return FolderReport(is_complete=False)
    return _report(index, bucketing)


def _report(index: Index, bucketing: Bucketing | None) -> FolderReport:
    encodings: Counter[str] = Counter()
    for _, counts in index.encodings:
        encodings.update(counts)
    samples = place(index.items, bucketing) if bucketing else ()
    return FolderReport(
        folders=_summaries(index),
        items=index.items,
        num_shown=sum(item.repeats for item in index.items),
        captions_missing=tuple(item.path for item in index.items if item.caption_source == "folder"),
        skipped=index.skipped,
        warnings=index.warnings + (shape_warnings(index.items, bucketing) if bucketing else ()),
        encodings=dict(encodings),
        buckets=bucket_histogram(samples),
        problem=index.problems[0] if index.problems else _nothing_usable(index),
    )


def _nothing_usable(index: Index) -> Message | None:
    if index.items:
        return None
    return say("None of its pictures ({count}) can be used.", count=len(index.skipped))


def _summaries(index: Index) -> tuple[FolderSummary, ...]:
    found: Counter[Path] = Counter(item.path.parent for item in index.items)
    missing = Counter(item.path.parent for item in index.items if item.caption_source == "folder")
    return tuple(
        FolderSummary(folder.path, folder.repeats, folder.words, found[folder.path], missing[folder.path])
        for folder in index.folders
    )


def shape_warnings(items: tuple[Item, ...], bucketing: Bucketing) -> tuple[Message, ...]:
    """Pictures that the buckets treat badly: much enlarged, or cut to less than half."""
    enlarged, cut = [], []
    for item in items:
        bucket = bucketing.choose(item.size)
        if scale_needed(item.size, bucket) > _MUCH_ENLARGED:
            enlarged.append(item.path.name)
        if share_kept(item.size, bucket) < _MUCH_CUT:
            cut.append(item.path.name)
    warnings = []
    if enlarged:
        warnings.append(
            say("Pictures less than half as large as they are trained: {count} ({names}). They will look soft.",
                count=len(enlarged), names=", ".join(enlarged[:_NAMED]))
        )  # fmt: skip
    if cut:
        warnings.append(
            say("Pictures so long or wide that less than half of them is trained: {count} ({names}).",
                count=len(cut), names=", ".join(cut[:_NAMED]))
        )  # fmt: skip
    return tuple(warnings)
