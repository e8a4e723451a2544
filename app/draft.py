"""The run being edited: its values, its problems, undo and redo, and a copy on disk after each change.

Values are plain data as in the TOML (None where a setting is empty). What the user typed is kept even where it is no
valid value yet; the checks, which run in a thread, say so.
"""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal

from app import places
from app.work import Latest
from trainer import files
from trainer.config.files import absolute, read_values, to_toml
from trainer.config.migrate import migrate
from trainer.config.problems import check_values
from trainer.config.run import FORMAT, RunFile, sections
from trainer.config.run import default_values as schema_defaults
from trainer.errors import BadRunFile, Problem
from trainer.models import hub
from trainer.paths import user_folder

if TYPE_CHECKING:
    from app.facts import Facts
    from trainer.data.index import Index
    from trainer.estimate import StepPlan

Values = dict[str, Any]
UNDO_LIMIT = 300
MERGE_S = 1.2  # edits of one place within this time are one step of undo
CHECK_DELAY_MS = 120
SAVE_DELAY_MS = 250


def default_values() -> Values:
    """A new run: the schema's defaults as plain data."""
    return copy.deepcopy(_defaults())


@cache
def _defaults() -> Values:
    values: Values = _plain(schema_defaults())
    return values


def draft_path() -> Path:
    return user_folder() / "draft.json"


@dataclass(frozen=True)
class Snapshot:
    """Everything that undo brings back: the values, where they came from, and what they are compared with."""

    place: str  # of the edit that followed, "" if it was many
    values: Values
    file: Path | None
    preset: str
    baseline: Values


@dataclass(frozen=True)
class Checked:
    """What the schema says to the values: problems, and the run with defaults in place of what is wrong (or None)."""

    version: int
    usable: RunFile | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class OnDisk:
    """What the disk says to a run: problems, the pictures found, the steps and further figures (None: not known)."""

    problems: tuple[Problem, ...] = ()
    index: Index | None = None
    plan: StepPlan | None = None
    facts: Facts | None = None


