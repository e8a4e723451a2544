"""Reads a pickle as data: every instruction is carried out by hand on inert values, so nothing in it can run.

What a pickle wants to import, build or call comes to `World` as names and arguments; this machine itself imports
nothing and calls nothing of the pickle's. Work, memory and lengths are bounded before they are spent. No torch here.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from trainer.messages import say
from trainer.models.opening import NotWeights, shown

MAX_BYTES = 16 * 1024 * 1024  # of one pickle; SDXL's is 0.4 MB
MAX_INSTRUCTIONS = 500_000  # SDXL's has 80,000; a full training state of SD 1.5 about 150,000
MAX_LINE = 4096  # of the text instructions of protocol 0
MAX_INTEGER_BYTES = 64


class BadPickle(NotWeights):
    """A pickle that is damaged, too large, or wants what no file of weights needs (`refused`: the name it would import)."""

    refused: str | None = None

    def of(self, path: Path) -> BadPickle:
        named = BadPickle(self.why, self.cut_short, path)
        named.refused = self.refused
        return named


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle imports. It stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class World(Protocol):
    """What lies outside a pickle. Each function gives an inert value or raises BadPickle."""

    def find(self, module: str, name: str) -> Any:
        """The stand-in of an import."""
        ...

    def persistent(self, identity: Any) -> Any:
        """What the container keeps under a persistent id: a storage."""
        ...

    def call(self, function: Any, arguments: tuple[Any, ...], spend: Callable[[int], None]) -> Any:
        """What `function(*arguments)` would have given; `spend` what takes more than one step."""
        ...

    def build(self, thing: Any, state: Any) -> Any:
        """A thing after its state was set."""
        ...

    def put_item(self, thing: Any, key: Any, value: Any) -> None:
        """thing[key] = value for what is no dict."""
        ...

    def append(self, thing: Any, value: Any) -> None:
        """thing.append(value) for what is no list."""
        ...


_NOTHING = object()  # where a number of the memory was left out
_BYTE, _U16, _U32, _I32 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<i"))
_U64, _F64 = struct.Struct("<Q"), struct.Struct(">d")


class Machine:
    """Pickles that follow each other in `source`, each read where it stands; what lies after it is left alone.

    The bounds hold for all of them together.
    """

    def __init__(self, source: BinaryIO, world: World) -> None:
        self._source, self._world, self._raw = source, world, source.read
        self._left, self._bytes_left = MAX_INSTRUCTIONS, MAX_BYTES
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []  # a table could be given numbers that all fall on one place

    def load(self) -> Any:
        """The value of the next pickle. Raises OSError and BadPickle."""
        self._stack, self._marks, self._memo = [], [], []
        read = self._source.read
        try:
            while True:
                self._left -= 1
                if self._left < 0:
                    self.spend(1)
                code = read(1)
                if code == b".":
                    return self._pop()
                action = _ACTIONS.get(code)
                if action is None:
                    raise _unknown(code)
                action(self)
        except struct.error as error:  # fewer bytes than a number takes
            raise _cut() from error
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            if isinstance(error, NotWeights):
                raise
            raise BadPickle(say("its pickle is damaged")) from error

    def spend(self, steps: int) -> None:
        """Count work; raises BadPickle when it is more than any file of weights needs."""
        self._left -= steps
        if self._left < 0:
            raise BadPickle(say("its pickle has more instructions than any model"))

    # --- bytes ---

    def _read(self, count: int) -> bytes:
        self._bytes_left -= count
        if count < 0 or self._bytes_left < 0:
            raise BadPickle(say("its pickle is longer than that of any model"))
        data = self._source.read(count)
        if len(data) < count:
            raise _cut()
        return data

    def _number(self, form: struct.Struct) -> Any:
        """A number of a few bytes, which the count of instructions bounds well enough."""
        return form.unpack(self._raw(form.size))[0]

    def _line_bytes(self) -> bytes:
        line = self._source.readline(MAX_LINE)
        self._bytes_left -= len(line)
        if not line.endswith(b"\n") or self._bytes_left < 0:
            raise _cut() if len(line) < MAX_LINE else BadPickle(say("its pickle is longer than that of any model"))
        return line[:-1]

    def _line(self) -> str:
        return self._line_bytes().decode("utf-8")

    # --- the stack ---

    def _pop(self) -> Any:
        if self._marks and len(self._stack) == self._marks[-1]:
            raise BadPickle(say("its pickle is damaged"))
        return self._stack.pop()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self) -> Any:
        return self._stack[-1]

    def _group(self) -> list[Any]:
        """The values since the last mark, taken off the stack with it."""
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    # --- what instructions do ---

    def _remember(self, place: int) -> None:
        """Keep the top of the stack under a number. Every writer counts from 0 or 1 on."""
        gap = place - len(self._memo)
        if place < 0 or place > MAX_INSTRUCTIONS:
            raise BadPickle(say("its pickle is damaged"))
        self._memo += [_NOTHING] * (gap + 1)
        self._memo[place] = self._stack[-1]

    def _recall(self, place: int) -> None:
        value = self._memo[place] if place >= 0 else _NOTHING
        if value is _NOTHING:
            raise BadPickle(say("its pickle is damaged"))
        self._stack.append(value)

    def _integer(self, size: int) -> None:
        if size > MAX_INTEGER_BYTES or size < 0:
            raise BadPickle(say("it has a number of {count} bytes", count=size))
        self._push(int.from_bytes(self._read(size), "little", signed=True))

    def _text_integer(self) -> None:
        text = self._line()
        if len(text) > 2 * MAX_INTEGER_BYTES:
            raise BadPickle(say("it has a number of {count} bytes", count=len(text)))
        self._push(text == "01" if text in ("00", "01") else int(text.rstrip("L")))

    def _text_string(self) -> None:
        raw = self._line_bytes().strip()
        if len(raw) < 2 or raw[:1] not in (b"'", b'"') or raw[-1:] != raw[:1]:
            raise BadPickle(say("its pickle is damaged"))
        self._push(_old_text(codecs.escape_decode(raw[1:-1])[0]))

    def _unicode(self, form: struct.Struct) -> None:
        self._stack.append(self._read(self._number(form)).decode("utf-8", "surrogatepass"))

    def _tuple(self, count: int) -> None:
        stack = self._stack
        if len(stack) - count < (self._marks[-1] if self._marks else 0):
            raise BadPickle(say("its pickle is damaged"))
        values = tuple(stack[-count:])
        del stack[-count:]
        stack.append(values)

    def _protocol(self) -> None:
        if self._number(_BYTE) > 5:
            raise BadPickle(say("its pickle is of a newer kind than Athanor knows"))

    def _frame(self) -> None:
        """How many bytes follow: only a hint, which is not believed."""
        if self._number(_U64) > MAX_BYTES:
            raise BadPickle(say("its pickle is longer than that of any model"))

    def _import(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise BadPickle(say("its pickle is damaged"))
        self._push(self._world.find(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _reduce_named(self) -> None:
        named, arguments, function = self._pop(), self._pop(), self._pop()
        if named != {}:
            raise BadPickle(say("its pickle is damaged"))
        self._call(function, arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise BadPickle(say("its pickle is damaged"))
        self._push(self._world.call(function, arguments, self.spend))

    def _instance(self) -> None:
        module, name = self._line(), self._line()
        self._push(self._world.call(self._world.find(module, name), tuple(self._group()), self.spend))

    def _object(self) -> None:
        function, *arguments = self._group()
        self._push(self._world.call(function, tuple(arguments), self.spend))

    def _build(self) -> None:
        state = self._pop()
        self._push(self._world.build(self._pop(), state))

    def _set_items(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise BadPickle(say("its pickle is damaged"))
        table = self._top()
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(table, dict):
                put(table, key, value)
            else:
                self._world.put_item(table, key, value)

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        else:
            for value in values:
                self._world.append(target, value)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _table(self) -> None:
        pairs = self._group()
        self._push({})
        self._set_items(pairs)

    def _pop_any(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _registry(self) -> None:
        raise BadPickle(say("it asks for an entry of Python's extension registry, which no model needs"))

    def _text_persistent(self) -> None:
        self._push(self._world.persistent(self._line()))


def _cut() -> BadPickle:
    return BadPickle(say("its pickle ends too early"), cut_short=True)


def _unknown(code: bytes) -> BadPickle:
    return (
        BadPickle(say("it has an instruction that Athanor does not know ({code})", code=repr(code))) if code else _cut()
    )


def put(table: dict[Any, Any], key: Any, value: Any) -> None:
    """table[key] = value. Raises BadPickle where the key is none, or is there already in another form (1 and "1")."""
    name = plain_key(key)
    if name is not key and name in table:
        raise BadPickle(say("it has {name} twice or more tensors than any model", name=shown(str(name))))
    table[name] = value


def plain_key(key: Any) -> str | bytes:
    """A key as text (bytes stay): names, numbers, None and flat tuples too. Raises BadPickle.

    The hash of nested tuples takes time without bound, and numbers can be chosen to collide; those of texts cannot.
    """
    if isinstance(key, str | bytes):
        return key
    if key is None or isinstance(key, int | float | Global):
        return str(key)
    if isinstance(key, tuple) and len(key) <= 8 and all(isinstance(part, str | int | float) for part in key):
        return ", ".join(shown(part) if isinstance(part, str) else repr(part) for part in key)
    raise BadPickle(say("it has a table whose keys are no names"))


def _old_text(data: bytes) -> str | bytes:
    """A string of Python 2, which knew no difference between text and bytes."""
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return data


def _put(form: struct.Struct) -> Callable[[Machine], None]:
    """Remember the top of the stack under a number; the most frequent instruction of all, so without detours."""
    unpack, size = form.unpack, form.size

    def remember(machine: Machine) -> None:
        place, memo = unpack(machine._raw(size))[0], machine._memo
        if place == len(memo):
            memo.append(machine._stack[-1])
        else:
            machine._remember(place)

    return remember


def _get(form: struct.Struct) -> Callable[[Machine], None]:
    unpack, size = form.unpack, form.size

    def get(machine: Machine) -> None:
        machine._recall(unpack(machine._raw(size))[0])

    return get


def _push(form: struct.Struct) -> Callable[[Machine], None]:
    unpack, size = form.unpack, form.size

    def push(machine: Machine) -> None:
        machine._stack.append(unpack(machine._raw(size))[0])

    return push


_ACTIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._protocol,
    b"\x95": Machine._frame,
    b"(": lambda m: m._marks.append(len(m._stack)),
    b"0": Machine._pop_any,
    b"1": lambda m: m._group().clear(),
    b"2": lambda m: m._push(m._top()),
    # numbers
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": Machine._text_integer,
    b"L": Machine._text_integer,
    b"J": _push(_I32),
    b"K": _push(_BYTE),
    b"M": _push(_U16),
    b"\x8a": lambda m: m._integer(m._number(_BYTE)),
    b"\x8b": lambda m: m._integer(m._number(_I32)),
    b"F": lambda m: m._push(float(m._line())),
    b"G": _push(_F64),
    # text and bytes
    b"S": Machine._text_string,
    b"T": lambda m: m._push(_old_text(m._read(m._number(_I32)))),
    b"U": lambda m: m._push(_old_text(m._read(m._number(_BYTE)))),
    b"V": lambda m: m._push(codecs.raw_unicode_escape_decode(m._line_bytes())[0]),
    b"X": lambda m: m._unicode(_U32),
    b"\x8c": lambda m: m._unicode(_BYTE),
    b"\x8d": lambda m: m._unicode(_U64),
    b"B": lambda m: m._push(m._read(m._number(_U32))),
    b"C": lambda m: m._push(m._read(m._number(_BYTE))),
    b"\x8e": lambda m: m._push(m._read(m._number(_U64))),
    b"\x96": lambda m: m._push(m._read(m._number(_U64))),  # BYTEARRAY8
    # containers; sets are kept as lists, since nothing here needs to be hashed
    b")": lambda m: m._push(()),
    b"t": lambda m: m._push(tuple(m._group())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"]": lambda m: m._push([]),
    b"l": lambda m: m._push(m._group()),
    b"a": lambda m: m._extend([m._pop()]),
    b"e": lambda m: m._extend(m._group()),
    b"}": lambda m: m._push({}),
    b"d": Machine._table,
    b"s": Machine._set_item,
    b"u": lambda m: m._set_items(m._group()),
    b"\x8f": lambda m: m._push([]),  # EMPTY_SET
    b"\x90": lambda m: m._extend(m._group()),  # ADDITEMS
    b"\x91": lambda m: m._push(m._group()),  # FROZENSET
    # memory
    b"g": lambda m: m._recall(int(m._line())),
    b"h": _get(_BYTE),
    b"j": _get(_U32),
    b"p": lambda m: m._remember(int(m._line())),
    b"q": _put(_BYTE),
    b"r": _put(_U32),
    b"\x94": lambda m: m._remember(len(m._memo)),
    # names, calls, objects: all go to the world
    b"c": lambda m: m._import(m._line(), m._line()),
    b"\x93": lambda m: m._import(*reversed((m._pop(), m._pop()))),
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,  # NEWOBJ: class.__new__(class, *arguments)
    b"\x92": Machine._reduce_named,
    b"i": Machine._instance,
    b"o": Machine._object,
    b"b": Machine._build,
    b"P": Machine._text_persistent,
    b"Q": lambda m: m._push(m._world.persistent(m._pop())),
    b"\x82": Machine._registry,
    b"\x83": Machine._registry,
    b"\x84": Machine._registry,
}
