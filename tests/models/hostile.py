"""Files that mean harm: pickles that would run something, bombs of memory and time. And how to write old formats by hand."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

PROTO = b"\x80\x02"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)


class Runs:
    """An object that would call something on loading, as every harmful pickle does in the end."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(number: int) -> bytes:
    return b"M" + struct.pack("<H", number)


def zipped(content: bytes, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A torch zip with this data.pkl."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


def legacy(content: bytes) -> bytes:
    """What torch.save wrote before 1.6, without any storage, around this pickle."""
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    return MAGIC + pickle.dumps(1001, 2) + system + content + pickle.dumps([], 2)


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls module.name(arguments)."""
    return PROTO + f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def imports() -> dict[str, tuple[str, bytes]]:
    """Harmful pickles by name: the import that is to be named, and the bytes. `MARKER` stands for a file they would make."""
    touch = text("touch MARKER")
    write = text("open('MARKER', 'w')")
    found = {
        "os.system": ("os.system", call("os", "system", touch)),
        "posix.system": ("posix.system", call("posix", "system", touch)),
        "nt.system": ("nt.system", call("nt", "system", touch)),
        "subprocess": ("subprocess.Popen", call("subprocess", "Popen", touch)),
        "eval": ("builtins.eval", call("builtins", "eval", write)),
        "exec, python 2": ("__builtin__.exec", call("__builtin__", "exec", write)),
        "compile": ("builtins.compile", call("builtins", "compile", write)),
        "open": ("builtins.open", call("builtins", "open", text("MARKER"), text("w"))),
        "getattr chain": ("builtins.getattr", call("builtins", "getattr", b"cos\nsystem\n", text("__call__"))),
        "__import__": ("builtins.__import__", call("builtins", "__import__", text("os"))),
        "torch.load": ("torch.load", call("torch", "load", text("MARKER"))),
        "torch.hub": ("torch.hub.load", call("torch.hub", "load", text("x/y"))),
        "load from bytes": ("torch.storage._load_from_bytes", call("torch.storage", "_load_from_bytes", b"C\x01a")),
        "jit": ("torch.jit._serialization.load", call("torch.jit._serialization", "load", text("MARKER"))),
        "copyreg.add_extension": (
            "copyreg.add_extension", call("copyreg", "add_extension", text("os"), text("system"), b"K\x01"),
        ),
        "copyreg around it": ("os.system", call("copyreg", "_reconstructor", b"cos\nsystem\n", b"N", b"N")),
        "pickle in pickle": ("pickle.loads", call("pickle", "loads", b"C\x01a")),
        "marshal": ("marshal.loads", call("marshal", "loads", b"C\x01a")),
        "types.FunctionType": ("types.FunctionType", call("types", "FunctionType")),
        "functools": ("functools.partial", call("functools", "partial", b"cos\nsystem\n", touch)),
        "webbrowser": ("webbrowser.open", call("webbrowser", "open", text("http://localhost"))),
        "numpy's own loader": ("numpy.load", call("numpy", "load", text("MARKER"))),
        "runpy": ("runpy._run_code", call("runpy", "_run_code", write)),
        "dunder of an allowed name": (
            "collections.OrderedDict.__init__", call("collections", "OrderedDict.__init__"),
        ),
        "allowed module, other name": ("torch._utils._import_dotted_name", call("torch._utils", "_import_dotted_name")),
        "main": ("__main__.Model", call("__main__", "Model")),
        "a framework": ("ldm.util.instantiate_from_config", call("ldm.util", "instantiate_from_config", b"}")),
        "INST": ("os.system", b"(S'touch MARKER'\nios\nsystem\n."),
        "OBJ": ("os.system", b"(cos\nsystem\nS'touch MARKER'\no."),
        "NEWOBJ": ("subprocess.Popen", PROTO + b"csubprocess\nPopen\n" + touch + b"\x85\x81."),
        "NEWOBJ_EX": ("subprocess.Popen", b"\x80\x04csubprocess\nPopen\n" + touch + b"\x85}\x92."),
        "STACK_GLOBAL": ("os.system", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R."),
        "BUILD": ("os.system", PROTO + b"ccollections\nOrderedDict\n)R}(" + text("__setstate__") + b"cos\nsystem\nub."),
        "hidden behind data": ("os.system", PROTO + b"}" + text("a") + b"K\x01s0cos\nsystem\n(" + touch + b"tR."),
        "unicode name": ("оs.system", call("оs", "system", touch)),  # a Cyrillic о
    }  # fmt: skip
    return {name: (wanted, content) for name, (wanted, content) in found.items()}


def strange() -> dict[str, tuple[str, bytes]]:
    """Pickles that ask for nothing by name and still are no weights: words of the refusal, and the bytes."""
    return {
        "extension registry": ("extension registry", b"\x80\x02\x82\x01."),
        "extension registry, long": ("extension registry", b"\x80\x02\x84\x01\x00\x00\x00."),
        "text persistent id": ("outside", b"Pfile:///etc/passwd\n."),
        "persistent id": ("outside", PROTO + text("x") + b"Q."),
        "storage of a stranger": (
            "storage of a kind",
            PROTO + b"(" + text("storage") + b"ccollections\nOrderedDict\n" + text("0") + text("cpu") + b"K\x04tQ.",
        ),
        "buffers": ("instruction", b"\x80\x05\x97."),
        "unknown instruction": ("instruction", b"\x80\x02\xff."),
        "protocol 9": ("", b"\x80\x09N."),
        "calls text": ("no function", PROTO + text("os.system") + b")R."),
        "calls a number": ("no function", PROTO + b"K\x05)R."),
        "calls a dtype": ("no function", PROTO + b"ctorch\nfloat32\n)R."),
        "calls a storage class": ("no function", PROTO + b"ctorch\nFloatStorage\n)R."),
        "endless line": ("", b"c" + b"a" * 100_000),
        "long integer": ("number of", b"\x80\x02\x8b\x00\x00\x00\x7f" + b"\xff" * 100),
        "negative length": ("", b"\x80\x02\x8b\xff\xff\xff\xff" + b"\xff" * 100),
        "huge bytes": ("longer than", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc."),
        "huge text": ("longer than", b"\x80\x02X\xff\xff\xff\xffabc."),
        "huge frame": ("longer than", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN."),
        "huge memo": ("", b"\x80\x02Nr\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff."),
        "empty stack": ("damaged", b"\x80\x02."),
        "pops below": ("damaged", b"\x80\x020000."),
        "no mark": ("damaged", b"\x80\x02NNt."),
        "odd table": ("damaged", b"\x80\x02(Nd."),
        "strange keys": ("keys", b"\x80\x02}]Ns."),
        "one key in two forms": ("1 twice", PROTO + b"}K\x01Ns" + text("1") + b"NsK\x01Ns."),
        "memory below the first place": ("damaged", PROTO + b"Np-1\n."),
        "memory far away": ("damaged", PROTO + b"Np%d\n." % (1 << 61)),
        "memory that nothing was put into": ("damaged", PROTO + b"Nq\x05h\x03."),
        "append to a number": ("damaged", b"\x80\x02K\x01Na."),
        "set on a number": ("damaged", b"\x80\x02K\x01NNs."),
    }


def bombs() -> Iterator[tuple[str, bytes]]:
    """Pickles that would take endless time or memory of a reader that takes them at their word."""
    yield "nested lists", PROTO + b"]" * 400_000 + b"a" * 399_999 + b"."
    yield "nested tuples", PROTO + b"N" + b"\x85" * 400_000 + b"."
    yield "doubling tuples", PROTO + b"N" + b"2\x86" * 200_000 + b"."
    yield "doubling lists", PROTO + b"]N" + b"a" + b"2]q\x00(h\x00h\x00ea" * 20_000 + b"."
    yield "hash of doubled tuples", PROTO + b"}K\x01" + b"2\x86" * 60 + b"Ns."
    yield "a table in itself", PROTO + b"}q\x00" + text("state_dict") + b"h\x00s."
    yield "a list in itself", PROTO + b"]q\x00h\x00a."
    yield "endless instructions", PROTO + b"N0" * 5_000_000 + b"N."
    yield "a million tables", PROTO + b"](" + b"}" * 450_000 + b"e."
    yield "a million records", PROTO + b"ctorch\nTensor\nq\x00](" + b"h\x00)\x81" * 150_000 + b"e."
    pairs = b"](" + b"NN\x86" * 50_000 + b"eq\x01ccollections\nOrderedDict\nq\x02("
    yield "copies of a long list", PROTO + pairs + b"h\x02h\x01\x85R" * 50_000 + b"l."
    yield "calls in calls", PROTO + _calls_in_calls(2000) + b"."
    yield (
        "colliding keys",
        PROTO
        + b"}("
        + b"".join(b"\x8a\x08" + struct.pack("<q", number << 41) + b"N" for number in range(100_000))
        + b"u.",
    )
    yield from _bombs_of_numpy()
    yield from _bombs_of_names()
    yield (
        "colliding places in memory",
        PROTO + b"N" + b"".join(b"p%d\n" % (k * ((1 << 61) - 1)) for k in range(400_000)) + b".",
    )
    yield (
        "copies of a long text",
        PROTO + text("a" * 8_000_000) + b"q\x00c_codecs\nencode\nq\x01](" + b"h\x01h\x00\x85R" * 60 + b"e.",
    )


def _bombs_of_numpy() -> Iterator[tuple[str, bytes]]:
    doubled = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60))
    yield "words for doubled lists", PROTO + doubled + b"cnumpy\ndtype\nh\x3c\x85R."
    yield "words for nested tuples", PROTO + b"cnumpy\ndtype\n)" + b"\x85" * 100_000 + b"R."
    scalar = (
        text("a" * 15_000_000)
        + b"q\x00cnumpy\ndtype\n"
        + text("zz")
        + b"\x85Rq\x01cnumpy.core.multiarray\nscalar\nq\x02"
    )
    yield "numbers of a long text", PROTO + scalar + b"h\x02h\x01h\x00\x86R0" * 70_000 + b"."


def _bombs_of_names() -> Iterator[tuple[str, bytes]]:
    numbers = b"".join(b"J" + struct.pack("<i", number) + b"]" for number in range(190_000))
    yield "long names of many tables", PROTO + b"}" + text("\U0001f600" * 900) + b"}(" + numbers + b"us."
    tensor = tensor_pickle(length=0, shape=(0,))[len(PROTO) + 1 + len(text("a")) : -2]
    weights = b"".join(text(f"{number}") + b"h\x00" for number in range(60_000))
    table = b"}(" + text("a") + tensor + b"q\x00" + weights + b"uq\x01"
    yield (
        "the weights again and again",
        PROTO + b"}(" + text("state_dict") + table + text("x") + b"](" + b"h\x01" * 19_000 + b"eu.",
    )
    words = text("\U0001f600" * 20_000) + b"q\x00"
    yield (
        "a long text again and again",
        PROTO + b"}(" + text("x") + words + text("y") + b"](" + b"h\x00" * 19_000 + b"eu.",
    )


def bombs_of_many() -> Iterator[tuple[str, bytes]]:
    """Files whose pickles are each within bounds, and together are not."""
    idle = b"N0" * 240_000
    row = PROTO + idle + b"(K\x01" + text("cpu") + b"ctorch\nFloatStorage\nt." + struct.pack("<q", 0)
    yield (
        "rows of a tar",
        tar({"pickle": PROTO + b"N.", "tensors": PROTO + b"K\0.", "storages": PROTO + b"M\xff\xff." + row * 40}),
    )


def _calls_in_calls(depth: int) -> bytes:
    function = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    inner = b"(ctorch\nSize\nN)Nt"
    for _ in range(depth):
        inner = b"(" + function + b"N" + inner + b"Nt"
    return function + inner + b"R"


def tensor_pickle(
    *, storage: str = "FloatStorage", key: str = "0", length: int = 4, offset: int = 0, shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,), name: str = "a",
) -> bytes:  # fmt: skip
    """data.pkl of {name: tensor} with whatever numbers."""

    def number(value: int) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    identity = (
        b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(length) + b"tQ"
    )
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + number(offset) + numbers(shape) + numbers(strides)
    return PROTO + b"}" + text(name) + made + b"\x89ccollections\nOrderedDict\n)RtRs."


def tar_of(tensors: dict[str, torch.Tensor]) -> bytes:
    """The form that torch had before 0.1.10: a tar with the members sys_info, pickle, storages and tensors."""
    names = {torch.float32: "FloatStorage", torch.float16: "HalfStorage", torch.int64: "LongStorage"}
    storages, rows = pickle.dumps(len(tensors), 2), pickle.dumps(len(tensors), 2)
    content = PROTO + b"}"
    for number, (name, tensor) in enumerate(tensors.items()):
        base = tensor.untyped_storage()
        kind = f"ctorch\n{names[tensor.dtype]}\n".encode()
        storages += PROTO + b"(" + short(100 + number) + text("cpu") + kind + b"t."
        storages += struct.pack("<q", base.nbytes() // tensor.element_size()) + bytes(base)
        rows += PROTO + b"(" + short(200 + number) + short(100 + number) + b"ctorch\nTensor\nt."
        rows += struct.pack(
            f"<q{2 * tensor.dim()}qq", tensor.dim(), *tensor.shape, *tensor.stride(), tensor.storage_offset()
        )
        content += text(name) + text(f"{200 + number}") + b"Qs"
    return tar({"sys_info": pickle.dumps({}, 2), "pickle": content + b".", "tensors": rows,
                "storages": storages + pickle.dumps([], 2)})  # fmt: skip


def tar(members: dict[str, bytes]) -> bytes:
    """A tar archive of these files."""
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
