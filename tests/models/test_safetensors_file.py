"""The safetensors header: what the format forbids is refused with a reason, and what it allows is read."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from trainer.models.opening import NotWeights
from trainer.models.safetensors_file import MAX_TENSORS, copied_header, read_header
from trainer.models.tensor_file import read_file


def entry(start: int = 0, end: int = 4, dtype: Any = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


def write(path: Path, text: bytes | dict[str, Any], data: bytes = bytes(8)) -> Path:
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def twice(name: str) -> bytes:
    one = json.dumps(entry(0, 4)), json.dumps(entry(4, 8))
    return f'{{"{name}": {one[0]}, "{name}": {one[1]}}}'.encode()


REFUSED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "a name twice": (twice("a"), "a twice"),
    "metadata twice": (b'{"__metadata__": {}, "__metadata__": {}, "a": 1}', "twice"),
    "over another": ({"a": entry(0, 8, shape=(2,)), "b": entry(4, 8)}, "over another"),
    "the same place": ({"a": entry(0, 4), "b": entry(0, 4), "c": entry(4, 8)}, "over another"),
    "a hole": ({"a": entry(4, 8)}, "a hole before a"),
    "too short": ({"a": entry(0, 4), "b": entry(4, 16, shape=(3,))}, "8 bytes are missing"),
    "too long": ({"a": entry(0, 4)}, "4 bytes too many"),
    "negative": ({"a": entry(-4, 0)}, "impossible place"),
    "backwards": ({"a": entry(4, 0)}, "impossible place"),
    "beyond numbers": ({"a": entry(0, 1 << 70)}, "impossible place"),
    "a fraction": ({"a": entry(0, 4.0)}, "in no way known"),  # type: ignore[arg-type]
    "a truth": ({"a": entry(False, 4)}, "in no way known"),
    "a size that is true": ({"a": entry(0, 4, shape=(True,))}, "in no way known"),
    "infinity": (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}', "in no way known"),
    "no number": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', "not JSON"),
    "a long number": (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}", "not JSON"),
    "negative sizes": ({"a": entry(0, 4, shape=(-1, -1))}, "impossible place"),
    "another size": ({"a": entry(0, 8)}, "does not fit its shape"),
    "overflowing sizes": ({"a": entry(0, 4, shape=(1 << 40, 1 << 40, 0, 1))}, "does not fit its shape"),
    "dimensions": ({"a": entry(0, 4, shape=(1,) * 65)}, "in no way known"),
    "a dtype that is none": ({"a": entry(0, 4, dtype=5)}, "in no way known"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, "in no way known"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, "in no way known"),
    "text for an entry": ({"a": "b"}, "in no way known"),
    "metadata that are none": ({"__metadata__": [1], "a": entry(0, 8, shape=(2,))}, "no table"),
    "half a character": (b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "not JSON"),
    "another encoding": ('{"é": 1}'.encode("latin-1"), "not JSON"),
    "deep": (b'{"a":' + b"[" * 100_000, "not JSON"),
    "deep tables": (b'{"a":' * 50_000, "not JSON"),
}
# What the format allows and no model has: only a reader that has to be quick refuses it.
MONSTROUS: dict[str, tuple[dict[str, Any], str]] = {
    "a name of millions": ({"1" * 4_000_000: entry(0, 8, shape=(2,))}, "impossible name"),
    "half a character within metadata": ({"__metadata__": {"x": ["\ud800"]}, "a": entry(0, 8, shape=(2,))}, "not JSON"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_the_format_forbids(tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    path = write(tmp_path / "x.safetensors", text)
    with pytest.raises(NotWeights) as raised:
        read_header(path)
    said = str(raised.value).replace("is not a table", "no table")
    assert words in said and "x.safetensors" in said
    with pytest.raises(safetensors.SafetensorError):  # the reference reader refuses it too
        safetensors.safe_open(path, "pt").keys()


@pytest.mark.parametrize("name", list(MONSTROUS))
def test_what_no_model_has(tmp_path: Path, name: str) -> None:
    text, words = MONSTROUS[name]
    with pytest.raises(NotWeights, match=words):
        read_header(write(tmp_path / "x.safetensors", text))


def test_a_long_text_is_not_copied_again_and_again(tmp_path: Path) -> None:
    """One letter of four bytes makes a text of as many letters as the header has bytes four times as large."""
    table = {"__metadata__": {"x": "🐱" + "a" * 4_000_000, "y": "🐱"}, "a": entry(0, 8, shape=(2,))}
    text = json.dumps(table, ensure_ascii=False).replace('"🐱"', '"\\ud83d\\udc31"').encode()
    path = write(tmp_path / "x.safetensors", text)
    tracemalloc.start()
    assert read_header(path).metadata["y"] == "🐱"
    assert tracemalloc.get_traced_memory()[1] < 44e6
    tracemalloc.stop()


def test_more_tensors_than_any_model(tmp_path: Path) -> None:
    table = {f"t{number}": entry(0, 0, shape=(0,)) for number in range(MAX_TENSORS + 1)}
    with pytest.raises(NotWeights, match="more than any model has"):
        read_header(write(tmp_path / "x.safetensors", table, b""))


def test_what_the_format_allows(tmp_path: Path) -> None:
    tensors = {
        "empty": torch.zeros(0, 4),
        "number": torch.tensor(5.0),
        "名": torch.arange(6).view(2, 3),
        "b": torch.ones(3).bool(),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"a": "b", "表": "🐱"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"a": "b", "表": "🐱"} and header.container == "safetensors"
    found = read_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    copy = copied_header(header, {"c": "d"})
    (tmp_path / "y.safetensors").write_bytes(copy + (tmp_path / "x.safetensors").read_bytes()[header.data_start :])
    assert read_header(tmp_path / "y.safetensors").shapes.keys() == tensors.keys()


def test_metadata_that_are_no_text_become_text(tmp_path: Path) -> None:
    """The format asks for strings; some writers put numbers and tables there."""
    path = write(tmp_path / "x.safetensors", {"__metadata__": {"a": 5, "b": {"c": [None]}}}, b"")
    assert read_header(path).metadata == {"a": "5", "b": '{"c": [null]}'}


def test_large_metadata_are_no_attack(tmp_path: Path) -> None:
    """Thumbnails and the tags of 100,000 pictures: much text, few entries."""
    tags = json.dumps({"folder": {f"tag {{{number}}} [x], y": number for number in range(100_000)}})
    path = write(
        tmp_path / "x.safetensors", {"__metadata__": {"ss_tag_frequency": tags, "thumbnail": "x" * 2_000_000}}, b""
    )
    assert read_header(path).metadata["ss_tag_frequency"] == tags


def test_a_file_that_shrinks_while_its_header_is_read(tmp_path: Path) -> None:
    from io import BytesIO

    from trainer.models.safetensors_file import read_header_from

    class Shrinking(BytesIO):
        def seek(self, place: int, whence: int = 0) -> int:
            return super().seek(place, whence) + (10_000 if whence == 2 else 0)

    raw = json.dumps({"a": entry(0, 4)}).encode()
    with pytest.raises(NotWeights, match="became shorter"):
        read_header_from(Shrinking(struct.pack("<Q", len(raw) + 50) + raw))