class Draft(QObject):
    """See the module.

    Signals:
        changed(place): a value changed; "" if many did (undo, another file).
        edited(): the same, without the place.
        checked(): `problems`, `run`, `usable` or `disk` are new; `is_checked` says whether they are complete.
        opened(): another run is edited: a file, or a new one.
        file_changed(): the same, or the values were saved in a file.
    """

    changed = Signal(str)
    edited = Signal()
    checked = Signal()
    opened = Signal()
    file_changed = Signal()

    def __init__(self, path: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._store = path or draft_path()
        self.values: Values = default_values()
        self.baseline: Values = default_values()
        self.file: Path | None = None
        self.preset = ""
        self.problems: tuple[Problem, ...] = ()
        self.run: RunFile | None = None
        self.usable: RunFile | None = None
        self.version = 0  # counts the changes of the values, and what made the disk be looked at again
        self._disk_version = 0  # from which on what the disk says holds
        self._checked_version = -1
        self._undo: list[Snapshot] = []
        self._redo: list[Snapshot] = []
        self._last_edit = ("", 0.0)
        self._paths: dict[str, tuple[tuple[str, Path] | None, str]] = {}  # place -> what was asked, what it means
        self.disk = OnDisk()
        self._disk_run: RunFile | None = None
        self._values_checked = Checked(-1, None, ())
        self._checks = Latest(self, self._on_checked)
        self._disk_checks = Latest(self, self._on_disk_checked, self._on_disk_failed)
        self._saves = Latest(self, lambda _: None)
        self._check_timer = self._timer(CHECK_DELAY_MS, self._check)
        self._save_timer = self._timer(SAVE_DELAY_MS, self._save)
        self._load()
        QTimer.singleShot(0, self, self._check_timer.start)  # from when events are heard: the window is painted first

    def _timer(self, delay_ms: int, slot: Any) -> QTimer:
        timer = QTimer(self, singleShot=True, interval=delay_ms)
        timer.timeout.connect(slot)
        return timer

    # ---- values ----

    def get(self, place: str) -> Any:
        """The value at a place; the default where the file has none. Raises KeyError for an unknown place."""
        try:
            return places.read(self.values, place)
        except KeyError:
            return self.default(place)

    def path(self, place: str) -> str:
        """The path (or the hub's id) at a place as the run will have it: "~" and what is relative filled in.

        What looks like an id is looked for on the disk, once for each value.
        """
        asked = (str(self.get(place) or "").strip(), self._base)
        known, answer = self._paths.get(place, (None, ""))
        if known != asked:
            key, _, name = place.partition(".")
            answer = str(absolute_values({key: {name: asked[0]}}, asked[1])[key][name])
            self._paths[place] = (asked, answer)
        return answer

    def default(self, place: str) -> Any:
        """What the preset (or else the schema) has at a place. Raises KeyError for an unknown place."""
        try:
            return places.read(self.baseline, place)
        except KeyError:
            found = places.setting_at(place, sections())
            if found is None:
                raise
            return _plain(found[0].get_default(call_default_factory=True))

    def is_default(self, place: str) -> bool:
        return bool(self.get(place) == self.default(place))

    def set(self, place: str, value: Any) -> None:
        """Change one value; quick edits of one place make one step of undo (not of a list: each folder counts)."""
        value = _plain(value)
        try:
            if places.read(self.values, place) == value and type(places.read(self.values, place)) is type(value):
                return
        except KeyError:
            pass
        is_list_of_tables = isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
        self._remember(place, merge=not is_list_of_tables)
        places.write(self.values, place, value)
        self._after_change(place)

    def set_many(self, changes: dict[str, Any], *, as_baseline: str | None = None) -> None:
        """Change several values as one step of undo. `as_baseline`: the name of a preset whose values these are."""
        self._remember("", merge=False)
        for place, value in changes.items():
            places.write(self.values, place, _plain(value))
        if as_baseline is not None:
            self.preset = as_baseline
            self.baseline = default_values()
            for place, value in changes.items():
                places.write(self.baseline, place, _plain(value))
        self._after_change("")

    def reset(self, place: str) -> None:
        """Back to the preset's value."""
        self._last_edit = ("", 0.0)
        self.set(place, copy.deepcopy(self.default(place)))

    def remove(self, place: str) -> None:
        """Take out a key (one that the schema does not know)."""
        self._remember(place, merge=False)
        places.remove(self.values, place)
        self._after_change("")

    def _remember(self, place: str, merge: bool = True) -> None:
        last_place, last_time = self._last_edit
        now = time.monotonic()
        self._last_edit = (place, now)
        self._redo.clear()
        if merge and place and place == last_place and now - last_time < MERGE_S and self._undo:
            return
        self._undo.append(self._snapshot(place))
        del self._undo[:-UNDO_LIMIT]

    def _snapshot(self, place: str) -> Snapshot:
        return Snapshot(place, copy.deepcopy(self.values), self.file, self.preset, copy.deepcopy(self.baseline))

    def _after_change(self, place: str) -> None:
        self.version += 1
        self._save_timer.start()
        self._check_timer.start()
        self.changed.emit(place)
        self.edited.emit()

    # ---- undo ----

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def undo(self) -> str:
        """Take back the last edit; returns its place ("" if it was many)."""
        return self._swap(self._undo, self._redo)

    def redo(self) -> str:
        """Make the edit again that was taken back."""
        return self._swap(self._redo, self._undo)

    def _swap(self, source: list[Snapshot], target: list[Snapshot]) -> str:
        if not source:
            return ""
        back = source.pop()
        target.append(self._snapshot(back.place))
        former_file = self.file
        self.values, self.file, self.preset, self.baseline = back.values, back.file, back.preset, back.baseline
        self._last_edit = ("", 0.0)
        self._after_change("")
        if self.file != former_file:
            self.opened.emit()
            self.file_changed.emit()
        return back.place

    # ---- files ----

    def new(self) -> None:
        """Start anew with the defaults; undo brings the old run back."""
        self._replace(default_values(), None)

    def open(self, path: Path) -> None:
        """Edit a run file. Raises BadInput if it cannot be read; mistakes in its values are kept and shown."""
        values = default_values()
        for key, table in absolute_values(read_values(path), path.resolve().parent).items():
            if isinstance(table, dict) and isinstance(values.get(key), dict):
                values[key] |= table
            else:
                values[key] = table
        self._replace(values, path)

    def _replace(self, values: Values, file: Path | None) -> None:
        self._remember("", merge=False)
        self.values, self.file, self.preset = values, file, ""
        self.baseline = default_values()
        self._after_change("")
        self.opened.emit()
        self.file_changed.emit()

    def save(self, path: Path) -> None:
        """Write a run file. One that still has mistakes is written too, without the comments. Raises OSError."""
        files.write_text(path, self.toml())
        self.file = path
        self._save_timer.start()
        self.file_changed.emit()

    def toml(self) -> str:
        """The run file's text as it would be saved now; paths in it are absolute, so that it may lie anywhere."""
        values = absolute_values(self.values, self._base)
        run, _ = check_values(values)
        if run is not None:
            return to_toml(run)
        import tomli_w

        return tomli_w.dumps({"format": FORMAT, **_without_none(values)})

    @property
    def _base(self) -> Path:
        """Where relative paths begin."""
        return self.file.parent if self.file else user_folder()

    def flush(self) -> None:
        """Write the draft now (the window closes)."""
        self._save_timer.stop()
        _write_store(self._store, self._stored())

    def _save(self) -> None:
        stored = self._stored()
        self._saves.ask(lambda: _write_store(self._store, stored))

    def _stored(self) -> Values:
        file = str(self.file) if self.file else ""
        values = copy.deepcopy(self.values)
        return {"format": FORMAT, "values": values, "file": file, "preset": self.preset, "baseline": self.baseline}

    def _load(self) -> None:
        try:
            stored = json.loads(self._store.read_text(encoding="utf-8"))
            number = stored.get("format", 1)
            values = migrate({**stored["values"], "format": number})
            baseline = migrate({**(stored.get("baseline") or default_values()), "format": number})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadRunFile):
            return
        fresh = default_values()
        self.values = {key: {**table, **_table(values.get(key))} for key, table in fresh.items()}
        self.values |= {key: table for key, table in values.items() if key not in fresh}
        self.baseline = {key: {**table, **_table(baseline.get(key))} for key, table in fresh.items()}
        self.preset = str(stored.get("preset", ""))
        self.file = Path(stored["file"]) if stored.get("file") else None

    # ---- checks ----

    @property
    def is_checked(self) -> bool:
        """Whether `problems` belong to the values and the disk as they are now."""
        return self._checked_version == self.version

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def check_again(self) -> None:
        """Look at the disk again: a file may have come or gone."""
        self.version += 1
        self._disk_version, self._disk_run = self.version, None
        self._check_timer.start()

    def is_missing(self, place: str) -> bool:
        """Whether a place that a run needs is not filled in yet: something to do, and no mistake."""
        return place in ("model.path", "images.folders") and not self.get(place)

    def problems_at(self, place: str) -> list[Problem]:
        """Problems of a place and of what is inside it."""
        inside = (f"{place}.", f"{place}[")
        return [problem for problem in self.problems if problem.place == place or problem.place.startswith(inside)]

    def _check(self) -> None:
        version, values, base = self.version, copy.deepcopy(self.values), self._base
        self._checks.ask(lambda: check(version, values, base))

    def _on_checked(self, answer: Checked) -> None:
        """The values are checked; the disk is asked only where something that lies on it has changed."""
        self._values_checked = answer
        self.usable = answer.usable
        if answer.usable is None or answer.usable == self._disk_run:
            self._publish(answer.version)
            return
        self._publish(None)
        run = answer.usable
        self._disk_checks.ask(lambda: (answer.version, run, look_at_disk(run)))

    def _on_disk_checked(self, answer: tuple[int, RunFile, OnDisk]) -> None:
        version, run, disk = answer
        if version < self._disk_version or run != self._values_checked.usable:
            return  # of before: what holds now has been said, or is being asked
        self._disk_run, self.disk = run, disk
        self._publish(self._values_checked.version)

    def _on_disk_failed(self, error: Exception) -> None:
        """A mistake of ours: nothing is known of the disk, and nobody is kept waiting for it."""
        self.disk, self._disk_run = OnDisk(), None
        self._publish(self._values_checked.version)
        raise error

    def _publish(self, version: int | None) -> None:
        """Join both answers; `version` is that of the values they are complete for."""
        values = self._values_checked
        wrong = {problem.place for problem in values.problems}
        disk = tuple(problem for problem in self.disk.problems if problem.place not in wrong)
        self.problems = values.problems + disk
        if version is not None:
            self._checked_version = version
        self.run = None if self.errors else values.usable
        self.checked.emit()


