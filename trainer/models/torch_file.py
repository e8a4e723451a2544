"""What torch.save wrote, in its three forms (zip, one pickle after the other, tar), as a header: nothing of it runs.

The pickle is read as data (`pickle_machine`), and each tensor is found at its place in the file, to be read plainly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO

from trainer.messages import say
from trainer.models import zip_file
from trainer.models.opening import NotWeights, shown
from trainer.models.pickle_machine import MAX_BYTES, BadPickle, Machine
from trainer.models.safetensors_file import ITEM_BYTES, MAX_DIMENSIONS, MAX_TENSORS, Container, Header, TensorInfo
from trainer.models.state_tree import find_tensors, plain_tree
from trainer.models.torch_objects import Storage, TensorRef, TorchWorld, checked_number, strides_or_none, tensor_of

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TAR_BLOCK = 512
_TAR_MEMBERS = 16  # torch wrote four

Place = Callable[[Storage], int]  # where a storage's first byte lies, -1 if that is not asked for


def read_zip(handle: BinaryIO, located: bool = True) -> Header:
    """The header of a zip written by torch.save.

    Args:
        handle: the open file.
        located: find each tensor's place, which takes a small read for each; else all starts are -1.

    Raises OSError and NotWeights.
    """
    records = zip_file.read_directory(handle)
    roots = [name.removesuffix("data.pkl") for name in records if name.count("/") <= 1 and name.endswith("data.pkl")]
    if len(roots) != 1:
        raise NotWeights(say("it is a packed archive, not a model"))
    root = roots[0]
    if f"{root}constants.pkl" in records or any(name.startswith(f"{root}code/") for name in records):
        raise NotWeights(say("it is a TorchScript program, not a file of weights"))
    order = records.get(f"{root}byteorder")
    if order is not None and zip_file.read_record(handle, order, 64) != b"little":
        raise NotWeights(say("its numbers are in the byte order of another kind of processor"))
    content = BytesIO(zip_file.read_record(handle, records[f"{root}data.pkl"], MAX_BYTES))
    value = Machine(content, TorchWorld()).load()
    starts: dict[str, int] = {}

    def place(storage: Storage) -> int:
        record = records.get(f"{root}data/{storage.key}")
        if record is None:
            raise NotWeights(say("the numbers of {name} are missing", name=shown(storage.key)))
        if record.method != zip_file.STORED:
            raise NotWeights(say("its numbers are packed; unpack the file and save it again with torch"))
        if _storage_bytes(storage) > record.num_bytes:
            raise NotWeights(say("it has a tensor that is larger than its storage"))
        if not located:
            return -1
        if storage.key not in starts:
            starts[storage.key] = zip_file.data_start(handle, record)
        return starts[storage.key]

    return _header(value, place, handle, "torch_zip")


def read_pickles(handle: BinaryIO, located: bool = True) -> Header:
    """The header of what torch.save wrote before version 1.6: five pickles, then the storages. As `read_zip` otherwise.

    Without `located` the lengths that stand before the storages are not compared with what the pickle says.
    """
    handle.seek(0)
    world = TorchWorld()
    machine = Machine(handle, world)
    if machine.load() != _MAGIC:
        raise NotWeights(say("it is a Python pickle, but none that torch wrote"))
    protocol, system = machine.load(), machine.load()
    if protocol != _PROTOCOL or not isinstance(system, dict):
        raise NotWeights(say("its pickle is damaged"))
    if system.get("little_endian") is not True:
        raise NotWeights(say("its numbers are in the byte order of another kind of processor"))
    value, order = machine.load(), machine.load()
    if not isinstance(order, list) or any(not isinstance(key, str | int) for key in order):
        raise NotWeights(say("its pickle is damaged"))
    storages = [world.storages.get(str(key)) for key in order]
    starts = _in_sequence(storages, handle, located)
    return _header(value, _placed(starts), handle, "torch_pickle")


def _in_sequence(storages: list[Storage | None], handle: BinaryIO, verified: bool) -> dict[str, int]:
    """Where storages begin that follow each other from here on, each after a word with its length."""
    start, starts = handle.tell(), {}
    file_bytes = handle.seek(0, 2)
    for storage in storages:
        if storage is None:
            raise NotWeights(say("its pickle is damaged"))
        if verified:
            handle.seek(start)
            word = handle.read(8)
            if len(word) == 8 and struct.unpack("<q", word)[0] != storage.length:
                raise NotWeights(say("the numbers of {name} are damaged", name=shown(storage.key)))
        starts[storage.key] = start + 8
        start += 8 + _storage_bytes(storage)
    if start > file_bytes:
        raise NotWeights(say("{count} bytes are missing at its end", count=start - file_bytes), cut_short=True)
    return starts


def _placed(starts: Mapping[str, int]) -> Place:
    def place(storage: Storage) -> int:
        if storage.key not in starts:
            raise NotWeights(say("the numbers of {name} are missing", name=shown(storage.key)))
        return starts[storage.key]

    return place


def _storage_bytes(storage: Storage) -> int:
    return storage.length * (1 if storage.dtype is None else ITEM_BYTES[storage.dtype])


def _header(value: Any, place: Place, handle: BinaryIO, container: Container) -> Header:
    file_bytes = handle.seek(0, 2)
    tensors = {name: _info(tensor, place) for name, tensor in find_tensors(value).items()}
    for info in tensors.values():
        if info.start + info.num_bytes > file_bytes:
            count = info.start + info.num_bytes - file_bytes
            raise NotWeights(say("{count} bytes are missing at its end", count=count), cut_short=True)
    return Header(tensors, {}, 0, file_bytes, container, plain_tree(value))


def _info(tensor: TensorRef, place: Place) -> TensorInfo:
    item, start = ITEM_BYTES[tensor.dtype], place(tensor.storage)
    if start >= 0:
        start += (tensor.storage.first + tensor.offset) * item
    return TensorInfo(tensor.dtype, tensor.shape, start, tensor.span() * item, strides_or_none(tensor))


# --- the form before that: a tar with the members pickle, storages, tensors, sys_info ---


def read_tar(handle: BinaryIO) -> Header:
    """The header of a tar that torch wrote before version 0.1.10. Raises OSError and NotWeights."""
    members = _tar_members(handle)
    if not {"pickle", "storages", "tensors"} <= set(members):
        raise NotWeights(say("it is a packed archive, not a model"))
    world = _TarWorld(handle)
    try:
        world.read_storages(members["storages"])
        world.read_tensors(members["tensors"])
    except (TypeError, KeyError, struct.error) as error:
        raise BadPickle(say("its pickle is damaged")) from error
    handle.seek(members["pickle"])
    return _header(world.machine.load(), _placed(world.starts), handle, "torch_tar")


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these 512 bytes is a tar archive."""
    return head[257:262] == b"ustar"


