"""Folders become items: what is used, with which words, and what is left out with a reason; never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.draw import Entry, dataset, save
from trainer.data import folders, index, pictures
from trainer.data.folders import parse_name
from trainer.data.index import Index, index_dataset, index_folders
from trainer.data.memo import Memo
from trainer.errors import BadInput, Stopped
from trainer.messages import say


def words(found: Index) -> list[str]:
    return [str(warning) for warning in found.warnings]


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("10_rufus cat", (10, "rufus cat")),
        ("1_girl", (1, "girl")),
        ("5_a_b c", (5, "a_b c")),
        ("0_off", (0, "off")),
        ("7", (7, "")),
        ("rufus", None),
        ("x_10", None),
        ("10 rufus", None),
        ("1.5_cat", None),
        ("20_猫 娘", (20, "猫 娘")),
    ],
)
def test_folder_names_as_kohya_users_have_them(name: str, parsed: tuple[int, str] | None) -> None:
    assert parse_name(name) == parsed


def test_the_parent_is_given(awkward: Path) -> None:
    dataset(awkward, {"10_rufus cat": 3, "2_猫 娘": 2})
    found = index_dataset([Entry(str(awkward))])
    assert [(item.folder, item.repeats, item.caption) for item in found.items] == [("10_rufus cat", 10, "rufus cat")] * 3 + [
        ("2_猫 娘", 2, "猫 娘")
    ] * 2
    assert [item.id for item in found.items] == [0, 1, 2, 3, 4]
    assert {item.size for item in found.items} == {(96, 64)} and not found.warnings and not found.skipped


def test_the_inner_folder_is_given(awkward: Path) -> None:
    dataset(awkward, {"10_rufus cat": 2})
    found = index_dataset([Entry(str(awkward / "10_rufus cat"))])
    assert [(item.repeats, item.caption) for item in found.items] == [(10, "rufus cat")] * 2


def test_any_other_folder_is_given(tmp_path: Path) -> None:
    dataset(tmp_path, {"rufus": 2})
    found = index_dataset([Entry(str(tmp_path / "rufus"))])
    assert [(item.repeats, item.caption) for item in found.items] == [(1, "rufus")] * 2


def test_the_entrys_own_repeats_and_words_stand_above_the_name(tmp_path: Path) -> None:
    dataset(tmp_path, {"10_rufus cat": 1, "0_off": 1})
    found = index_dataset([Entry(str(tmp_path), repeats=3, caption="a dog")])
    assert [(item.repeats, item.caption) for item in found.items] == [(3, "a dog")] * 2


def test_captions_txt_before_caption_case_and_missing_ones(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"1_cat": 4}) / "1_cat"
    (folder / "00.txt").write_text("from txt\nsecond line", encoding="utf-8-sig")
    (folder / "00.caption").write_text("from caption", encoding="utf-8")
    (folder / "01.caption").write_text("only caption", encoding="utf-8")
    (folder / "02.TXT").write_text("upper case", encoding="utf-8")
    found = index_dataset([Entry(str(tmp_path))])
    assert [item.caption for item in found.items] == ["from txt", "only caption", "upper case", "cat"]
    assert [item.caption_source for item in found.items] == ["file", "file", "file", "folder"]
    assert dict(found.encodings) == {folder: {"utf-8": 3}}
    other = index_dataset([Entry(str(tmp_path))], caption_extension=".caption")
    assert other.items[0].caption == "from caption"


def test_an_empty_caption_file_is_an_empty_caption_and_said(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"1_cat": 1}) / "1_cat"
    (folder / "00.txt").touch()
    found = index_dataset([Entry(str(tmp_path))])
    assert (found.items[0].caption, found.items[0].caption_source) == ("", "file")
    assert "empty caption files: 1 (00.png)" in words(found)[0]


def test_other_encodings_are_read_and_reported(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"1_cat": 2}) / "1_cat"
    (folder / "00.txt").write_bytes("一只黑色的猫坐在红色的沙发上".encode("gbk"))
    (folder / "01.txt").write_bytes(b"na\xef")
    found = index_dataset([Entry(str(tmp_path))])
    assert found.items[0].caption == "一只黑色的猫坐在红色的沙发上"
    assert "not UTF-8: 2, read as gb18030" in words(found)[0]
    assert "encoding is doubtful: 1 (01.txt)" in words(found)[1]


def test_a_caption_that_cannot_be_read_is_named_and_the_words_are_used(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"1_cat": 1}) / "1_cat"
    (folder / "00.txt").mkdir()  # any reason for which opening fails
    found = index_dataset([Entry(str(tmp_path))])
    assert found.items[0].caption == "cat"
    (folder / "00.txt").rmdir()
    (folder / "00.txt").symlink_to(folder / "nowhere")
    found = index_dataset([Entry(str(tmp_path))])
    assert found.items[0].caption == "cat" and found.skipped[0].path.name == "00.txt"


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"1_cat": 1}) / "1_cat"
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no", encoding="utf-8")
    save(folder / "tiny.png", 8, 300)
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    cut = save(folder / "cut.png", 300, 300)
    cut.write_bytes(cut.read_bytes()[:2000])
    found = index_dataset([Entry(str(tmp_path))], smallest_side=32)
    reasons = {entry.path.name: str(entry.why) for entry in found.skipped}
    assert reasons["empty.png"] == "the file is empty" and reasons["lost.png"] == "it is gone"
    assert "not a picture" in reasons["text.jpg"] and "only 8×300" in reasons["tiny.png"]
    assert [item.path.name for item in found.items] == ["00.png", "cut.png"]
    verified = index_dataset([Entry(str(tmp_path))], smallest_side=32, verify=True)
    assert "broken or cut short" in {e.path.name: str(e.why) for e in verified.skipped}["cut.png"]
    assert [item.path.name for item in verified.items] == ["00.png"]
    assert "cut.png is left out: it is broken" in str(verified.skipped[0].sentence())


def test_a_picture_without_permission_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dataset(tmp_path, {"1_cat": 2}) / "1_cat"
    real = pictures.Image.open

    def refuse(path: Path) -> object:
        if path.name == "00.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(pictures.Image, "open", refuse)
    found = index_dataset([Entry(str(folder))])
    assert [str(entry.why) for entry in found.skipped] == ["there is no permission to read it"]
    assert len(found.items) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "denied"), "there is no permission to read this folder"),
        (OSError(5, "Input/output error"), "this folder can't be read (Input/output error)"),
    ],
)
def test_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(BadInput) as caught:
        index_dataset([Entry(str(tmp_path))])
    assert sentence in str(caught.value)


def test_pain_point_number_one_no_data_found(tmp_path: Path) -> None:
    """Each way to point at the wrong place has its own sentence."""
    with pytest.raises(BadInput, match="does not exist"):
        index_dataset([Entry(str(tmp_path / "gone"))])
    with pytest.raises(BadInput, match="this is a file, not a folder"):
        index_dataset([Entry(str(save(tmp_path / "a.png")))])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no pictures in it"):
        index_dataset([Entry(str(tmp_path / "empty"))])
    dataset(tmp_path / "parent", {"rufus": 1})
    with pytest.raises(BadInput, match="doesn't begin with a number of repeats"):
        index_dataset([Entry(str(tmp_path / "parent"))])
    dataset(tmp_path / "zero", {"0_rufus": 1})
    with pytest.raises(BadInput, match="0 repeats"):
        index_dataset([Entry(str(tmp_path / "zero"))])
    with pytest.raises(BadInput, match=r"Folders that can't be used: 2\n- .*gone.*\n- .*empty"):
        index_dataset([Entry(str(tmp_path / "gone")), Entry(str(tmp_path / "empty"))])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").touch()
    with pytest.raises(BadInput, match=r"Files left out: 1, such as:\n.*a.png is left out: the file is empty"):
        index_dataset([Entry(str(tmp_path / "broken"))])
    with pytest.raises(BadInput, match="No picture to learn"):
        index_dataset([Entry(str(tmp_path / "gone"), enabled=False)])


def test_what_lies_in_the_wrong_place_is_said(tmp_path: Path) -> None:
    dataset(tmp_path, {"10_cat": 1, "dogs": 1, "5_empty": 0, "0_off": 1})
    (tmp_path / "5_empty").mkdir()
    save(tmp_path / "beside.png")
    found = index_dataset([Entry(str(tmp_path))])
    assert len(found.items) == 1
    text = "\n".join(words(found))
    assert "beside its numbered folders are not used (1)" in text and "dogs: its name doesn't begin" in text
    assert "5_empty: there are no pictures" in text and "0_off: 0 repeats" in text
    inner = tmp_path / "10_cat"
    save(inner / "more" / "a.png")
    assert "10_cat/more: pictures in this subfolder are not used" in words(index_dataset([Entry(str(inner))]))[0]


def test_a_folder_listed_twice_is_used_once(tmp_path: Path) -> None:
    dataset(tmp_path, {"10_cat": 2})
    found = index_dataset([Entry(str(tmp_path)), Entry(str(tmp_path / "10_cat"))])
    assert len(found.items) == 2 and "listed twice" in words(found)[0]


def test_the_same_stem_twice_is_warned(tmp_path: Path) -> None:
    save(tmp_path / "1_cat" / "a.png")
    save(tmp_path / "1_cat" / "a.jpg")
    found = index_dataset([Entry(str(tmp_path))])
    assert len(found.items) == 2 and "share one caption (a.jpg + a.png)" in words(found)[0]


def test_pictures_without_any_words_are_warned(tmp_path: Path) -> None:
    dataset(tmp_path, {"3_": 2})
    assert "pictures without a caption: 2" in words(index_dataset([Entry(str(tmp_path))]))[0]


def test_regularisation_folders_and_the_same_picture_in_both(tmp_path: Path) -> None:
    dataset(tmp_path / "img", {"10_rufus cat": 2})
    dataset(tmp_path / "reg", {"1_cat": 3})
    found = index_dataset([Entry(str(tmp_path / "img"))], [Entry(str(tmp_path / "reg"))])
    assert [item.is_reg for item in found.items] == [False] * 2 + [True] * 3
    assert [item.id for item in found.items] == list(range(5)) and found.reg[0].caption == "cat"
    copy = tmp_path / "reg" / "1_cat" / "another name.png"
    copy.write_bytes((tmp_path / "img" / "10_rufus cat" / "01.png").read_bytes())
    with pytest.raises(BadInput) as caught:
        index_dataset([Entry(str(tmp_path / "img"))], [Entry(str(tmp_path / "reg"))])
    assert "01.png" in str(caught.value) and "another name.png" in str(caught.value)
    assert caught.value.exit_code == 2


def test_only_files_of_equal_size_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "img" / "1_a" / "a.png", 50, 50)
    save(tmp_path / "reg" / "1_b" / "b.png", 70, 70)
    monkeypatch.setattr(index, "_hash", lambda facts: pytest.fail(f"hashed {facts.path}"))
    index_dataset([Entry(str(tmp_path / "img"))], [Entry(str(tmp_path / "reg"))])


def test_class_folders_without_a_usable_picture_are_refused(tmp_path: Path) -> None:
    dataset(tmp_path / "img", {"1_a": 1})
    (tmp_path / "reg" / "1_b").mkdir(parents=True)
    (tmp_path / "reg" / "1_b" / "x.png").touch()
    with pytest.raises(BadInput, match="No class picture"):
        index_dataset([Entry(str(tmp_path / "img"))], [Entry(str(tmp_path / "reg"))])


def test_without_broken_ones_ids_stay_and_nothing_left_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path, {"1_a": 3})
    found = index_dataset([Entry(str(tmp_path))])
    broken = [index.Skipped(found.items[0].path, say("it is broken"))]
    assert [item.id for item in found.without(broken).items] == [1, 2]
    with pytest.raises(BadInput, match="No picture to learn"):
        found.without([index.Skipped(item.path, say("it is broken")) for item in found.items])


def test_progress_is_told_and_may_stop(tmp_path: Path) -> None:
    dataset(tmp_path, {"1_a": 3})
    seen: list[tuple[int, int]] = []
    index_folders([Entry(str(tmp_path))], on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 3)]

    def stop(done: int, total: int) -> None:
        raise Stopped(say("Stopped."))

    with pytest.raises(Stopped):
        index_folders([Entry(str(tmp_path))], on_progress=stop)


def test_a_remembered_picture_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dataset(tmp_path, {"1_a": 3}) / "1_a"
    for picture in folder.iterdir():
        os.utime(picture, (1e9, 1e9))
    memo = Memo()
    first = index_dataset([Entry(str(tmp_path))], memo=memo, verify=True)
    monkeypatch.setattr(index, "read_size", lambda path: pytest.fail(f"opened {path}"))
    monkeypatch.setattr(index, "check_pixels", lambda path: pytest.fail(f"decoded {path}"))
    assert index_dataset([Entry(str(tmp_path))], memo=memo, verify=True).items == first.items
    monkeypatch.undo()
    save(folder / "01.png", 200, 100)
    os.utime(folder / "01.png", (1.1e9, 1.1e9))
    assert index_dataset([Entry(str(tmp_path))], memo=memo).items[1].size == (200, 100)


def test_the_index_and_the_refusal_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "1_a").mkdir()
    script = (
        "import sys\n"
        "import trainer.data.index, trainer.data.report, trainer.estimate, trainer.data.captions\n"
        "from trainer.config.run import Folder\n"
        "from trainer.errors import BadInput\n"
        "try: trainer.data.index.index_dataset([Folder(path=sys.argv[1])])\n"
        "except BadInput as error: print(error)\n"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert "no folder in it can be used" in done.stdout and done.stdout.endswith("[]\n")
