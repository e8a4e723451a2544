"""What pickles of weights may speak of: a fixed list of names, each with an inert stand-in. All else is refused by name.

Beside torch's own there are what checkpoints of pytorch_lightning, omegaconf and numpy carry along. No torch here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.messages import say
from trainer.models.opening import shown
from trainer.models.pickle_machine import BadPickle, Global, put
from trainer.models.safetensors_file import ITEM_BYTES, MAX_DIMENSIONS, plain_strides

Spend = Callable[[int], None]
MAX_KEY = 200  # letters of a storage's name


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers that the container keeps under `key`; `first` is a view's first element in it."""

    dtype: str | None  # None: bytes whose tensors say what they are
    key: str
    length: int  # in elements, bytes without a dtype
    first: int = 0


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of a pickle: a view of a storage. `offset` and `strides` count elements of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def span(self) -> int:
        """Elements from the first to the last, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


@dataclass(slots=True)
class Record:
    """An object of a class that is on the list, as data: what it was made of and what was put into it."""

    of: str
    arguments: tuple[Any, ...] = ()
    items: dict[Any, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    state: Any = None


_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": None,
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16",
    "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_NUMPY_FORMS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H",
    "u1": "B", "b1": "?",
}  # fmt: skip

# Classes of which a record is kept: what checkpoints carry beside weights. They are names here, nothing is imported.
_RECORDS = """
argparse.Namespace
pathlib.Path pathlib.PurePath pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath pathlib.PureWindowsPath
datetime.datetime datetime.date datetime.timedelta datetime.timezone uuid.UUID decimal.Decimal fractions.Fraction
typing.Any typing.Union typing.List typing.Dict typing.Optional types.SimpleNamespace
builtins.object __builtin__.object builtins.complex __builtin__.complex builtins.slice __builtin__.slice
builtins.int __builtin__.int builtins.float __builtin__.float builtins.str __builtin__.str builtins.bool
builtins.bytes __builtin__.unicode __builtin__.long builtins.NoneType
collections.deque collections.Counter
numpy.ndarray numpy.dtype numpy.random.mtrand.RandomState numpy.random._pickle.__randomstate_ctor
numpy.random._pickle.__bit_generator_ctor numpy.random._mt19937.MT19937
numpy.float64 numpy.float32 numpy.float16 numpy.int64 numpy.int32 numpy.int16 numpy.int8 numpy.uint8 numpy.bool_
numpy.dtypes.Float64DType numpy.dtypes.Float32DType numpy.dtypes.Int64DType numpy.dtypes.BoolDType
numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
torch.Tensor torch.nn.parameter.Parameter torch.nn.parameter.Buffer torch.Generator
torch.nn.modules.container.ParameterDict torch.nn.modules.container.ParameterList
torch.optim.lr_scheduler.LambdaLR torch.optim.lr_scheduler.StepLR torch.optim.lr_scheduler.CosineAnnealingLR
torch.optim.adamw.AdamW torch.optim.adam.Adam torch.optim.sgd.SGD
pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint pytorch_lightning.callbacks.early_stopping.EarlyStopping
pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor pytorch_lightning.callbacks.base.Callback
pytorch_lightning.callbacks.timer.Timer pytorch_lightning.callbacks.progress.ProgressBar
pytorch_lightning.utilities.parsing.AttributeDict pytorch_lightning.utilities.enums.GradClipAlgorithmType
lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint lightning.pytorch.callbacks.early_stopping.EarlyStopping
lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata
omegaconf.base.Metadata omegaconf.base.Node omegaconf.base.Box omegaconf.base.SCMode omegaconf.base.UnionNode
omegaconf.nodes.AnyNode omegaconf.nodes.StringNode omegaconf.nodes.IntegerNode omegaconf.nodes.FloatNode
omegaconf.nodes.BooleanNode omegaconf.nodes.ValueNode omegaconf.nodes.PathNode omegaconf.nodes.BytesNode
""".split()  # noqa: SIM905


class TorchWorld:
    """The `World` of torch's containers; it knows their storages by what the pickle says of them, and reads none."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def find(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return Global(module, name)
        wanted = shown(f"{module}.{name}")
        text = say(
            "it wants to import {name}, which no model needs; such a file can be harmful, and nothing in it was run",
            name=wanted,
        )
        error = BadPickle(text)
        error.refused = wanted
        raise error

    def persistent(self, identity: Any) -> Any:
        """A storage: ("storage", class, key, device, length[, view]); a class' source ("module", …) is left out."""
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise BadPickle(say("it refers to something outside that is no storage"))
        _, kind, key, _, length, *view = identity
        storage = self.storage_of(kind, key, length)
        if view and view[0] is not None:
            _, first, _ = view[0]
            storage = replace(storage, first=checked_number(first))
        return storage

    def storage_of(self, kind: Any, key: Any, length: Any) -> Storage:
        """A storage by its class, and remember it. The same key always means the same storage. Raises BadPickle."""
        if not isinstance(kind, Global) or kind.name not in _STORAGES or not isinstance(key, str | int):
            raise BadPickle(say("it has a storage of a kind that Athanor does not know"))
        storage = Storage(_STORAGES[kind.name], str(key)[:MAX_KEY], checked_number(length))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise BadPickle(say("it describes the storage {name} in two ways", name=shown(storage.key)))
        return storage

    def call(self, function: Any, arguments: tuple[Any, ...], spend: Spend) -> Any:
        if not isinstance(function, Global):
            raise BadPickle(say("it calls what is no function"))
        try:
            return _KNOWN[function.module, function.name](arguments, spend)
        except BadPickle:
            raise
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, struct.error) as error:
            raise BadPickle(say("its pickle is damaged")) from error

    def build(self, thing: Any, state: Any) -> Any:
        if isinstance(thing, Record):
            thing.state = state
        return thing  # an OrderedDict's own attributes (_metadata) are of no use here

    def put_item(self, thing: Any, key: Any, value: Any) -> None:
        if not isinstance(thing, Record):
            raise BadPickle(say("its pickle is damaged"))
        put(thing.items, key, value)

    def append(self, thing: Any, value: Any) -> None:
        if not isinstance(thing, Record):
            raise BadPickle(say("its pickle is damaged"))
        thing.values.append(value)


