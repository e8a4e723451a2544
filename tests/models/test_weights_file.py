"""Any file of weights is read alike, whatever wrote it; nothing in a file is ever run, whatever it asks for."""

from __future__ import annotations

import collections
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import hostile
from tests.models.hostile import PROTO, legacy, save, tensor_pickle, text, zipped
from trainer.errors import BadInput
from trainer.models.header import inspect_file
from trainer.models.opening import NotWeights
from trainer.models.tensor_file import read_file, read_tensor
from trainer.models.weights_file import read_header

BASE = torch.arange(24.0).view(4, 6)
TENSORS = {
    "plain": BASE,
    "turned": BASE.t(),
    "cut": BASE[1:3, 2:4],
    "stepped": BASE[::2, ::3],
    "row": BASE[2],
    "parameter": torch.nn.Parameter(torch.randn(3).half()),
    "number": torch.tensor(5),
    "bf16": torch.randn(5).bfloat16(),
    "double": torch.randn(2, 2, dtype=torch.float64),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "yes": torch.tensor([True, False]),
    "long": torch.arange(3),
    "short": torch.arange(3, dtype=torch.int16),
    "nothing": torch.zeros(0, 3),
    "one": torch.zeros(1, 1, 4).transpose(0, 2),
}
OLD = {"_use_new_zipfile_serialization": False}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor.detach()), name
        assert found[name].is_contiguous()


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "pickles"])
def test_tensors_of_every_kind(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": collections.OrderedDict(TENSORS), "global_step": 7, "epoch": 2.5}, path, **options)
    header = read_header(path)
    assert header.container == ("torch_pickle" if options else "torch_zip")
    assert header.tree == {"state_dict": {}, "global_step": 7, "epoch": 2.5}
    same(read_file(path), TENSORS)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "pickles"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, options: dict[str, Any], protocol: int) -> None:
    torch.save({"a": BASE, "b": {"c": [BASE[0], (BASE[1],)]}}, tmp_path / "x.pt", pickle_protocol=protocol, **options)
    same(read_file(tmp_path / "x.pt"), {"a": BASE, "b.c.0": BASE[0], "b.c.1.0": BASE[1]})


def test_small_numbers_in_the_newest_form(tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([1, 2, 3], dtype=torch.uint16),
        "b": torch.ones(2, dtype=torch.float8_e4m3fn),
        "c": torch.ones(2),
    }
    torch.save(tensors, tmp_path / "x.pt")
    found = read_file(tmp_path / "x.pt")
    assert torch.equal(found["a"].int(), tensors["a"].int()) and torch.equal(found["b"].float(), torch.ones(2))


def test_a_tar_of_2016(tmp_path: Path) -> None:
    tensors = {"a": BASE, "b": BASE.t(), "c": torch.arange(3), "d": torch.ones(2).half()}
    path = save(tmp_path / "x.pt", hostile.tar_of(tensors))
    assert read_header(path).container == "torch_tar"
    same(read_file(path), tensors)
    theirs = torch.load(path, weights_only=False)  # torch itself agrees that this is the form
    assert all(torch.equal(theirs[name], tensor) for name, tensor in tensors.items())
    cut = save(tmp_path / "cut.pt", path.read_bytes()[:2000])
    with pytest.raises(NotWeights):
        read_header(cut)


def test_tensors_are_converted_and_shared_ones_are_their_own(tmp_path: Path) -> None:
    torch.save({"a": BASE, "b": BASE}, tmp_path / "x.pt")
    found = read_file(tmp_path / "x.pt", torch.float16)
    found["a"].zero_()
    assert found["a"].dtype == torch.float16 and torch.equal(found["b"], BASE.half())


def test_without_places_less_is_read(tmp_path: Path) -> None:
    torch.save({"a": BASE}, tmp_path / "x.pt")
    (info,) = read_header(tmp_path / "x.pt", located=False).tensors.values()
    assert info.start == -1 and info.shape == (4, 6)
    with (tmp_path / "x.pt").open("rb", buffering=0) as handle, pytest.raises(AssertionError):
        read_tensor(handle, info)


