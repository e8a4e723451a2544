"""What the Images page is told about a folder."""

from __future__ import annotations

from pathlib import Path

from tests.data.draw import Entry, dataset, save
from trainer.data.buckets import Bucket, Bucketing
from trainer.data.report import describe_folder

RULES = Bucketing((512, 512))


def test_a_parent_is_described_folder_by_folder(awkward: Path) -> None:
    dataset(awkward, {"10_rufus cat": 2}, captions=True)
    dataset(awkward, {"3_猫": 1})
    save(awkward / "3_猫" / "wide.png", 1200, 300)
    (awkward / "3_猫" / "empty.png").touch()
    seen: list[tuple[int, int]] = []
    report = describe_folder(
        Entry(str(awkward)), bucketing=RULES, on_progress=lambda done, total: seen.append((done, total))
    )
    assert [(f.path.name, f.repeats, f.words, f.num_pictures, f.num_captions_missing) for f in report.folders] == [
        ("10_rufus cat", 10, "rufus cat", 2, 0),
        ("3_猫", 3, "猫", 2, 2),
    ]
    assert (report.num_pictures, report.num_shown, report.problem, report.is_complete) == (4, 26, None, True)
    assert [path.name for path in report.captions_missing] == ["00.png", "wide.png"]
    assert report.buckets == {Bucket(640, 384): 23, Bucket(1024, 256): 3} and report.encodings == {"utf-8": 2}
    assert [entry.path.name for entry in report.skipped] == ["empty.png"]
    assert seen == [(5, 5)]


def test_small_and_long_pictures_are_doubtful(tmp_path: Path) -> None:
    save(tmp_path / "1_a" / "small.png", 100, 100)
    save(tmp_path / "1_a" / "long.png", 3000, 300)
    save(tmp_path / "1_a" / "fine.png", 500, 500)
    texts = [str(warning) for warning in describe_folder(Entry(str(tmp_path)), bucketing=RULES).warnings]
    assert texts == [
        "Pictures less than half as large as they are trained: 1 (small.png). They will look soft.",
        "Pictures so long or wide that less than half of them is trained: 1 (long.png).",
    ]


def test_what_leads_to_nothing_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    report = describe_folder(Entry(str(tmp_path / "gone")))
    assert "does not exist" in str(report.problem) and report.num_pictures == 0
    (tmp_path / "a.png").touch()
    assert "None of its pictures (1) can be used" in str(describe_folder(Entry(str(tmp_path))).problem)


def test_a_second_look_finds_what_is_cut_short(tmp_path: Path) -> None:
    dataset(tmp_path, {"1_a": 1})
    cut = save(tmp_path / "1_a" / "cut.png", 300, 300)
    cut.write_bytes(cut.read_bytes()[:-5000])
    assert describe_folder(Entry(str(tmp_path))).num_pictures == 2
    report = describe_folder(Entry(str(tmp_path)), verify=True)
    assert report.num_pictures == 1 and [entry.path.name for entry in report.skipped] == ["cut.png"]


def test_it_can_be_stopped(tmp_path: Path) -> None:
    dataset(tmp_path, {"1_a": 2})
    report = describe_folder(Entry(str(tmp_path)), should_stop=lambda: True)
    assert not report.is_complete and report.num_pictures == 0
