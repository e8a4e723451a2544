"""Finds the tensors in what a pickle holds and gives them the names that programs know them by; the rest as plain values.

Whatever the nesting (tables in themselves, shared parts, chains of a million), the work is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.messages import say
from trainer.models.opening import shown
from trainer.models.pickle_machine import BadPickle, Global
from trainer.models.safetensors_file import MAX_NAME, MAX_TENSORS
from trainer.models.torch_objects import Record, Storage, TensorRef

MAX_DEPTH = 24
MAX_NODES = 200_000
MAX_LETTERS = 8_000_000  # of all names together, those of tables too
MAX_TREE_NODES = 20_000
MAX_TREE_LETTERS = 1_000_000
MAX_TEXT = 20_000  # letters of one value
_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "generator", "module", "model", "ema")


def find_tensors(value: Any) -> dict[str, TensorRef]:
    """The tensors of a pickle by name, levels joined by dots.

    Of a checkpoint with a `state_dict` only what is in there counts (beside it are an optimiser's states). A tensor
    alone is called "tensor". Raises BadPickle where nesting, names or numbers are beyond every model.
    """
    if isinstance(value, TensorRef):
        return {"tensor": value}
    found: dict[str, TensorRef] = {}
    for name, tensor in _leaves(_root(value)):
        if name in found or len(found) >= MAX_TENSORS:
            raise BadPickle(say("it has {name} twice or more tensors than any model", name=shown(name)))
        found[name] = tensor
    return found


def _root(value: Any) -> Any:
    """The table that holds the weights: `state_dict` wherever it is, else the only wrapper that a file has."""
    for _ in range(4):
        table = _table(value)
        if table is None:
            return value
        inner = next((table[name] for name in _WRAPPERS if _holds_tensors(table.get(name))), None)
        if inner is None or (_holds_tensors(table) and "state_dict" not in table):
            return value
        value = inner
    return value


def _holds_tensors(value: Any) -> bool:
    table = _table(value)
    return table is not None and any(isinstance(item, TensorRef) for item in table.values())


def _table(value: Any) -> dict[Any, Any] | None:
    """A value's own entries if it is a table: of a module or ParameterDict those are its parameters."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record):
        state = value.state if isinstance(value.state, dict) else {}
        parameters = state.get("_parameters")
        return {**value.items, **(parameters if isinstance(parameters, dict) and parameters else state)}
    return None


def _leaves(root: Any) -> Iterator[tuple[str, TensorRef]]:
    """Tensors with their dotted names, in the file's order, depth first; a table within itself is entered once."""
    left, letters = MAX_NODES, MAX_LETTERS
    waiting: list[tuple[str, tuple[int, ...], Any]] = [("", (), root)]
    while waiting:
        name, above, value = waiting.pop()
        if isinstance(value, TensorRef):
            yield name, value
            continue
        pairs = _children(value) if id(value) not in above else []
        left, inside = left - 1 - len(pairs), (*above, id(value))
        if left < 0 or (pairs and len(above) >= MAX_DEPTH):
            raise BadPickle(say("its tables are nested more deeply than those of any model"))
        for key, item in reversed(pairs):
            if isinstance(item, TensorRef | dict | list | tuple | Record):
                whole = _joined(name, key)
                letters -= len(whole)
                if letters < 0:
                    raise BadPickle(say("it has {name} twice or more tensors than any model", name=shown(whole)))
                waiting.append((whole, inside, item))


def _children(value: Any) -> list[tuple[Any, Any]]:
    table = _table(value)
    if table is not None:
        return list(table.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _joined(name: str, key: str | bytes | int) -> str:
    last = shown(key.decode("latin-1")) if isinstance(key, bytes) else str(key)
    whole = f"{name}.{last}" if name else last
    if len(whole) > MAX_NAME or not last.isprintable():
        raise BadPickle(say("it has a tensor of an impossible name ({name})", name=shown(last)))
    return whole


def plain_tree(value: Any) -> dict[str, Any]:
    """What a pickle holds beside tensors, as JSON can say it: numbers, text, lists and tables; cut where it is long."""
    tree = _plain(value, (), _Left())
    return tree if isinstance(tree, dict) else {}


@dataclass
class _Left:
    """How much of a tree may still be looked at, and said."""

    nodes: int = MAX_TREE_NODES
    letters: int = MAX_TREE_LETTERS


def _plain(value: Any, above: tuple[int, ...], left: _Left) -> Any:
    """The value without its tensors; `left` counts down over all of it, `above` are the tables that it lies in."""
    left.nodes -= 1
    if left.nodes < 0 or len(above) > MAX_DEPTH or id(value) in above or isinstance(value, TensorRef | Storage):
        return None
    if isinstance(value, str | bytes):
        return _text(value, left)
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        return [_plain(item, above, left) for item in value[: max(left.nodes, 0)]]
    table = _table(value)
    if table is not None:
        return _plain_table(table, value, above, left)
    if isinstance(value, Global):
        return shown(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value if value is None or isinstance(value, int | float) else None


def _plain_table(table: dict[Any, Any], value: Any, above: tuple[int, ...], left: _Left) -> Any:
    if isinstance(value, Record) and not table:  # a path, a date, a number of numpy
        parts = [_plain(part, above, left) for part in value.arguments[:8]]
        return parts[0] if len(parts) == 1 else "/".join(str(part) for part in parts if part is not None)
    plain: dict[str, Any] = {}
    for key, item in table.items():
        if left.nodes < 0:
            break
        if isinstance(item, TensorRef | Storage):
            left.nodes -= 1
        else:
            plain[_text(key, left)] = _plain(item, above, left)
    return plain


def _text(value: str | bytes, left: _Left) -> str:
    part = value[: max(min(MAX_TEXT, left.letters), 0)]
    left.letters -= len(part)
    text = part.decode("utf-8", "replace") if isinstance(part, bytes) else part
    return text.encode("utf-8", "replace").decode("utf-8")
