"""Writes what a tool makes: checked beforehand, tensor by tensor, beside the target, its hash in the header."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainer.errors import BadInput, RunFailed
from trainer.files import atomic_path, free_bytes
from trainer.hashes import ModelHashes
from trainer.messages import say
from trainer.models.safetensors_file import ITEM_BYTES, header_bytes
from trainer.models.tensor_file import tensor_bytes
from trainer.tools.watch import Meter, Watch

if TYPE_CHECKING:
    import torch

HASH = "modelspec.hash_sha256"
SSHS = ("sshs_model_hash", "sshs_legacy_hash")
_NO_HASHES = {HASH: "0x" + "0" * 64, "sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8}
_MB = 1_000_000
_SPARE_BYTES = 64 * _MB  # a disk that is filled to the last byte disturbs everything else
WRITING = say("Writing")


class Row(NamedTuple):
    """A tensor to write: its name, shape and dtype ("F16"), and what gives it when it is its turn."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    give: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def data(self) -> memoryview:
        """Its bytes in the file."""
        return tensor_bytes(self.give(), self.name, self.shape, self.dtype)


def check_output(output: Path, inputs: Iterable[Path], suffixes: Sequence[str], overwrite: bool) -> None:
    """Refuse, before any work, a target that is an input, exists, or has an ending that is not among `suffixes`.

    Raises BadInput.
    """
    if "\0" in str(output):
        raise BadInput(say("No file can have the name {path}.", path=str(output)))
    if suffixes and output.suffix.lower() not in suffixes:
        raise BadInput(
            say("The output {path} should end in {suffixes}.", path=str(output), suffixes=" / ".join(suffixes))
        )
    for given in inputs:
        if same_place(given, output):
            raise BadInput(
                say("The output is what is read, or lies in it: {path}.", path=str(output)), say("Choose another name.")
            )
    if output.is_dir() and (suffixes or not _may_be_replaced(output)):
        raise BadInput(say("There is a folder of this name: {path}.", path=str(output)), say("Choose another name."))
    if output.exists() and not overwrite:
        raise BadInput(
            say("There is a file or folder of this name: {path}.", path=str(output)),
            say("Choose another name, or switch on “Overwrite” (--overwrite)."),
        )


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or a diffusers model: nothing else of the user's is ever replaced by one."""
    return (folder / "model_index.json").is_file() or not any(folder.iterdir())


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are the same file or folder, or one lies in the other, which is a folder."""
    if "\0" in str(one):
        return False  # no path at all, as its reader will say
    first, second = one.resolve(), other.resolve()
    if first == second or (second.exists() and first.exists() and first.samefile(second)):
        return True
    return (first.is_dir() and first in second.parents) or (second.is_dir() and second in first.parents)


def check_space(folder: Path, num_bytes: int) -> None:
    """Raise RunFailed if the disk has not room for so many bytes beside what is there."""
    free = free_bytes(folder)
    if free < num_bytes + _SPARE_BYTES:
        raise RunFailed(
            say(
                "The disk of {folder} has {free} MB free, {needed} MB are needed.",
                folder=str(folder),
                free=free // _MB,
                needed=(num_bytes + _SPARE_BYTES) // _MB + 1,
            ),
            say("Make room, or write to another disk."),
        )


def write_safetensors(path: Path, rows: Sequence[Row], metadata: Mapping[str, str], watch: Watch) -> None:
    """Write a .safetensors file atomically, one tensor in memory at a time, with `modelspec.hash_sha256` in its header.

    So are `sshs_model_hash` and `sshs_legacy_hash` where `metadata` has them, whatever it says. They stand before the
    bytes that they are of: their place is kept free and filled at the end. Raises OSError, RunFailed, Stopped; `path` is
    then as it was.
    """
    ordered = sorted(rows, key=lambda row: (-ITEM_BYTES[row.dtype], row.name))
    table = {row.name: (row.dtype, row.shape) for row in ordered}
    meter = watch.meter(WRITING, sum(row.num_bytes for row in ordered))
    check_space(path.parent, meter.total)
    places = {name: text for name, text in _NO_HASHES.items() if name == HASH or name in metadata}
    hashed = {name: text for name, text in metadata.items() if name.startswith("ss_")}  # as kohya's programs have it
    hashes = ModelHashes(header_bytes(table, hashed))
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        handle.write(header_bytes(table, {**metadata, **places}))

        def put(data: memoryview) -> None:
            handle.write(data)
            hashes.update(data)

        put_in_turn((row.data() for row in ordered), put, meter)
        handle.seek(0)
        handle.write(header_bytes(table, {**metadata, **{name: hashes.all()[name] for name in places}}))


def put_in_turn(pieces: Iterable[memoryview], put: Callable[[memoryview], None], meter: Meter) -> None:
    """`put` every piece in a thread, while the caller's thread makes the next one: never more than two are held.

    Raises what making, `put` and the meter raise, after the piece at hand has been put.
    """
    with ThreadPoolExecutor(1, "put") as pool:
        last: Future[None] | None = None
        for piece in pieces:
            if last is not None:
                last.result()
            last = pool.submit(put, piece)
            meter.advance(len(piece))
        if last is not None:
            last.result()
