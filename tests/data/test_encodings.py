"""Caption files in the encodings that users' folders have; the folder decides, and doubt is told."""

from __future__ import annotations

import codecs

import pytest

from trainer.data.encodings import decode_folder, judge

CHINESE = ["一个女孩站在红色的房子前面", "女孩，长发，蓝色眼睛，白色连衣裙", "一只猫坐在窗台上看着雨", "夜晚的城市街道"]
TRADITIONAL = ["一個女孩站在紅色的房子前面", "女孩，長髮，藍色眼睛", "一隻貓坐在窗台上看著外面的雨", "夜晚的城市街道"]
JAPANESE = ["赤い家の前に立っている女の子", "女の子、長い髪、青い目", "窓辺に座って雨を見ている猫", "夜の街、ネオンサイン"]
KOREAN = ["빨간 집 앞에 서 있는 소녀", "긴 머리와 파란 눈의 소녀", "창가에 앉아 비를 보고 있는 고양이"]
RUSSIAN = ["девушка стоит перед красным домом", "кошка сидит на подоконнике и смотрит на дождь"]
FRENCH = ["une fille à côté d’une maison rouge", "un café près de la fenêtre, été", "le garçon naïf, forêt, lumière dorée"]
GERMAN = ["ein Mädchen vor dem roten Haus", "schöne grüne Bäume, große Straße", "Katze auf der Fensterbank, Frühling"]
ENGLISH = ["a girl standing in front of a red house", "1girl, long hair, blue eyes"]


def folder(texts: list[str], encoding: str) -> dict[str, bytes]:
    return {f"{number}.txt": text.encode(encoding) for number, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("texts", "encoding", "found"),
    [
        (CHINESE, "gbk", "gb18030"),
        (JAPANESE, "cp932", "cp932"),
        (TRADITIONAL, "big5", "big5"),
        (KOREAN, "euc_kr", "euc_kr"),
        (RUSSIAN, "cp1251", "cp1251"),
        (FRENCH, "cp1252", "cp1252"),
        (GERMAN, "cp1252", "cp1252"),
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8"),
        (CHINESE, "utf-16", "utf-16"),
        (ENGLISH, "utf-16", "utf-16"),
        (CHINESE, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-16-be", "utf-16-be"),
        (JAPANESE, "utf-16-be", "utf-16-be"),
        (ENGLISH, "ascii", "utf-8"),
        (CHINESE, "utf-32", "utf-32"),
    ],
)
def test_a_folder_is_read_as_it_was_written(texts: list[str], encoding: str, found: str) -> None:
    decoded = decode_folder(folder(texts, encoding))
    assert list(decoded.texts.values()) == texts
    assert decoded.encodings == {found: len(texts)}
    assert not decoded.doubtful


@pytest.mark.parametrize(
    ("texts", "encoding"),
    [(CHINESE, "gbk"), (JAPANESE, "cp932"), (TRADITIONAL, "big5"), (KOREAN, "euc_kr"), (RUSSIAN, "cp1251")],
)
def test_every_single_caption_of_ordinary_length_is_enough(texts: list[str], encoding: str) -> None:
    for text in texts:
        assert decode_folder({"a.txt": text.encode(encoding)}).texts["a.txt"] == text


def test_tags_mixed_with_english_are_recognised() -> None:
    texts = ["1girl, 长发, blue eyes", "solo, 红色背景, standing", "cat, 坐着, window"]
    decoded = decode_folder(folder(texts, "gbk"))
    assert list(decoded.texts.values()) == texts and not decoded.doubtful


def test_many_files_decide_for_one_that_could_be_anything() -> None:
    alone = "女".encode("gbk")  # also valid UTF-8, by chance
    assert decode_folder({"a.txt": alone}).texts["a.txt"] != "女"
    together = decode_folder({"a.txt": alone} | folder(CHINESE, "gbk"))
    assert together.texts["a.txt"] == "女"
    assert together.encodings == {"gb18030": 5}


def test_files_of_two_kinds_in_one_folder_are_each_read_rightly() -> None:
    files = folder(CHINESE, "gbk") | {"u.txt": "一只黑猫".encode(), "b.txt": codecs.BOM_UTF8 + "白猫".encode()}
    decoded = decode_folder(files)
    assert decoded.texts["u.txt"] == "一只黑猫" and decoded.texts["b.txt"] == "白猫"
    assert decoded.encodings == {"gb18030": 4, "utf-8": 2}


def test_a_word_or_two_are_decoded_and_called_doubtful() -> None:
    decoded = decode_folder({"a.txt": b"na\xefve"})
    assert decoded.doubtful == {"a.txt"}


def test_bytes_that_fit_nothing_are_kept_as_far_as_they_go_and_doubtful() -> None:
    decoded = decode_folder({"a.txt": b"red \x81\xff\xfe house"} | folder(CHINESE, "gbk"))
    assert "red" in decoded.texts["a.txt"] and "house" in decoded.texts["a.txt"]
    assert "a.txt" in decoded.doubtful


def test_empty_files_and_lone_marks_are_empty_captions() -> None:
    decoded = decode_folder({"a.txt": b"", "b.txt": codecs.BOM_UTF8, "c.txt": codecs.BOM_UTF16_LE})
    assert list(decoded.texts.values()) == ["", "", ""]


def test_nothing_that_a_file_can_hold_raises() -> None:
    for data in (b"\xff", b"\x00", b"\x80\x80", b"\xff\xfe\x41", b"\xd8\x00", b"\xef\xbb\xbf\xff", bytes(range(256))):
        decode_folder({"a.txt": data})


def test_the_judge_is_sure_only_of_what_is_clear() -> None:
    assert judge([text.encode("gbk") for text in CHINESE]) == ("gb18030", True)
    assert judge([b"\xe9"])[1] is False