def test_the_weights_of_a_zip_are_not_read_for_its_header(tmp_path: Path) -> None:
    """data.pkl and the directory, whatever the size of the rest: what a slow drive has to give."""
    torch.save({"a": torch.zeros(1 << 20), "b": torch.zeros(1 << 20)}, tmp_path / "x.pt")
    reads: list[int] = []

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def read(self, count: int = -1) -> bytes:
            data = self._inner.read(count)
            reads.append(len(data))
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    from trainer.models.weights_file import read_header_from

    with (tmp_path / "x.pt").open("rb") as handle:
        assert len(read_header_from(Counting(handle), located=False).tensors) == 2  # type: ignore[arg-type]
    assert sum(reads) < 100_000


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **classes: Any) -> None:
    """A module with classes for writing: frameworks that nobody has installed any more."""
    module = types.ModuleType(name)
    for title, cls in classes.items():
        cls.__module__, cls.__qualname__ = name, title
        setattr(module, title, cls)
    for parent in [".".join(name.split(".")[:count]) for count in range(1, name.count(".") + 2)]:
        monkeypatch.setitem(sys.modules, parent, module if parent == name else types.ModuleType(parent))


def test_what_checkpoints_of_old_frameworks_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.monitor = "val/loss"

    class AttributeDict(dict):  # type: ignore[type-arg]
        pass

    stub(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint=ModelCheckpoint)
    stub(monkeypatch, "pytorch_lightning.utilities.parsing", AttributeDict=AttributeDict)
    saved = {
        "state_dict": {"a": BASE},
        "callbacks": {ModelCheckpoint: {"best": numpy.float64(0.25), "count": numpy.int64(3)}},
        "checkpoint": ModelCheckpoint(),
        "hyper_parameters": AttributeDict(rate=1e-4),
        "path": Path("models/x"),
        "tags": {"a", "b"},
        "numbers": numpy.arange(3.0),
        "optimizer_states": [{"state": {0: {"exp_avg": BASE}}, "param_groups": [{"lr": 0.1}]}],
    }
    for options in ({}, OLD):
        torch.save(saved, tmp_path / "x.ckpt", **options)
        header = read_header(tmp_path / "x.ckpt")
        assert list(header.tensors) == ["a"]  # an optimiser's states are no weights of the model
        name = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
        assert header.tree["callbacks"] == {name: {"best": 0.25, "count": 3}}
        assert header.tree["checkpoint"] == {"monitor": "val/loss"} and header.tree["hyper_parameters"] == {
            "rate": 1e-4
        }
        assert sorted(header.tree["tags"]) == ["a", "b"]
        assert header.tree["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]


def test_embeddings_and_hypernetworks(tmp_path: Path) -> None:
    vectors = torch.randn(4, 768)
    plain = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "cat", "step": 500}
    module = {**plain, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})}
    for saved in (plain, module):
        torch.save(saved, tmp_path / "x.pt")
        same(read_file(tmp_path / "x.pt"), {"string_to_param.*": vectors})
        facts = inspect_file(tmp_path / "x.pt")
        assert (facts.kind, facts.family, facts.vectors, facts.tree["step"]) == ("embedding", "sd1", 4, 500)
    torch.save({"<cat>": vectors[0]}, tmp_path / "x.bin")
    assert inspect_file(tmp_path / "x.bin").vectors == 1
    layers = ({"linear.0.weight": torch.zeros(8, 4)}, {"linear.0.weight": torch.zeros(8, 4)})
    torch.save({768: layers, 320: layers, "layer_structure": [1, 2, 1]}, tmp_path / "x.pt")
    facts = inspect_file(tmp_path / "x.pt")
    assert (facts.kind, facts.family, facts.num_tensors) == ("hypernetwork", "sd1", 4)
    torch.save(torch.randn(1, 768), tmp_path / "x.pt")
    assert inspect_file(tmp_path / "x.pt").kind == "aesthetic"


@pytest.mark.parametrize("wrapper", ["state_dict", "params_ema", "params", "model"])
def test_the_table_of_weights_is_found_in_its_wrapper(tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: {"a": BASE}, "step": 5}, tmp_path / "x.pth")
    assert list(read_header(tmp_path / "x.pth").tensors) == ["a"]