def check(version: int, values: Values, base: Path) -> Checked:
    """Check the values alone, which takes milliseconds. Relative paths are those of `base`. Any thread."""
    run, problems = check_values(values)
    usable = run or usable_run(values, problems)
    return Checked(version, None if usable is None else absolute(usable, base), problems)


def look_at_disk(run: RunFile) -> OnDisk:
    """Check the files and folders of a run whose paths are absolute. Any thread."""
    from app.facts import gather
    from trainer.check import check_run

    found = check_run(run)
    plan = found.plan
    facts = gather(run, plan.total_steps if plan else None, plan.num_epochs if plan else None)
    return OnDisk(found.problems, found.index, plan, facts)


def usable_run(values: Values, problems: tuple[Problem, ...]) -> RunFile | None:
    """The run with defaults in place of what is wrong, None if even that makes none."""
    mended = copy.deepcopy(values)
    for problem in problems:
        if problem.severity == "error" and not _is_list_of_tables(problem.place):
            places.remove(mended, problem.place)
    from pydantic import ValidationError

    try:
        return RunFile.model_validate(mended)
    except ValidationError:
        return None


def _is_list_of_tables(place: str) -> bool:
    return places.parts_of(place)[-1] == "folders"


def absolute_values(values: Values, folder: Path) -> Values:
    """Unchecked values with the paths in them made absolute from `folder`; ids of models on the hub stay."""

    def walk(value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return {key: walk(entry, f"{place}.{key}" if place else key) for key, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry, f"{place}[{n}]") for n, entry in enumerate(value, 1)]
        if not isinstance(value, str) or not value or (found := places.setting_at(place, sections())) is None:
            return value
        if place.startswith(("model.", "network.")) and hub.parse(value, folder) is not None:
            return value  # a model named by its id on the hub
        return str(folder / os.path.expanduser(value)) if found[1].widget in ("file", "folder") else value

    walked: Values = walk(values, "")
    return walked


def _plain(value: Any) -> Any:
    """Tuples as lists and dates (of a mistaken file) as text, so that values are the same after a trip through JSON."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list) else value


def _table(value: Any) -> Values:
    return value if isinstance(value, dict) else {}


def _write_store(path: Path, stored: Values) -> None:
    files.write_json(path, stored)