def checked_number(number: Any) -> int:
    """A size, length or offset as it can be. Raises BadPickle."""
    if type(number) is not int or not 0 <= number < 1 << 62:
        raise BadPickle(say("it describes a tensor in no way known"))
    return number


def tensor_of(arguments: tuple[Any, ...], dtype: str | None = None) -> TensorRef:
    """A tensor from storage, offset, sizes, strides (all else is left out). Raises BadPickle."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise BadPickle(say("it describes a tensor in no way known"))
    dtype = dtype or storage.dtype
    if dtype is None or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise BadPickle(say("it describes a tensor in no way known"))
    for number in (offset, *shape, *strides):
        checked_number(number)
    tensor = TensorRef(storage, dtype, offset, shape, strides)
    _check_extent(tensor)
    return tensor


def _tensor(arguments: tuple[Any, ...], spend: Spend) -> TensorRef:
    return tensor_of(arguments)


def _check_extent(tensor: TensorRef) -> None:
    """A tensor lies within its storage, and has no more elements than that (an expanded one could be endless)."""
    storage, span = tensor.storage, tensor.span()
    item = 1 if storage.dtype is not None else ITEM_BYTES[tensor.dtype]
    if span and (storage.first + tensor.offset + span) * item > storage.length:
        raise BadPickle(say("it has a tensor that is larger than its storage"))
    if math.prod(tensor.shape) > max(span, 1 << 16):
        raise BadPickle(say("it has a tensor that repeats its storage without end"))


def _tensor_v3(arguments: tuple[Any, ...], spend: Spend) -> TensorRef:
    """_rebuild_tensor_v3: as v2, of an untyped storage, with its dtype at place 6."""
    return tensor_of(arguments, _DTYPES[arguments[6].name])


def _parameter(arguments: tuple[Any, ...], spend: Spend) -> Any:
    return arguments[0]


def _from_type(arguments: tuple[Any, ...], spend: Spend) -> Any:
    """torch._tensor._rebuild_from_type_v2(function, class, arguments, state)."""
    function, _, inner, _ = arguments
    return TorchWorld().call(function, inner, _once_more(spend))


def _once_more(spend: Spend) -> Spend:
    spend(5000)  # calls within calls are rare; a long chain of them would be deep recursion
    return spend


def _dict(arguments: tuple[Any, ...], spend: Spend) -> dict[Any, Any]:
    """dict and OrderedDict, empty or from pairs; a defaultdict's factory is left out."""
    pairs = arguments[-1] if arguments else ()
    if isinstance(pairs, Global):
        pairs = ()
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list | tuple):
        raise BadPickle(say("its pickle is damaged"))
    spend(len(pairs))
    table: dict[Any, Any] = {}
    for key, value in pairs:
        put(table, key, value)
    return table


