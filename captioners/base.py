"""What a captioner is, and how it goes through pictures: ahead in decoding, stoppable, and never twice over the same.

The words: a *reading* is what a model saw in a picture, as bytes that are stored; a *caption* is what the settings make
of a reading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from captioners.catalog import WriteSettings
from captioners.common.events import Begun, Captioned, Finished, Opened, Progress, Reporter, Skipped
from captioners.common.scores import ScoreStore
from captioners.common.writing import CaptionWriter, Plan
from trainer.ahead import ahead
from trainer.data.index import hash_files
from trainer.data.memo import FileFacts, Memo
from trainer.data.pictures import CannotUse, is_picture, load_pixels
from trainer.errors import BadInput
from trainer.ipc.events import Stage, Warning_
from trainer.messages import Message, say

if TYPE_CHECKING:
    from trainer.data.pictures import Pixels

DECODERS = max(2, min(4, (os.cpu_count() or 2) - 1))
MOST_AHEAD = 3 * DECODERS  # pictures in memory
"""Threads that read pictures while the model looks at earlier ones."""

_TELL_S = 0.1  # how often progress is told at most


class Captioner(Protocol):
    """A model that reads pictures. `prepare` is called by several threads at once, everything else by one.

    Attributes:
        identity: changes with everything that changes a reading; known before the model is open.
        batch_size: how many pictures `read` takes at most; known once it is open.
        device: what really computes; known once it is open.
    """

    identity: str
    batch_size: int
    device: str

    def open(self) -> Message | None:
        """Load the weights; called once, before the first `prepare`, and not at all if every reading is stored.

        Returns a warning for the user, if there is one. Raises BadInput if the files are no such model.
        """

    def prepare(self, pixels: Pixels) -> Any:
        """The model's input for an upright RGB picture (H, W, 3) uint8."""

    def read(self, prepared: Sequence[Any]) -> list[bytes]:
        """A reading for each of up to `batch_size` inputs. Raises BadInput or RunFailed if the model misbehaves."""

    def caption(self, reading: bytes) -> list[str]:
        """The parts of a caption, to be joined by commas: tags, or one sentence."""


class _StopAsked(Exception):
    """The user asked to stop while something was going on that has no other way out."""


@dataclass(frozen=True)
class _Look:
    """A picture on its way: its digest, and its reading if that is stored."""

    picture: Path
    digest: str
    reading: bytes | None


