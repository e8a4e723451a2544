"""How a folder's caption files are encoded: UTF-8 if they say so, else judged from all of them together.

One short file says little; all of a folder's say enough. Every candidate encoding is a rough model of text: how likely
it makes the bytes that are there. The likeliest wins, and if it doesn't win clearly, the result is marked doubtful.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log

MAX_BYTES = 65_536  # of one caption file; more is no caption
_CLEAR_NATS = 6.0  # the winner must be e⁶ = 400 times likelier than the second
_TELLING_BYTES = 3  # fewer bytes that are not ASCII say nothing for sure
_LETTERS = 64  # about how many ASCII characters text is made of
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Decoded:
    """A folder's texts by name. `encodings` counts files by encoding; `doubtful` names those that may be misread."""

    texts: Mapping[str, str]
    encodings: Mapping[str, int]
    doubtful: frozenset[str] = frozenset()


def decode_folder(files: Mapping[str, bytes]) -> Decoded:
    """Decode the caption files of one folder (name to content). Never fails: what fits nothing is decoded with gaps."""
    texts: dict[str, str] = {}
    encodings: Counter[str] = Counter()
    unknown: dict[str, bytes] = {}
    weak: dict[str, bytes] = {}
    for name, data in files.items():
        encoding = _stated(data)
        if encoding is None:
            unknown[name] = data
            continue
        texts[name] = _strip(data.decode(encoding, errors="replace"))
        encodings["utf-8" if encoding == "utf-8-sig" else encoding] += 1
        if encoding == "utf-8" and _is_weak_utf8(data):
            weak[name] = data
    if not unknown:
        return Decoded(texts, dict(encodings))
    encoding, sure = judge(list(unknown.values()))
    for name, data in weak.items():  # two-byte UTF-8 that is also the folder's own encoding: the folder decides
        if encoding in _DOUBLE_BYTE and _fits(data, encoding):
            unknown[name] = data
            encodings["utf-8"] -= 1
    for name, data in unknown.items():
        texts[name] = _strip(data.decode(encoding, errors="replace"))
    encodings[encoding] += len(unknown)
    doubtful = frozenset(n for n, data in unknown.items() if not sure or not _fits(data, encoding))
    return Decoded(texts, {name: count for name, count in encodings.items() if count}, doubtful)


def judge(samples: list[bytes]) -> tuple[str, bool]:
    """The encoding that makes `samples` (none of them UTF-8) likeliest, and whether it is clear."""
    scores = {name: sum(_likelihood(data, name) for data in samples) for name in _CANDIDATES}
    best, second = sorted(scores, key=lambda name: -scores[name])[:2]
    if not any(_fits(data, best) for data in samples):
        return _second_opinion(samples), False
    telling = sum(byte >= 0x80 or byte == 0 for data in samples for byte in data)
    return best, telling >= _TELLING_BYTES and scores[best] - scores[second] > _CLEAR_NATS


