"""What a model file says about itself, made ready to be browsed: metadata as a tree, tags and tensors as rows. No Qt.

Reads headers only, never weights; for any thread but the window's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.models.folder_files import weight_files
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.opening import NotWeights, read_small
from trainer.models.safetensors_file import Header
from trainer.models.weights_file import read_header

MOST_NODES = 60_000  # the tags of a large training are some ten thousand
MOST_MARKS = 400_000  # brackets and commas in a value that is still opened: each becomes an object
LONGEST_CONFIG = 4 << 20  # bytes
DEEPEST = 24  # levels
SHORT = 8  # plain values in a list that stays one line
SHOWN = 300  # characters of a value in one line
TAGS = "ss_tag_frequency"
Row = tuple[Any, ...]


@dataclass(eq=False, slots=True)
class Node:
    """An entry: its name, its value as JSON has it, and the entries in it, if it is opened."""

    name: str
    value: Any
    parent: Node | None = field(default=None, repr=False)
    row: int = 0
    children: list[Node] = field(default_factory=list)

    def add(self, child: Node) -> Node:
        child.parent, child.row = self, len(self.children)
        self.children.append(child)
        return child

    @property
    def whole(self) -> str:
        """The value as text, for the clipboard."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False, indent=1)

    @property
    def line(self) -> str:
        """The value in one line; "" for one whose entries are shown."""
        if self.children:
            return ""
        text = self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)
        line = " ".join(text[: 2 * SHOWN].split())
        return line if len(line) <= SHOWN else line[:SHOWN] + "…"

    def holds(self, needle: str) -> bool:
        """Whether the name or the value has these letters (given in lower case) in it."""
        return needle in self.name.lower() or (not self.children and needle in self.line.lower())


@dataclass(frozen=True)
class Document:
    """A file, read.

    Attributes:
        root: has the metadata as its children.
        tags: (tag, how often, folder), the most frequent first.
        tensors: (name, shape, dtype, bytes, file within a folder or "").
    """

    path: Path
    facts: ModelFacts
    root: Node
    tags: tuple[tuple[str, int, str], ...] = ()
    tensors: tuple[tuple[str, tuple[int, ...], str, int, str], ...] = ()


def read_document(path: Path) -> Document:
    """Everything in the header of a file, or of the files of a diffusers folder; `facts` say why if there is nothing."""
    facts = inspect_file(path)
    root = Node("", {})
    room = [MOST_NODES]
    tensors: list[tuple[str, tuple[int, ...], str, int, str]] = []
    for place, header in _headers(path):
        _add_header(root, place, header, room)
        tensors += [(name, info.shape, info.dtype, info.num_bytes, place) for name, info in header.tensors.items()]
    if path.is_dir():
        _add_configs(root, path, room)
    metadata = dict(facts.metadata)
    return Document(path, facts, root, tag_counts(metadata.get(TAGS, "")), tuple(tensors))


def _headers(path: Path) -> Iterator[tuple[str, Header]]:
    """The headers of a file, or of the weights of a folder's parts, each with its place in the folder."""
    for file in _files(path):
        try:
            yield ("" if file == path else file.relative_to(path).as_posix()), read_header(file, located=False)
        except (OSError, NotWeights):
            continue  # the facts of the whole say what is wrong


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        return [file for part in sorted(path.iterdir()) if part.is_dir() for file in weight_files(part)]
    except (OSError, ValueError):
        return []


def _add_header(root: Node, place: str, header: Header, room: list[int]) -> None:
    """What a file says; that of a file in a folder below its place there, as all of them say much the same."""
    said = {name: opened(header.metadata[name]) for name in sorted(header.metadata)}
    said |= {str(name): value for name, value in header.tree.items()}
    for name, value in ({place: said} if place and said else said).items():
        _add(root, name, value, room)


def _add_configs(root: Node, folder: Path, room: list[int]) -> None:
    """The configs of a diffusers folder; one that cannot be read is left out, the facts say why."""
    for file in [folder / "model_index.json", *sorted(folder.glob("*/*config.json"))]:
        try:
            value = json.loads(read_small(file, LONGEST_CONFIG).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        _add(root, file.relative_to(folder).as_posix(), value, room)


def opened(text: str) -> Any:
    """The table or list that a metadata value holds as JSON; the text itself if it is none, or a monstrous one."""
    start = text.lstrip()[:1]
    if start not in ("{", "[") or text.count(",") + text.count("[") + text.count("{") > MOST_MARKS:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict | list) else text


def _add(parent: Node, name: str, value: Any, room: list[int], depth: int = 0) -> None:
    """Put a value below `parent`, opened as long as there is room; what lies deeper stays one line of JSON."""
    node = parent.add(Node(name, value))
    room[0] -= 1
    inside = [] if _is_short(value) else _items(value)
    if depth < DEEPEST and len(inside) <= room[0]:
        for key, entry in inside:
            _add(node, key, entry, room, depth + 1)


def _is_short(value: Any) -> bool:
    """Whether a list is read more easily in one line: a size, betas."""
    return isinstance(value, list) and len(value) <= SHORT and not any(isinstance(item, dict | list) for item in value)


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(str(key), entry) for key, entry in value.items()]
    if isinstance(value, list):
        return [(str(number), entry) for number, entry in enumerate(value, 1)]
    return []


def filtered(root: Node, text: str) -> Node:
    """A copy of the tree with what has the text in its name or value, its containers, and all that is in it."""
    needle = text.strip().lower()
    kept = Node(root.name, root.value)
    for child in root.children:
        if not needle or child.holds(needle):
            _copy(kept, child)
        else:
            inner = filtered(child, needle)
            if inner.children:
                kept.add(inner)
    return kept


def _copy(parent: Node, node: Node) -> None:
    made = parent.add(Node(node.name, node.value))
    for child in node.children:
        _copy(made, child)


def count(node: Node) -> int:
    """How many entries are below a node."""
    return sum(1 + count(child) for child in node.children)


def arranged(rows: Sequence[Row], text: str, column: int | None, down: bool) -> list[Row]:
    """The rows that have a text in any column, sorted by one of them."""
    needle = text.strip().lower()
    kept = [row for row in rows if not needle or any(needle in str(value).lower() for value in row)]
    return kept if column is None else sorted(kept, key=lambda row: row[column], reverse=down)


def tag_counts(text: str) -> tuple[tuple[str, int, str], ...]:
    """(tag, how often, folder) from kohya's tag frequency, the most frequent first; nothing from anything else."""
    folders = opened(text)
    if not isinstance(folders, dict):
        return ()
    rows = [
        (str(tag), number, str(folder))
        for folder, tags in folders.items()
        if isinstance(tags, dict)
        for tag, number in tags.items()
        if isinstance(number, int) and not isinstance(number, bool)
    ]
    return tuple(sorted(rows, key=lambda row: (-row[1], row[0])))


def all_as_json(root: Node) -> str:
    """The whole metadata, for the clipboard."""
    return json.dumps({node.name: node.value for node in root.children}, ensure_ascii=False, indent=1)
