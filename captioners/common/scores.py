"""What a model saw in each picture, kept on disk: other thresholds need no second look, a broken-off run goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from trainer.paths import user_folder

TABLES = """
CREATE TABLE IF NOT EXISTS readings (
    model TEXT NOT NULL, picture TEXT NOT NULL, reading BLOB NOT NULL, PRIMARY KEY (model, picture)
) WITHOUT ROWID;
"""
_PATIENCE_S = 30.0  # for another process that is writing


def default_path() -> Path:
    """Where the scores of all captioners lie."""
    return user_folder() / "captions" / "scores.sqlite"


class ScoreStore:
    """An SQLite file of readings by (model, SHA-256 of the picture), shared by any number of processes.

    A reading is whatever bytes a captioner makes of a picture. The file may be deleted at any time; one that is damaged
    is set aside and begun anew.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the store; raises OSError or sqlite3.Error if it cannot be written."""
        path = path or default_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _opened(path)
        except sqlite3.OperationalError:  # locked, read-only, full: not damaged
            raise
        except sqlite3.DatabaseError:
            path.replace(path.with_name(path.name + ".damaged"))
            self._database = _opened(path)

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()

    def reading(self, model: str, picture: str) -> bytes | None:
        """What `model` saw in the picture with the digest `picture`, or None if it has not looked yet."""
        row = self._database.execute(
            "SELECT reading FROM readings WHERE model = ? AND picture = ?", (model, picture)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def keep(self, model: str, readings: Mapping[str, bytes]) -> None:
        """Store the readings of some pictures (by digest) in one transaction: all of them or none."""
        rows = [(model, picture, reading) for picture, reading in readings.items()]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", rows)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection that waits for other processes and has its table; raises sqlite3.Error."""
    database = sqlite3.connect(path, timeout=_PATIENCE_S)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(TABLES)
    except sqlite3.Error:
        database.close()
        raise
    return database