def _same(arguments: tuple[Any, ...], spend: Spend) -> Any:
    """list, tuple, set, torch.Size: what they are made of, as it is (copies would cost memory)."""
    if not arguments:
        return []
    if not isinstance(arguments[0], list | tuple):
        raise BadPickle(say("its pickle is damaged"))
    return arguments[0]


def _size(arguments: tuple[Any, ...], spend: Spend) -> Any:
    return tuple(_same(arguments, spend)) if len(_same(arguments, spend)) <= MAX_DIMENSIONS else ()


def _device(arguments: tuple[Any, ...], spend: Spend) -> str:
    return ":".join(str(part) for part in arguments[:2] if isinstance(part, str | int))[:20]


def _encode(arguments: tuple[Any, ...], spend: Spend) -> bytes:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes."""
    text = arguments[0]
    spend(len(text) // 100)  # a copy, which takes memory
    return text.encode("latin-1")


def _bytes_of(arguments: tuple[Any, ...], spend: Spend) -> Any:
    if arguments and isinstance(arguments[0], bytes):
        return arguments[0]
    return _encode(arguments, spend) if arguments else b""


def _numpy_dtype(arguments: tuple[Any, ...], spend: Spend) -> Record:
    name = arguments[0]
    return Record("numpy.dtype", (name[:20] if isinstance(name, str) else "",))


def _numpy_scalar(arguments: tuple[Any, ...], spend: Spend) -> Any:
    """numpy.core.multiarray.scalar(dtype, bytes): a plain number, or a record of what it is."""
    dtype, data = arguments[:2]
    code = dtype.arguments[0].lstrip("<>|=")
    big = isinstance(dtype.state, tuple) and len(dtype.state) > 1 and dtype.state[1] == ">"
    form = _NUMPY_FORMS.get(code)
    if form is None or len(data) > 8:
        return Record(f"numpy.{code}")
    data = data.encode("latin-1") if isinstance(data, str) else data
    return struct.unpack((">" if big else "<") + form, data)[0]


def _reconstructor(arguments: tuple[Any, ...], spend: Spend) -> Any:
    """copyreg._reconstructor(class, base, state): how protocols 0 and 1 write an object."""
    return TorchWorld().call(arguments[0], (), _once_more(spend))


def _record(name: str) -> Callable[[tuple[Any, ...], Spend], Record]:
    def make(arguments: tuple[Any, ...], spend: Spend) -> Record:
        spend(8)  # a record takes more memory than a number
        return Record(name, arguments)

    return make


def _no_call(arguments: tuple[Any, ...], spend: Spend) -> Any:
    raise BadPickle(say("it calls what is no function"))


_Known = Mapping[tuple[str, str], Callable[[tuple[Any, ...], Spend], Any]]


def _known() -> _Known:
    """Every name on the list with what a call of it gives."""
    found: dict[tuple[str, str], Callable[[tuple[Any, ...], Spend], Any]] = {}
    for name in _RECORDS:
        module, _, last = name.rpartition(".")
        found[module, last] = _record(name)
    for module in ("torch", "torch.cuda", "torch.storage"):
        found |= {(module, name): _no_call for name in _STORAGES}
    found |= {("torch", name): _no_call for name in _DTYPES}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found[module, "scalar"] = _numpy_scalar
    for module in ("builtins", "__builtin__"):
        found |= {(module, name): _same for name in ("list", "tuple", "set", "frozenset")}
        found |= {(module, "dict"): _dict, (module, "bytearray"): _bytes_of, (module, "bytes"): _bytes_of}
    for module in ("copyreg", "copy_reg"):
        found[module, "_reconstructor"] = _reconstructor
    return found | {
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch._tensor", "_rebuild_from_type"): _from_type,
        ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
        ("torch", "device"): _device,
        ("torch", "Size"): _size,
        ("collections", "OrderedDict"): _dict,
        ("collections", "defaultdict"): _dict,
        ("numpy", "dtype"): _numpy_dtype,
        ("_codecs", "encode"): _encode,
    }


_KNOWN = _known()


def strides_or_none(tensor: TensorRef) -> tuple[int, ...] | None:
    """A tensor's strides, None where its elements follow each other (those of sizes 0 and 1 don't count)."""
    usual = plain_strides(tensor.shape)
    pairs = zip(tensor.shape, tensor.strides, usual, strict=True)
    return (
        None if 0 in tensor.shape or all(size == 1 or mine == plain for size, mine, plain in pairs) else tensor.strides
    )