def test_a_whole_checkpoint_as_pickle(tmp_path: Path) -> None:
    from tests.tiny import save_tiny_file

    wanted = read_file(save_tiny_file(tmp_path))
    for options in ({}, OLD):
        path = tmp_path / "old.ckpt"
        torch.save({"state_dict": wanted, "global_step": 1}, path, **options)
        same(read_file(path), wanted)
        facts = inspect_file(path)
        assert (facts.kind, facts.family, facts.dtype) == ("base", "sd1", "fp32")
        assert facts.parts == {"unet", "vae", "text_encoder"}


# --- what is refused ---


@pytest.mark.parametrize("name", list(hostile.imports()))
def test_a_pickle_that_would_run_something_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted, content = hostile.imports()[name]
    files = {"zip.ckpt": zipped(content)}
    if content.startswith(b"\x80"):
        files |= {"plain.pt": content, "old.ckpt": legacy(content)}
    for filename, data in files.items():
        path = save(tmp_path / filename, data)
        with pytest.raises(BadInput, match="wants to import") as raised:
            read_header(path)
        assert wanted in str(raised.value) and filename in str(raised.value)
        facts = inspect_file(path)
        assert facts.kind == "pickle" and wanted in str(facts.problem) and ".safetensors version" in str(facts.problem)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)  # MARKER was never made


@pytest.mark.parametrize("name", list(hostile.strange()))
def test_pickles_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    words, content = hostile.strange()[name]
    with pytest.raises(NotWeights) as raised:
        read_header(save(tmp_path / "x.ckpt", zipped(content)))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"length": 5}, "larger than its storage"),
        ({"shape": (5,)}, "larger than its storage"),
        ({"offset": 1}, "larger than its storage"),
        ({"offset": -1}, "in no way known"),
        ({"shape": (-4,)}, "in no way known"),
        ({"strides": (-1,)}, "in no way known"),
        ({"strides": (2,)}, "larger than its storage"),
        ({"strides": ()}, "in no way known"),
        ({"shape": (1 << 40, 4), "strides": (0, 1)}, "without end"),
        ({"shape": (1 << 62,), "strides": (0,)}, "in no way known"),
        ({"shape": (1,) * 70, "strides": (1,) * 70}, "in no way known"),
        ({"key": "1"}, "are missing"),
        ({"key": "../../etc/passwd"}, "are missing"),
        ({"storage": "QUInt8Storage"}, "wants to import"),
        ({"name": "a\x1b[2J"}, "impossible name"),
        ({"name": "a" * 5000}, "impossible name"),
    ],
)
def test_tensors_at_impossible_places(tmp_path: Path, numbers: dict[str, Any], words: str) -> None:
    good = save(tmp_path / "good.pt", zipped(tensor_pickle(), {"data/0": struct.pack("<4f", 1, 2, 3, 4)}))
    assert read_file(good)["a"].tolist() == [1, 2, 3, 4]
    bad = save(tmp_path / "bad.pt", zipped(tensor_pickle(**numbers), {"data/0": bytes(16)}))
    with pytest.raises(NotWeights, match=words):
        read_header(bad)


