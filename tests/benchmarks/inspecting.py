"""What `inspect` takes on models of full size, as files that hold only holes: every container that has a header."""

from __future__ import annotations

import json
import os
import pickle
import statistics
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trainer.paths import ROOT

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Bench, Figure

Shapes = dict[str, tuple[int, ...]]
TARGET_S = 0.3  # of the inspection, on a 7 GB file
ROUNDS = 5


def full_size_shapes(family: str) -> Shapes:
    """The names and shapes of a whole model's LDM file."""
    import torch

    from tests.tiny import family_of, full_size_model
    from trainer.models.saving import _part_rows

    parts = full_size_model(family, "meta", torch.float16)
    rows = (
        row
        for part, module in parts.modules().items()
        for row in _part_rows(family_of(family), parts, part, module, "F16")
    )
    return {name: shape for name, shape, _, _ in rows}


def write_safetensors(path: Path, shapes: Shapes) -> None:
    """A fp16 file whose numbers are a hole."""
    from tests.models.shapes import write

    write(path, shapes, {"modelspec.title": "of full size"})


class _Hole:
    """A storage's numbers: zeros that nobody has to write."""

    def __init__(self, count: int) -> None:
        self.count = count


def write_zip(path: Path, shapes: Shapes) -> None:
    """The same as torch.save writes it, each storage a hole."""
    sizes = {str(number): 2 * _product(shape) for number, shape in enumerate(shapes.values())}
    directory: list[bytes] = []
    with path.open("wb") as handle:
        _record(handle, directory, "archive/data.pkl", _pickle(shapes))
        for key, size in sizes.items():
            _record(handle, directory, f"archive/data/{key}", _Hole(size))
        _record(handle, directory, "archive/version", b"3\n")
        start = handle.tell()
        handle.write(b"".join(directory))
        _end(handle, len(directory), handle.tell() - start, start)
    with zipfile.ZipFile(path) as archive:  # the standard library's reader agrees that this is a zip
        assert archive.getinfo("archive/data/0").file_size == sizes["0"]


def _record(handle: BinaryIO, directory: list[bytes], name: str, content: bytes | _Hole) -> None:
    place, raw = handle.tell(), name.encode()
    size = content.count if isinstance(content, _Hole) else len(content)
    handle.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, size, size, len(raw), 0) + raw)
    if isinstance(content, _Hole):
        handle.seek(size, os.SEEK_CUR)
    else:
        handle.write(content)
    extra = struct.pack("<HHQ", 1, 8, place)
    fields = (b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, size, size, len(raw), len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
    directory.append(struct.pack("<4s6H3I5H2I", *fields) + raw + extra)


def _end(handle: BinaryIO, count: int, size: int, start: int) -> None:
    place = handle.tell()
    handle.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
    handle.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1))
    handle.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def write_pickles(path: Path, shapes: Shapes) -> None:
    """The same as torch wrote it before 1.6."""
    from tests.models.hostile import MAGIC

    keys = [str(number) for number in range(len(shapes))]
    with path.open("wb") as handle:
        handle.write(MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2))
        handle.write(_pickle(shapes) + pickle.dumps(keys, 2))
        for shape in shapes.values():
            handle.write(struct.pack("<q", _product(shape)))
            handle.seek(2 * _product(shape), os.SEEK_CUR)
        handle.truncate()


class _Storage:
    """A storage that is only spoken of."""

    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class _Tensor:
    """A contiguous tensor over the whole of a storage, pickled as torch pickles its own."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape

    def __reduce__(self) -> tuple[Any, ...]:
        from torch._utils import _rebuild_tensor_v2

        from trainer.models.safetensors_file import plain_strides

        arguments = (self.storage, 0, self.shape, plain_strides(self.shape), False, OrderedDict())
        return _rebuild_tensor_v2, arguments


def _pickle(shapes: Shapes) -> bytes:
    """data.pkl: {"state_dict": {name: tensor}} with a half-precision storage for each tensor."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, _Storage):
                return None
            return "storage", torch.HalfStorage, value.key, "cpu", value.count

    tensors = {
        name: _Tensor(_Storage(str(number), _product(shape)), shape)
        for number, (name, shape) in enumerate(shapes.items())
    }
    out = BytesIO()
    Pickler(out, 2).dump({"state_dict": tensors, "global_step": 5})
    return out.getvalue()


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


WRITERS: dict[str, Callable[[Path, Shapes], None]] = {
    "safetensors": write_safetensors, "torch zip": write_zip, "torch pickles": write_pickles,
}  # fmt: skip

_TIMED = (
    "import json, sys, time; from pathlib import Path; from trainer.models.header import inspect_file\n"
    "from trainer.models.weights_file import read_header\n"
    "status = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
    "before, wall, work = status(), time.perf_counter(), time.process_time(); facts = inspect_file(Path(sys.argv[1]))\n"
    "wall, work = time.perf_counter() - wall, time.process_time() - work\n"
    "assert facts.problem is None, str(facts.problem)\n"
    "print(json.dumps({'wall': wall, 'work': work, 'kb': status() - before, 'tensors': facts.num_tensors}))"
)


def inspection(path: Path) -> dict[str, Any]:
    """Seconds of the clock, of the processor, and memory of looking at one file, in a process of its own; medians."""
    seen = []
    for _ in range(ROUNDS):
        done = subprocess.run([sys.executable, "-c", _TIMED, str(path)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        seen.append(json.loads(done.stdout))
    return {name: statistics.median(row[name] for row in seen) for name in seen[0]}


def inspecting(bench: Bench) -> Iterator[Figure]:
    """`inspect` on 7 GB of SDXL in each container (and with its process), and on SD 1.5."""
    from tests.benchmarks.__main__ import Figure, _wall

    with tempfile.TemporaryDirectory() as folder:
        for family in ("sdxl", "sd1"):
            shapes = full_size_shapes(family)
            for container, write in WRITERS.items():
                path = Path(folder) / f"{family}.{'safetensors' if container == 'safetensors' else 'ckpt'}"
                write(path, shapes)
                row = inspection(path)
                detail = {"gigabytes": round(path.stat().st_size / 1e9, 2), **row}
                yield Figure(f"inspect {family}, {container}", row["wall"], "s", TARGET_S, detail)
                if (family, container) == ("sdxl", "safetensors"):
                    command = ["-m", "trainer", "inspect", str(path), "--json"]
                    yield _wall("trainer inspect on the same, with its process", bench, command, 1.5)
                path.unlink()
