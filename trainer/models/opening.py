"""Opens files of strangers: ordinary files only, small ones whole, and what is wrong with one as a sentence.

A named pipe would block for ever, a device may do anything when it is opened: neither ever is. No torch here.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path

from trainer.errors import BadInput
from trainer.messages import Message, say

_FLAGS = ("O_BINARY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY")


class NotWeights(BadInput, ValueError):
    """A file's bytes are not what they should be: `why` (no full sentence). `cut_short` if only its end is missing."""

    def __init__(self, why: Message, cut_short: bool = False, path: Path | None = None) -> None:
        what = say("{path} cannot be used: {reason}.", path=str(path), reason=why) if path else say("{why}.", why=why)
        super().__init__(what)
        self.why = why
        self.cut_short = cut_short

    def of(self, path: Path) -> NotWeights:
        """The same with the file's name in its sentence."""
        return type(self)(self.why, self.cut_short, path)


def open_plain(path: Path) -> BufferedReader:
    """Open an ordinary file (or a link to one) for reading; never waits for a writer.

    Raises OSError if it cannot be opened, NotWeights if it is a folder, a named pipe, a device or a socket.
    """
    _check_plain(path, os.stat(path))
    raw = FileIO(str(path), "rb", opener=lambda name, flags: os.open(name, flags | _open_flags()))
    try:
        _check_plain(path, os.fstat(raw.fileno()))  # it may have been exchanged meanwhile
    except NotWeights:
        raw.close()
        raise
    return BufferedReader(raw, 1 << 16)


def read_small(path: Path, limit: int) -> bytes:
    """All bytes of an ordinary file. Raises OSError, and NotWeights where it is longer than `limit`."""
    with open_plain(path) as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise NotWeights(say("it is longer than such a file can be"), path=path)
    return data


def shown(name: str, longest: int = 100) -> str:
    """A name from a file, fit to be printed: no control characters, no half surrogates, not endless."""
    plain = "".join(letter if letter.isprintable() else "�" for letter in name[: longest + 1])
    return plain if len(plain) <= longest else plain[:longest] + "…"


def _open_flags() -> int:
    flags = 0
    for name in _FLAGS:
        flags |= getattr(os, name, 0)
    return flags


def _check_plain(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise NotWeights(say("it is a folder, not a file"), path=path)
    if not stat.S_ISREG(status.st_mode):
        raise NotWeights(say("it is a named pipe, a device or a socket, not a file"), path=path)
