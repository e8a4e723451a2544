"""What people pick by mistake, what is damaged, and what is no file at all: a sentence, and nothing is opened or written."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
from pathlib import Path

import pytest

from trainer.models.header import inspect_file
from trainer.models.safetensors_file import MAX_HEADER_BYTES

NO_MODELS: dict[str, tuple[str, bytes, str, str]] = {
    "empty": ("m.safetensors", b"", "broken", "empty"),
    "web page": ("m.safetensors", b"\n<!DOCTYPE html><html>login", "unknown", "web page"),
    "LFS pointer": ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "unknown", "Git LFS"),
    "cut pickle": ("m.ckpt", b"\x80\x02}q\x00(X", "broken", "cut short"),
    "other pickle": ("m.ckpt", b"\x80\x02}q\x00.", "unknown", "none that torch wrote"),
    "cut zip": ("m.ckpt", b"PK\x03\x04\x00\x00archive/data.pkl", "broken", "cut short"),
    "cut zip under a wrong name": ("m.safetensors", b"PK\x03\x04\x00\x00archive/data.pkl", "broken", "cut short"),
    "gzip": ("m.tar.gz", b"\x1f\x8b\x08\x00", "unknown", "packed archive"),
    "index": ("model_index.json", b"{}", "unknown", "Choose the folder"),
    "harmful": ("m.pt", b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00lR.", "pickle", "posix.system"),
    "zip": ("m.zip", b"PK\x03\x04\x00\x00model.safetensors", "unknown", "packed archive"),
    "rar": ("m.rar", b"Rar!\x1a\x07", "unknown", "packed archive"),
    "GGUF": ("m.gguf", b"GGUF\x03\x00", "unknown", "quantised"),
    "picture": ("m.png", b"\x89PNG\r\n", "unknown", "picture"),
    "text": ("m.txt", b"hello, this is some text", "unknown", "not a model file"),
    "noise": ("m.safetensors", bytes(range(17, 255, 3)) * 3, "unknown", "damaged or no model"),
    "five bytes": ("m.safetensors", b"\x10\0\0\0\0", "broken", "cut short"),
    "a site's answer": ("m.safetensors", b'{"error":"Unauthorized"}', "unknown", "“{\"error\""),
    "a Chinese answer": ("m.ckpt", "请先登录\n".encode() * 60, "unknown", "“请先登录 请先登录"),
    "a page with a mark": ("m.safetensors", b"\xef\xbb\xbf\r\n<!DOCTYPE html>", "unknown", "web page"),
    "a page with a remark": ("m.safetensors", b"<!-- hello --><html>", "unknown", "web page"),
    "not JSON": ("m.safetensors", struct.pack("<Q", 10) + b"{nonsense}", "unknown", "damaged"),
    "a list": ("m.safetensors", struct.pack("<Q", 4) + b"[{}]", "unknown", "damaged"),
    "deep": ("m.safetensors", struct.pack("<Q", 200005) + b'{"a":' + b"[" * 200000, "unknown", "damaged"),
    "odd entry": ("m.safetensors", struct.pack("<Q", 9) + b'{"a":"b"}', "unknown", "damaged"),
    "huge header": ("m.safetensors", struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * 50, "unknown", "damaged"),
    "cut header": ("m.safetensors", struct.pack("<Q", 1000) + b'{"a":', "broken", "cut short"),
}


@pytest.mark.parametrize("name", list(NO_MODELS))
def test_files_that_are_no_models(awkward: Path, name: str) -> None:
    filename, data, kind, words = NO_MODELS[name]
    path = awkward / filename
    path.write_bytes(data)
    facts = inspect_file(path)
    assert facts.kind == kind
    assert words in str(facts.problem)


def test_wrong_places_in_a_header(tmp_path: Path) -> None:
    for entry in (
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": "ab"},
        {"dtype": "F32", "shape": 7, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]},
    ):
        text = json.dumps({"a": entry}).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
        assert inspect_file(path).kind == "unknown"


def test_no_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.models import header

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(header, "read_header", full)
    (tmp_path / "x.safetensors").write_bytes(bytes(range(100)))
    assert str(inspect_file(tmp_path / "x.safetensors").problem).endswith("cannot be read: there is not enough memory.")


def test_a_cut_download(tmp_path: Path, tiny_file: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(tiny_file.read_bytes()[:-1000])
    facts = inspect_file(path)
    assert facts.kind == "broken" and "1000 bytes are missing" in str(facts.problem)


def test_unreadable_missing_and_impossible_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect_file(tmp_path / "none.safetensors").kind == "missing"
    assert inspect_file("a\0b").problem is not None
    assert inspect_file("x" * 5000).problem is not None
    path = tmp_path / "locked.safetensors"
    path.write_bytes(b"x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trainer.models.opening.FileIO", refuse)
    facts = inspect_file(path)
    assert facts.kind == "broken" and "Permission denied" in str(facts.problem)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    assert "model_index.json" in str(inspect_file(tmp_path).problem)
    for name, words in (
        ("StableDiffusionXLPipeline", "no UNet"), ("FluxPipeline", "FLUX"), ("StableDiffusion3Pipeline", "Diffusion 3"),
        ("KandinskyPipeline", "KandinskyPipeline"),
    ):  # fmt: skip
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}), encoding="utf-8")
        assert words in str(inspect_file(tmp_path).problem)
    (tmp_path / "model_index.json").write_text("[]", encoding="utf-8")
    assert inspect_file(tmp_path).kind == "broken"


def test_what_is_no_ordinary_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe without a writer would block for ever, a device could do anything."""
    places = [Path("/dev/zero"), Path("/dev/tty")] if os.name != "nt" else [Path("NUL")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        places.append(tmp_path / "pipe.safetensors")
    for path in places:
        if path.exists():
            facts = inspect_file(path)
            assert facts.kind == "broken" and "a named pipe, a device or a socket" in str(facts.problem)


def test_links(tmp_path: Path, tiny_file: Path) -> None:
    try:
        (tmp_path / "good.safetensors").symlink_to(tiny_file)
        (tmp_path / "dead.safetensors").symlink_to(tmp_path / "nowhere")
        (tmp_path / "ring.safetensors").symlink_to(tmp_path / "ring.safetensors")
    except OSError:
        pytest.skip("this system makes no links for everybody")
    assert inspect_file(tmp_path / "good.safetensors").kind == "base"
    dead = inspect_file(tmp_path / "dead.safetensors")
    assert dead.kind == "missing" and "is a link to a file that is not there" in str(dead.problem)
    assert inspect_file(tmp_path / "ring.safetensors").problem is not None


def test_a_drive_that_goes_away_while_it_is_read(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.models import safetensors_file

    def gone(text: bytes) -> dict[str, object]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(safetensors_file, "_json", gone)
    facts = inspect_file(tiny_file)
    assert facts.kind == "broken" and "Input/output error" in str(facts.problem)


def test_any_thread_may_ask(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(tiny_file.read_bytes()[:5000])
    kinds: list[str] = []

    def ask() -> None:
        for _ in range(5):
            kinds.append(inspect_file(tiny_file).kind)
            kinds.append(inspect_file(tmp_path / "torn.safetensors").kind)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kinds) == ["base"] * 20 + ["broken"] * 20


def test_nothing_is_written_beside_a_model(tiny_file: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tiny_file.parent.iterdir()}
    mode = stat.S_IMODE(tiny_file.stat().st_mode)
    inspect_file(tiny_file)
    assert {path.name: path.stat().st_mtime_ns for path in tiny_file.parent.iterdir()} == before
    assert stat.S_IMODE(tiny_file.stat().st_mode) == mode