@dataclass
class Captioning:
    """One run of a captioner over pictures.

    Attributes:
        should_stop: asked between pictures; once it is true, what has been read is written and the run ends.
    """

    captioner: Captioner
    store: ScoreStore
    report: Reporter
    should_stop: Callable[[], bool]
    writer: CaptionWriter
    memo: Memo = field(default_factory=Memo)
    _is_open: bool = False
    _waiting: list[tuple[_Look, Any]] = field(default_factory=list)
    _written: int = 0
    _unchanged: int = 0
    _skipped: int = 0
    _from_scores: int = 0
    _told: float = 0.0

    def run(self, pictures: Sequence[Path], name: str, model: Path) -> Finished:
        """Caption the pictures and return (and report) how it ended.

        Raises:
            BadInput: if the model does not work.
            RunFailed: if a caption cannot be written. What was done until then stays, readings included.
        """
        began = time.monotonic()
        plan = self.writer.plan(pictures)
        self.report(Begun(name, str(model), len(plan.todo), len(plan.kept)))
        for picture, why in plan.skipped.items():
            self._skip(picture, why)
        try:
            digests = self._digests(plan.todo)
            self._caption_all(plan, digests)
            stopped = False
        except _StopAsked:
            stopped = True
        finished = self._finished(plan, stopped, time.monotonic() - began)
        self.report(finished)
        return finished

    def _digests(self, pictures: Sequence[Path]) -> dict[Path, str]:
        """SHA-256 of every picture that can be read; the others are reported. Raises _StopAsked."""
        facts: list[FileFacts] = []
        for picture in pictures:
            try:
                facts.append(FileFacts.of(picture))
            except OSError as error:
                self._skip(picture, say("it can't be read ({detail})", detail=error.strerror or str(error)))

        def on_progress(done: int, total: int) -> None:
            self._check_stop()
            self.report(Stage("hashing", done, total))

        digests, unreadable = hash_files(facts, self.memo, on_progress)
        for entry in unreadable:
            self._skip(entry.path, entry.why)
        return digests

    def _caption_all(self, plan: Plan, digests: dict[Path, str]) -> None:
        """Read what has no stored reading and write every caption. Raises _StopAsked."""
        began = time.monotonic()
        with closing(ahead(self._prepared, self._looks(plan.todo, digests), MOST_AHEAD, DECODERS)) as prepared:
            for look, seen in prepared:
                self._check_stop()
                if isinstance(seen, Message):
                    self._skip(look.picture, seen)
                elif look.reading is not None:
                    self._from_scores += 1
                    self._write(look, look.reading)
                else:
                    self._waiting.append((look, seen))
                    if len(self._waiting) == self.captioner.batch_size:
                        self._read_waiting()
                self._tell(plan, began)
        self._read_waiting()
        self._tell(plan, began)

    def _looks(self, pictures: Iterable[Path], digests: dict[Path, str]) -> Iterator[_Look]:
        """The pictures with what is known of them; opens the model when the first one is new."""
        for picture in pictures:
            if picture in digests:
                reading = self.store.reading(self.captioner.identity, digests[picture])
                if reading is None:
                    self._open()
                yield _Look(picture, digests[picture], reading)

    def _open(self) -> None:
        if self._is_open:
            return
        self.report(Stage("loading"))
        warning = self.captioner.open()
        if warning:
            self.report(Warning_(warning))
        self._is_open = True
        self.report(Opened(self.captioner.device))

    def _prepared(self, look: _Look) -> Any:
        """The model's input, nothing if there is a reading, or why there can be none. On a decoder's thread."""
        if look.reading is not None:
            return None
        try:
            return self.captioner.prepare(load_pixels(look.picture))
        except CannotUse as cannot:
            return cannot.why

    def _read_waiting(self) -> None:
        """Let the model look at what is waiting, store that, and only then write captions."""
        if not self._waiting:
            return
        readings = self.captioner.read([prepared for _, prepared in self._waiting])
        looks = [look for look, _ in self._waiting]
        self._waiting.clear()
        self.store.keep(
            self.captioner.identity,
            {look.digest: reading for look, reading in zip(looks, readings, strict=True)},
        )
        for look, reading in zip(looks, readings, strict=True):
            self._write(look, reading)

    def _write(self, look: _Look, reading: bytes) -> None:
        tags = self.captioner.caption(reading)
        if not tags:
            self._skip(look.picture, say("nothing in it is probable enough for a tag; lower the thresholds"))
            return
        written = self.writer.write(look.picture, tags)
        self._written += written.changed
        self._unchanged += not written.changed
        self.report(Captioned(str(look.picture), str(written.file), written.text, written.changed))

    def _skip(self, picture: Path, why: Message) -> None:
        self._skipped += 1
        self.report(Skipped(str(picture), why))

    def _check_stop(self) -> None:
        if self.should_stop():
            raise _StopAsked

    def _tell(self, plan: Plan, began: float) -> None:
        """Report progress, ten times a second at most, and at the end."""
        total = len(plan.todo) + len(plan.skipped)
        done = self._written + self._unchanged + self._skipped
        now = time.monotonic()
        if now - self._told < _TELL_S and done < total:
            return
        self._told = now
        left = (now - began) / done * (total - done) if done else -1.0
        self.report(Progress(done, total, round(left, 1)))

    def _finished(self, plan: Plan, stopped: bool, seconds: float) -> Finished:
        done = self._written + self._unchanged + self._skipped
        not_done = len(plan.todo) + len(plan.skipped) - done
        counts = {"written": self._written, "kept": len(plan.kept), "skipped": self._skipped}
        if stopped:
            message = say(
                "Stopped: {written} captions written, {left} pictures left. Start again to go on from here.",
                written=self._written,
                left=not_done,
            )
        elif self.writer.settings.dry_run:
            message = say("Nothing was written: this only showed {count} captions.", count=self._unchanged)
        else:
            message = say(
                "{written} captions written, {unchanged} unchanged; {kept} pictures have a caption and were left alone, "
                "{skipped} were skipped.",
                unchanged=self._unchanged,
                **counts,
            )
        return Finished(
            **counts,
            unchanged=self._unchanged,
            not_done=not_done,
            from_scores=self._from_scores,
            stopped=stopped,
            seconds=round(seconds, 2),
            backups=tuple(str(folder) for folder in self.writer.backups),
            message=message,
        )


def caption_pictures(
    captioner: Captioner,
    pictures: Sequence[Path],
    writing: WriteSettings,
    *,
    name: str,
    model: Path,
    report: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Caption pictures with the user's store of readings; see `Captioning.run`."""
    with ScoreStore() as store:
        return Captioning(captioner, store, report, should_stop, CaptionWriter(writing)).run(pictures, name, model)


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The pictures named, and those in the folders named (with their subfolders), each once, in order of their names.

    Raises:
        BadInput: if a path is not there or cannot be read, or if there is no picture at all.
    """
    found: dict[Path, None] = {}
    for path in (Path(os.path.abspath(path)) for path in paths):
        if path.is_dir():
            found |= dict.fromkeys(_pictures_in(path))
        elif path.is_file():
            found[path] = None
        else:
            raise BadInput(say("There is no file or folder {path}.", path=str(path)), say("Check the name."))
    if not found:
        raise BadInput(
            say("There are no pictures in the folders that were named."),
            say("Name pictures, or folders with png, jpg, webp or bmp files in them."),
        )
    return list(found)


def _pictures_in(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise BadInput(
            say("{folder} cannot be read ({reason}).", folder=str(error.filename), reason=error.strerror or ""),
            say("Check that you may open the folder."),
        ) from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if is_picture(name))