def _tar_members(handle: BinaryIO) -> dict[str, int]:
    """Where the first members of a tar begin."""
    file_bytes, place = handle.seek(0, 2), 0
    members: dict[str, int] = {}
    for _ in range(_TAR_MEMBERS):
        handle.seek(place)
        head = handle.read(_TAR_BLOCK)
        if len(head) < _TAR_BLOCK or not is_tar(head):
            break
        name = head[:100].split(b"\0")[0].decode("utf-8", "replace").removeprefix("./")
        digits = head[124:136].strip(b" \0")
        if not digits.isdigit() or len(digits) > 12 or b"8" in digits or b"9" in digits:
            raise NotWeights(say("its directory is damaged"))
        members[name] = place + _TAR_BLOCK
        place += _TAR_BLOCK + -(-int(digits, 8) // _TAR_BLOCK) * _TAR_BLOCK
        if place > file_bytes:
            raise NotWeights(say("{count} bytes are missing at its end", count=place - file_bytes), cut_short=True)
    return members


class _TarWorld(TorchWorld):
    """A tar's pickle refers to storages and tensors by number; both stand in members of their own before it."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__()
        self._handle, self._file_bytes = handle, handle.seek(0, 2)
        self.machine = Machine(handle, self)
        self._numbered: dict[str, Storage | TensorRef] = {}
        self.starts: dict[str, int] = {}

    def read_storages(self, start: int) -> None:
        """The member `storages`: a count, then for each a pickle (key, device, class), its length and its numbers."""
        self._handle.seek(start)
        for _ in range(self._count()):
            key, _, kind = self._row(3)
            (length,) = struct.unpack("<q", self._exactly(8))
            storage = self.storage_of(kind, key, length)
            self.starts[storage.key] = self._handle.tell()
            self._numbered[storage.key] = storage
            missing = self.starts[storage.key] + _storage_bytes(storage) - self._file_bytes
            if missing > 0:
                raise NotWeights(say("{count} bytes are missing at its end", count=missing), cut_short=True)
            self._handle.seek(_storage_bytes(storage), 1)
        views = self.machine.load()
        for view in views if isinstance(views, list) else ():
            key, root, first, _ = _row(view, 4)
            whole = self.storages[str(root)]
            self._numbered[str(key)] = replace(whole, first=checked_number(first))

    def read_tensors(self, start: int) -> None:
        """The member `tensors`: a count, then for each a pickle (key, storage, class), its sizes, strides and offset."""
        self._handle.seek(start)
        for _ in range(self._count()):
            key, storage, _ = self._row(3)
            (count,) = struct.unpack("<q", self._exactly(8))
            if not 0 <= count <= MAX_DIMENSIONS:
                raise BadPickle(say("it describes a tensor in no way known"))
            shape, strides = (struct.unpack(f"<{count}q", self._exactly(8 * count)) for _ in range(2))
            (offset,) = struct.unpack("<q", self._exactly(8))
            self._numbered[str(key)] = tensor_of((self._numbered.get(str(storage)), offset, shape, strides))

    def persistent(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]
        if not isinstance(identity, str | int) or str(identity) not in self._numbered:
            raise BadPickle(say("it refers to something outside that is no storage"))
        return self._numbered[str(identity)]

    def _count(self) -> int:
        count = self.machine.load()
        if type(count) is not int or not 0 <= count <= MAX_TENSORS:
            raise BadPickle(say("its pickle is damaged"))
        return count

    def _row(self, width: int) -> tuple[Any, ...]:
        return _row(self.machine.load(), width)

    def _exactly(self, count: int) -> bytes:
        data = self._handle.read(count)
        if len(data) < count:
            raise BadPickle(say("its pickle ends too early"), cut_short=True)
        return data


def _row(value: Any, width: int) -> tuple[Any, ...]:
    """A tuple of that many, the first of which is a number or a name. Raises BadPickle."""
    if not isinstance(value, tuple) or len(value) != width or not isinstance(value[0], str | int):
        raise BadPickle(say("its pickle is damaged"))
    return value
