"""Tests of captioners.base: order, memory of what was seen, stopping, and what is named when it goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from captioners.base import Captioning, find_pictures
from captioners.catalog import WriteSettings
from captioners.common.events import Captioned, Finished, Opened, Progress, Skipped
from captioners.common.scores import ScoreStore, default_path
from captioners.common.writing import CaptionWriter
from tests.captioners.tiny_tagger import save_picture
from trainer.errors import BadInput, RunFailed
from trainer.ipc.events import Event
from trainer.messages import Message


class Colours:
    """A captioner that says the colour of the first pixel, and counts."""

    def __init__(self) -> None:
        self.identity, self.batch_size, self.device = "colours", 2, "pen"
        self.opened, self.batches = 0, []
        self.fails_at = -1

    def open(self) -> Message | None:
        self.opened += 1
        return None

    def prepare(self, pixels: Any) -> Any:
        assert self.opened == 1
        return [int(value) for value in pixels[0, 0]]

    def read(self, prepared: Sequence[Any]) -> list[bytes]:
        if len(self.batches) == self.fails_at:
            raise RunFailed(Message("the model gave up"))
        self.batches.append(len(prepared))
        return [bytes(colour) for colour in prepared]

    def caption(self, reading: bytes) -> list[str]:
        return [f"colour {reading.hex()}"]


def caption(
    pictures: Sequence[Path], captioner: Colours | None = None, stop: Callable[[], bool] = lambda: False, **writing: Any
) -> tuple[list[Event], Finished]:
    events: list[Event] = []
    with ScoreStore() as store:
        writer = CaptionWriter(WriteSettings(**writing))
        run = Captioning(captioner or Colours(), store, events.append, stop, writer)
        return events, run.run(list(pictures), "colours", Path("model"))


def pictures(folder: Path, count: int) -> list[Path]:
    return [save_picture(folder / f"{number:03}.png", (number, 0, 255), (4, 4)) for number in range(count)]


def test_every_picture_gets_its_own_caption(awkward: Path) -> None:
    colours = Colours()
    events, finished = caption(pictures(awkward, 7), colours)
    for number in range(7):
        text = (awkward / f"{number:03}.txt").read_text(encoding="utf-8")
        assert text == f"colour {number:02x}00ff"
    assert colours.batches == [2, 2, 2, 1]
    assert (finished.written, finished.kept, finished.skipped, finished.not_done) == (7, 0, 0, 0)
    assert [event.device for event in events if isinstance(event, Opened)] == ["pen"]
    assert [event for event in events if isinstance(event, Progress)][-1].done == 7
    assert events[-1] == finished


def test_what_was_seen_is_never_looked_at_again(tmp_path: Path) -> None:
    some = pictures(tmp_path, 5)
    caption(some[:3])
    again = Colours()
    _, finished = caption(some, again, mode="overwrite")
    assert again.batches == [2]  # only the two new ones
    assert finished.from_scores == 3
    third = Colours()
    events, _ = caption(some, third, mode="append")
    assert third.opened == 0
    assert not [event for event in events if isinstance(event, Opened)]


def test_a_changed_picture_is_looked_at_again(tmp_path: Path) -> None:
    (only,) = pictures(tmp_path, 1)
    caption([only])
    save_picture(only, (9, 9, 9), (4, 4))
    caption([only], mode="overwrite")
    assert only.with_suffix(".txt").read_text(encoding="utf-8") == "colour 090909"


def test_a_stop_keeps_what_is_done_and_the_next_run_goes_on(tmp_path: Path) -> None:
    some = pictures(tmp_path, 9)

    def once_three_are_written() -> bool:
        return len(list(tmp_path.glob("*.txt"))) >= 3

    first = Colours()
    _, stopped = caption(some, first, once_three_are_written)
    assert stopped.stopped and stopped.written == 4 and stopped.not_done == 5
    second = Colours()
    _, finished = caption(some, second)
    assert (finished.kept, finished.written) == (4, 5)
    assert sum(first.batches) + sum(second.batches) == 9


def test_a_failure_keeps_what_was_seen(tmp_path: Path) -> None:
    some = pictures(tmp_path, 6)
    failing = Colours()
    failing.fails_at = 2
    with pytest.raises(RunFailed, match="gave up"):
        caption(some, failing)
    again = Colours()
    caption(some, again)
    assert failing.batches == [2, 2] and again.batches == [2]


def test_bad_pictures_are_named_and_skipped(awkward: Path) -> None:
    good = pictures(awkward, 2)
    broken, empty = awkward / "x broken.png", awkward / "y empty.jpg"
    broken.write_bytes(good[0].read_bytes()[:45])
    empty.write_bytes(b"")
    events, finished = caption([*good, broken, empty, awkward / "gone.png"])
    named = {Path(event.picture).name for event in events if isinstance(event, Skipped)}
    assert named == {"x broken.png", "y empty.jpg", "gone.png"}
    assert (finished.written, finished.skipped, finished.not_done) == (2, 3, 0)
    assert not broken.with_suffix(".txt").exists()


def test_without_a_tag_nothing_is_written(tmp_path: Path) -> None:
    class Silent(Colours):
        def caption(self, reading: bytes) -> list[str]:
            return []

    (only,) = pictures(tmp_path, 1)
    only.with_suffix(".txt").write_text("mine", encoding="utf-8")
    events, finished = caption([only], Silent(), mode="overwrite")
    assert finished.skipped == 1 and "thresholds" in str(next(e.why for e in events if isinstance(e, Skipped)))
    assert only.with_suffix(".txt").read_text(encoding="utf-8") == "mine"


def test_a_dry_run_says_the_captions(tmp_path: Path) -> None:
    events, finished = caption(pictures(tmp_path, 2), dry_run=True)
    assert [event.caption for event in events if isinstance(event, Captioned)] == ["colour 0000ff", "colour 0100ff"]
    assert finished.written == 0 and not list(tmp_path.glob("*.txt"))


def test_damaged_scores_are_set_aside(tmp_path: Path) -> None:
    some = pictures(tmp_path, 2)
    caption(some)
    for part in default_path().parent.glob("scores.sqlite-*"):
        part.unlink()
    default_path().write_bytes(b"no database" * 1000)
    again = Colours()
    caption(some, again, mode="overwrite")
    assert again.batches == [2]
    assert default_path().with_name("scores.sqlite.damaged").exists()


def test_two_runs_share_the_scores(tmp_path: Path) -> None:
    with ScoreStore() as one, ScoreStore() as other:
        one.keep("m", {"a": b"1"})
        other.keep("m", {"b": b"2"})
        assert (one.reading("m", "b"), other.reading("m", "a"), one.reading("n", "a")) == (b"2", b"1", None)


def test_find_pictures(awkward: Path) -> None:
    inner = awkward / "10_cat"
    wanted = [save_picture(inner / "B.PNG"), save_picture(inner / "a.jpg"), save_picture(awkward / "z.webp")]
    (inner / "a.txt").write_text("words", encoding="utf-8")
    save_picture(awkward / ".thumbnails" / "t.png")
    save_picture(inner / "._a.png")
    assert find_pictures([awkward, inner, wanted[0]]) == [wanted[2], wanted[0], wanted[1]]
    with pytest.raises(BadInput, match="no file or folder"):
        find_pictures([awkward / "missing"])
    (awkward / "empty").mkdir()
    with pytest.raises(BadInput, match="no pictures"):
        find_pictures([awkward / "empty"])