def test_zips_that_are_no_plain_zips(tmp_path: Path) -> None:
    content = tensor_pickle()
    numbers = {"data/0": bytes(16)}
    packed = zipped(content, numbers, zipfile.ZIP_DEFLATED)
    with pytest.raises(NotWeights, match="numbers are packed"):
        read_header(save(tmp_path / "packed.pt", packed))
    big = zipped(content, {**numbers, "byteorder": b"big"})
    with pytest.raises(NotWeights, match="byte order"):
        read_header(save(tmp_path / "big.pt", big))
    with pytest.raises(NotWeights, match="TorchScript"):
        read_header(save(tmp_path / "script.pt", zipped(content, {"constants.pkl": b"", "code/x.py": b"import os"})))
    with pytest.raises(NotWeights, match="larger than that of any model"):
        read_header(save(tmp_path / "bomb.pt", zipped(b"\x80\x02" + bytes(64 << 20), {}, zipfile.ZIP_DEFLATED)))
    good = zipped(content, numbers)
    for cut in (10, len(good) // 2, len(good) - 1):
        with pytest.raises(NotWeights) as raised:
            read_header(save(tmp_path / "cut.pt", good[:cut]))
        assert raised.value.cut_short
    lying = good.replace(struct.pack("<I", len(content)) * 2, struct.pack("<I", len(content) + 5000) * 2)
    with pytest.raises(NotWeights):
        read_header(save(tmp_path / "lying.pt", lying))


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    import io
    import warnings

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in (tensor_pickle(), tensor_pickle(name="b")):
            archive.writestr("archive/data.pkl", content)
    with pytest.raises(NotWeights, match="twice"):
        read_header(save(tmp_path / "x.pt", out.getvalue()))


def test_storages_that_lie_over_each_other(tmp_path: Path) -> None:
    """The trick of the smallest zip bombs: many entries of the directory that share the same bytes."""
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        archive.writestr("archive/data/0", bytes(1000))
        archive.writestr("archive/data/1", bytes(1000))
        archive.infolist()[2].header_offset = archive.infolist()[1].header_offset
    with pytest.raises(NotWeights, match="lies over another"):
        read_header(save(tmp_path / "x.pt", out.getvalue()))


def test_the_same_storage_described_twice(tmp_path: Path) -> None:
    one, two = tensor_pickle()[2:-1], tensor_pickle(storage="HalfStorage", name="b")[3:-1]
    path = save(tmp_path / "x.pt", zipped(PROTO + one + two + b".", {"data/0": bytes(16)}))
    with pytest.raises(NotWeights, match="in two ways"):
        read_header(path)


def test_old_pickles_cut_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"a": BASE, "b": torch.ones(3)}, path, **OLD)
    whole = path.read_bytes()
    for cut in (20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(NotWeights) as raised:
            read_header(save(path, whole[:cut]))
        assert raised.value.cut_short
        assert inspect_file(path).kind == "broken"
    places = [info.start - 8 for info in read_header(save(path, whole)).tensors.values()]
    changed = bytearray(whole)
    changed[min(places)] += 1  # the length before the first storage
    with pytest.raises(NotWeights, match="damaged"):
        read_header(save(path, bytes(changed)))
    big = whole.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    with pytest.raises(NotWeights, match="byte order"):
        read_header(save(path, big))


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(NotWeights, match="none that torch wrote"):
        read_header(save(tmp_path / "x.pkl", pickle.dumps({"a": 1})))


def test_a_file_that_shrinks_while_its_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(10_000)}, path)
    (info,) = read_header(path).tensors.values()
    with path.open("r+b") as handle:
        handle.truncate(info.start + 100)
    with path.open("rb", buffering=0) as handle, pytest.raises(EOFError):
        read_tensor(handle, info)


def test_numbers_that_torch_has_not(tmp_path: Path) -> None:
    from tests.models.shapes import write
    from trainer.models import safetensors_file

    path = write(tmp_path / "x.safetensors", {"a": (4,)})
    data = path.read_bytes().replace(b'"F16"', b'"F77"')
    with pytest.raises(BadInput, match="kind F77"):
        read_file(save(path, data))
    assert safetensors_file.read_header(path).tensors["a"].dtype == "F77"


def test_text_of_python_2(tmp_path: Path) -> None:
    """SHORT_BINSTRING, INT, LONG, STRING, UNICODE, FLOAT, PUT and GET: what old pickles are made of."""
    content = b"\x80\x02}p0\n(U\x01aK\x01S'b\\n'\nI5\nVc\xe9\nL7L\nU\x01dF2.5\nU\x01eI01\nU\x01fg0\nu."
    tree = read_header(save(tmp_path / "x.pt", zipped(content))).tree
    assert {name: tree[name] for name in ("a", "b\n", "cé", "d", "e")} == {
        "a": 1,
        "b\n": 5,
        "cé": 7,
        "d": 2.5,
        "e": True,
    }
    assert text("a") == b"X\x01\x00\x00\x00a"
