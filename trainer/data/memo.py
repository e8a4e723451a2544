"""What was once found out about a file, remembered by its path, size and time, in one SQLite file of the user's.

Only ever a shortcut: without it (locked, damaged, a disk that refuses) everything is found out anew.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.data.buckets import Size
from trainer.paths import cache_folder

SCHEMA = 1
_FRESH_NS = 2_000_000_000  # a file changed this recently may change again without its time showing it (FAT: 2 s)
_PATIENCE_S = 30.0  # for another process that is writing


@dataclass(frozen=True)
class FileFacts:
    """A file as the folder lists it; the same facts mean the same content."""

    path: Path
    num_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Raises OSError if the file is gone."""
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Known:
    """What is known of a picture: its upright size, its content's SHA-256, whether all its pixels were decoded well."""

    size: Size | None = None
    sha256: str | None = None
    decoded: bool = False


class Memo:
    """The memory of one user. Safe with several processes and threads: each call opens the file for itself."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "files.sqlite"

    def recall(self, files: Sequence[FileFacts]) -> dict[Path, Known]:
        """What is known of those of `files` that have not changed since."""
        found: dict[Path, Known] = {}
        by_name = {os.fspath(facts.path): facts for facts in files}
        with suppress(sqlite3.Error, OSError), self._open() as database:
            for name, facts in by_name.items():
                row = database.execute(_RECALL, (name, facts.num_bytes, facts.mtime_ns)).fetchone()
                if row is not None:
                    size = None if row[0] is None else (row[0], row[1])
                    found[facts.path] = Known(size, row[2], bool(row[3]))
        return found

    def remember(self, news: Iterable[tuple[FileFacts, Known]]) -> None:
        """Add to what is known; files changed within the last two seconds are left out."""
        before = time.time_ns() - _FRESH_NS
        rows = [
            (os.fspath(facts.path), facts.num_bytes, facts.mtime_ns, *(known.size or (None, None)), known.sha256,
             known.decoded)
            for facts, known in news
            if facts.mtime_ns < before
        ]  # fmt: skip
        if rows:
            with suppress(sqlite3.Error, OSError), self._open() as database:
                database.executemany(_REMEMBER, rows)

    def recall_weights(self, files: Sequence[FileFacts], part: str) -> str | None:
        """The identity of `part` ("vae fp32") of a model made of `files`, if it was once computed."""
        with suppress(sqlite3.Error, OSError), self._open() as database:
            row = database.execute("SELECT identity FROM weights WHERE key = ?", (_weights_key(files, part),)).fetchone()
            return None if row is None else str(row[0])
        return None

    def remember_weights(self, files: Sequence[FileFacts], part: str, identity: str) -> None:
        """Keep the identity of a model's part; nothing is kept of files changed within the last two seconds."""
        if any(facts.mtime_ns >= time.time_ns() - _FRESH_NS for facts in files):
            return
        with suppress(sqlite3.Error, OSError), self._open() as database:
            database.execute("INSERT OR REPLACE INTO weights VALUES (?, ?)", (_weights_key(files, part), identity))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction; a damaged file is thrown away, it held nothing that is not elsewhere."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE_S)) as database:
            try:
                _prepare(database)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, read-only, full: not damaged
                    raise
                database.close()
                self.path.unlink()
                raise
            with database:
                yield database


_RECALL = "SELECT width, height, sha256, decoded FROM files WHERE path = ? AND num_bytes = ? AND mtime_ns = ?"
_REMEMBER = """
INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET
    width = coalesce(excluded.width, iif(same, width, NULL)),
    height = coalesce(excluded.height, iif(same, height, NULL)),
    sha256 = coalesce(excluded.sha256, iif(same, sha256, NULL)),
    decoded = max(excluded.decoded, iif(same, decoded, 0)),
    num_bytes = excluded.num_bytes, mtime_ns = excluded.mtime_ns
""".replace("same", "num_bytes = excluded.num_bytes AND mtime_ns = excluded.mtime_ns")


def _prepare(database: sqlite3.Connection) -> None:
    if _version(database) == SCHEMA:
        return
    with database:
        database.execute("BEGIN IMMEDIATE")
        if _version(database) == SCHEMA:  # another process was quicker
            return
        database.execute("DROP TABLE IF EXISTS files")
        database.execute("DROP TABLE IF EXISTS weights")
        database.execute(
            "CREATE TABLE files (path TEXT PRIMARY KEY, num_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "
            "width INTEGER, height INTEGER, sha256 TEXT, decoded INTEGER NOT NULL) WITHOUT ROWID"
        )
        database.execute("CREATE TABLE weights (key TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID")
        database.execute(f"PRAGMA user_version = {SCHEMA}")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _weights_key(files: Sequence[FileFacts], part: str) -> str:
    facts: Mapping[str, tuple[int, int]] = {os.fspath(f.path): (f.num_bytes, f.mtime_ns) for f in files}
    return repr((part, sorted(facts.items())))