def _stated(data: bytes) -> str | None:
    """The encoding that the bytes themselves tell: a byte order mark, or valid UTF-8 without NUL bytes."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    return "utf-8" if b"\0" not in data and _fits(data, "utf-8") else None


def _is_weak_utf8(data: bytes) -> bool:
    """Whether all that speaks for UTF-8 is two-byte sequences, which pairs of GBK or Shift-JIS bytes can be by chance."""
    text = data.decode("utf-8")
    return not text.isascii() and max(text) < "\u0800"


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _strip(text: str) -> str:
    return text.lstrip("\ufeff").replace("\0", "")


def _second_opinion(samples: list[bytes]) -> str:
    """For what none of our models explains."""
    from charset_normalizer import from_bytes

    guess = from_bytes(b"\n".join(samples)).best()
    return guess.encoding if guess is not None else "cp1252"


# What each encoding expects of a character that is not ASCII: the share of text that is of the character's class,
# divided among the class's members. Classes follow the encodings' own order, which is by frequency of use.

_BROKEN = -30.0  # for each place where the bytes are not valid: one damaged file must not decide for the folder
_RARE = log(1e-7)


def _gbk(char: str, raw: bytes, around: str) -> float:
    lead = raw[0]
    if len(raw) == 2 and 0xB0 <= lead <= 0xD7 and raw[1] >= 0xA1:
        return log(0.42 / 3755)  # GB 2312 level 1: the common characters
    if len(raw) == 2 and 0xA1 <= lead <= 0xA3 and raw[1] >= 0xA1:
        return log(0.07 / 282)  # punctuation and full-width letters
    if len(raw) == 2 and 0xD8 <= lead <= 0xF7 and raw[1] >= 0xA1:
        return log(0.009 / 3008)  # level 2
    return log(0.001 / 20000)


def _shift_jis(char: str, raw: bytes, around: str) -> float:
    if "\u3041" <= char <= "\u30ff":
        return log(0.25 / 170)  # kana
    if len(raw) == 2 and 0x88 <= raw[0] <= 0x97:
        return log(0.18 / 2965)  # JIS level 1
    if len(raw) == 2 and raw[0] in (0x81, 0x82):
        return log(0.06 / 200)
    if len(raw) == 1:
        return log(0.003 / 63)  # half-width kana
    return log(0.007 / 3400)


def _big5(char: str, raw: bytes, around: str) -> float:
    if len(raw) == 2 and 0xA4 <= raw[0] <= 0xC6:
        return log(0.40 / 5401)
    if len(raw) == 2 and 0xA1 <= raw[0] <= 0xA3:
        return log(0.07 / 408)
    return log(0.01 / 7652)


def _korean(char: str, raw: bytes, around: str) -> float:
    if "\uac00" <= char <= "\ud7a3":
        return log(0.45 / 2350)
    return log(0.01 / 5500)


def _western(char: str, raw: bytes, around: str) -> float:
    if "\x80" <= char <= "\x9f":
        return _RARE  # cp1252 leaves these unassigned
    if char.isalpha():
        return log((0.03 if around[0].isascii() else 0.002) / _LETTERS)
    return log(0.008 / 64)  # curly quotes, dashes, signs


def _cyrillic(char: str, raw: bytes, around: str) -> float:
    if not "\u0400" <= char <= "\u04ff":
        return log(0.005 / _LETTERS)
    if any(near.isascii() and near.isalpha() for near in around):
        return log(0.0005 / _LETTERS)  # no word mixes the alphabets
    return log((0.65 if char.islower() else 0.05) / 32)


def _wide(char: str, raw: bytes, around: str) -> float:
    if "\u4e00" <= char <= "\u9fff":
        return log(0.3 / 20992)
    if "\u3000" <= char <= "\u30ff" or "\uff00" <= char <= "\uffef" or "\xa0" <= char <= "\u024f":
        return log(0.1 / 700)
    return log(0.001 / 40000)


_Model = Callable[[str, bytes, str], float]  # a character, its bytes, its two neighbours
_CANDIDATES: Mapping[str, _Model] = {
    "gb18030": _gbk,
    "cp932": _shift_jis,
    "cp1252": _western,
    "cp1251": _cyrillic,
    "big5": _big5,
    "euc_kr": _korean,
    "utf-16-le": _wide,
    "utf-16-be": _wide,
}
_DOUBLE_BYTE = frozenset({"gb18030", "cp932", "big5", "euc_kr"})


def _likelihood(data: bytes, encoding: str) -> float:
    """ln P(bytes | encoding), roughly."""
    text = data.decode(encoding, errors="replace")
    model = _CANDIDATES[encoding]
    padded = f" {text} "
    total = 0.0
    for at, char in enumerate(text):
        if char < "\x80":
            total += _RARE if char < " " and char not in "\t\r\n" else log(0.9 / _LETTERS)
        elif char == "\ufffd":
            total += _BROKEN
        else:
            total += model(char, char.encode(encoding), padded[at] + padded[at + 2])
    return total
