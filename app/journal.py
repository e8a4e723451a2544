"""What a run's journal says, as the window holds it: curves as arrays, pictures, files, warnings, and how it stands.

`Follower` reads in a thread of its own: first the whole journal in bulk, then live through the pipe, and from the file
again where there is no pipe. It hands `Batch`es to the window's thread, which adds them to a `History`. Neither knows a
widget; numpy is imported here, so this module is imported when a run is opened.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QThread, Signal

from trainer.ipc import events, journal
from trainer.ipc.events import Sample, Saved
from trainer.ipc.journal import ROW_COLUMNS, Record, Rows
from trainer.ipc.pipe import Link, Picture, connect
from trainer.ipc.runfolder import RunFolder, Status, is_alive
from trainer.messages import Message

Floats = NDArray[np.float64]

NUMBER, TIME, STEP, EPOCH, LOSS, SECONDS, MEMORY = range(len(ROW_COLUMNS))
MAX_RATES = 4  # parts with a learning rate of their own
WIDTH = len(ROW_COLUMNS) + MAX_RATES
PACE_STEPS = 200  # the pace is that of the last so many steps
ROWS_A_BATCH = 5_000  # handed over at once while a long journal is read
WORK_S, BREATH_S = 0.002, 0.002  # in turn while a long journal is read: the window's thread never waits long for its own
BATCH_S = 0.1
LIVENESS_S = 1.0
RECONNECT_S = 1.0
TAIL_S = 0.3

Item = Floats | Record | Picture


@dataclass
class Batch:
    """What is new, in the journal's order: rows (n, WIDTH), records, live pictures; and whether the worker lives."""

    items: list[Item] = field(default_factory=list)
    num_rows: int = 0
    status: Status | None = None
    alive: bool | None = None
    caught_up: bool = False  # everything that the journal held has been read

    def add(self, item: Item) -> None:
        self.items.append(item)
        if isinstance(item, np.ndarray):
            self.num_rows += len(item)

    def join_rows(self) -> None:
        """Make one array of each group of arrays that follow each other, column by column: less work for who takes them."""
        groups = itertools.groupby(self.items, key=lambda item: isinstance(item, np.ndarray))
        items: list[Item] = []
        for are_rows, group in groups:
            items += [np.asfortranarray(np.concatenate(list(group)))] if are_rows else group
        self.items = items

    @property
    def is_empty(self) -> bool:
        return not self.items and self.alive is None and not self.caught_up


@dataclass
class History:
    """A run so far. Only the window's thread touches it; `apply` takes what a follower brings."""

    plan: events.Plan | None = None
    total_steps: int = 0
    steps_per_epoch: int = 0
    epochs: int = 0
    device: str = ""
    stage: events.Stage | None = None
    paused: bool = False
    samples: dict[tuple[int, int], Sample] = field(default_factory=dict)  # by step and prompt
    thumbnails: dict[str, bytes] = field(default_factory=dict)  # live ones, by file
    saves: dict[str, Saved] = field(default_factory=dict)  # by file
    warnings: list[events.Warning_] = field(default_factory=list)
    changes: list[Message] = field(default_factory=list)  # settings changed on resume
    failed: events.Failed | None = None
    done: events.Done | None = None
    last_number: int = 0
    last_sample_number: int = 0  # of the newest picture's event: a change means that there are new pictures
    _rows: Floats = field(default_factory=lambda: np.empty((WIDTH, 1024)))  # each column in one piece: they are read often
    _num_rows: int = 0
    _pace_from: int = 0  # row where the pace begins: after a pause or a resume
    _numbers: dict[int, str] = field(default_factory=dict)  # sample file by event number, for live pictures

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def column(self, index: int) -> Floats:
        """A column of the step rows, (n,): STEP, LOSS, … or `len(ROW_COLUMNS)` + which rate. A view: do not change it."""
        return self._rows[index, : self._num_rows]

    @property
    def rate_names(self) -> tuple[str, ...]:
        """What the learning rates belong to, in the order of their columns; empty while unknown."""
        return self.plan.rates[:MAX_RATES] if self.plan is not None else ()

    @property
    def rates(self) -> list[float]:
        """The learning rates of the last step, in the order of `rate_names`; empty before the first."""
        if not self._num_rows:
            return []
        found = self._rows[len(ROW_COLUMNS) :, self._num_rows - 1]
        return [float(rate) for rate in found if np.isfinite(rate)]

    @property
    def step(self) -> int:
        """Steps done."""
        if self._num_rows:
            return int(self._rows[STEP, self._num_rows - 1])
        return self.done.step if self.done else 0

    @property
    def epoch(self) -> int:
        return int(self._rows[EPOCH, self._num_rows - 1]) if self._num_rows else 0

    @property
    def epoch_ends(self) -> list[int]:
        """Steps with which an epoch ended, from the rows."""
        epochs, steps = self.column(EPOCH), self.column(STEP)
        ends: list[int] = steps[:-1][epochs[1:] > epochs[:-1]].astype(np.int64).tolist()
        return ends

    @property
    def seconds_a_step(self) -> float | None:
        """Of the last steps, previews and saves left out; None before the first."""
        recent = self.column(SECONDS)[-50:]
        return float(np.mean(recent)) if len(recent) else None

    @property
    def seconds_left(self) -> float | None:
        """What the rest will take at the pace of late, previews and saves included; None while unknown."""
        start = max(self._pace_from, self._num_rows - PACE_STEPS)
        if self._num_rows - start < 2 or not self.total_steps or self.done or self.failed:
            return None
        times = self.column(TIME)
        pace = (times[-1] - times[start]) / (self._num_rows - start - 1)
        return float(max(0, self.total_steps - self.step) * pace)

    @property
    def memory_bytes(self) -> int:
        """In use at the last step; 0 while unknown."""
        return int(self._rows[MEMORY, self._num_rows - 1]) if self._num_rows else 0

    @property
    def newest_samples(self) -> list[Sample]:
        """The pictures of the last step that has some, by prompt."""
        if not self.samples:
            return []
        last = max(step for step, _ in self.samples)
        return [self.samples[key] for key in sorted(key for key in self.samples if key[0] == last)]

    @property
    def sample_steps(self) -> list[int]:
        return sorted({step for step, _ in self.samples})

    @property
    def sample_indices(self) -> list[int]:
        return sorted({index for _, index in self.samples})

    @property
    def files(self) -> list[Saved]:
        """The LoRA files saved and exported, in order."""
        return [saved for saved in self.saves.values() if saved.what != "state"]

    def apply(self, batch: Batch) -> None:
        """Add what is new. Events that are already known (by number) are left out."""
        for item in batch.items:
            if isinstance(item, Picture):
                self._take_picture(item)
            elif isinstance(item, Record):
                if item.number > self.last_number:
                    self.last_number = item.number
                    self._take_event(item)
            else:
                known = int(np.searchsorted(item[:, NUMBER], self.last_number, side="right"))
                new = item[known:]
                if len(new):
                    self.last_number = int(new[-1, NUMBER])
                    self._append(new)

    def _append(self, rows: Floats) -> None:
        needed = self._num_rows + len(rows)
        room = self._rows.shape[1]
        if needed > room:
            grown = np.empty((WIDTH, max(needed, 2 * room)))
            grown[:, : self._num_rows] = self._rows[:, : self._num_rows]
            self._rows = grown
        self._rows[:, self._num_rows : needed] = rows.T
        self._num_rows = needed

    def _take_event(self, record: Record) -> None:
        match record.event:
            case events.Hello() as hello:
                self._begin_again(hello)
            case events.Plan() as plan:
                self.plan = plan
                self.total_steps, self.steps_per_epoch = plan.total_steps, plan.steps_per_epoch
                self.epochs = plan.epochs
            case events.Stage() as stage:
                self.stage = stage
                self.failed = self.done = None  # a worker is at it again
            case Sample() as sample:
                self.samples[sample.step, sample.index] = sample
                self.last_sample_number = record.number
                self._numbers[record.number] = sample.file
            case Saved() as saved:
                self.saves[saved.file] = saved
            case events.Warning_() as warning:
                self.warnings.append(warning)
            case events.Paused() as paused:
                self.paused = paused.paused
                self._pace_from = self._num_rows
            case events.Failed() as failed:
                self.failed, self.stage, self.paused = failed, None, False
            case events.Done() as done:
                self.done, self.stage, self.paused = done, None, False

    def _begin_again(self, hello: events.Hello) -> None:
        """A worker begins: steps after its snapshot are superseded, and the run is no longer over."""
        keep = int(np.searchsorted(self.column(STEP), hello.from_step, side="right"))
        self._num_rows = self._pace_from = keep
        self.total_steps = hello.total_steps or self.total_steps
        self.steps_per_epoch = hello.steps_per_epoch or self.steps_per_epoch
        self.epochs = hello.epochs or self.epochs
        self.device = hello.device
        self.changes += hello.changes
        self.failed = self.done = self.stage = None
        self.paused = False

    def _take_picture(self, picture: Picture) -> None:
        file = self._numbers.get(picture.number)
        if file is not None:
            self.thumbnails[file] = picture.data


class Follower(QThread):
    """Follows one run folder until `end`.

    Signals:
        arrived(Batch): something is new. Emitted by this thread at most every BATCH_S while live.
    """

    arrived = Signal(object)

    def __init__(self, folder: RunFolder, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.folder = folder
        self.link: Link | None = None  # for commands; whoever sends must expect that it has gone
        self._ending = threading.Event()
        self._offset = 0
        self._last_number = 0
        self._checked = self._tried = 0.0
        self._worker: int | None = None  # the pid of the one at work, 0 for none; None: nobody has looked

    def end(self) -> None:
        """Ask the thread to end, without waiting; `finished` says when it has."""
        self._ending.set()

    def run(self) -> None:
        """The thread. Never raises: what can not be read now is read later."""
        self._read_journal()
        self._emit(Batch(caught_up=True))
        while not self._ending.is_set():
            began = time.monotonic()
            batch = Batch()
            if self.link is None and self._worker:
                self._try_to_connect()
            if self.link is not None:
                self._receive(self.link, batch)
            else:
                self._ending.wait(TAIL_S)
                self._read_journal()
            self._look_for_life(batch)
            self._emit(batch)
            self._ending.wait(max(0.0, BATCH_S - (time.monotonic() - began)))
        self._hang_up()

    def _read_journal(self) -> None:
        """Everything in the file after what is known, in batches."""
        batch, since = Batch(), time.perf_counter()
        for part in journal.read(self.folder.journal, self._offset):
            self._offset = part.offset
            self._take(part.content, batch)
            if time.perf_counter() - since >= WORK_S:
                time.sleep(BREATH_S)
                since = time.perf_counter()
            if batch.num_rows >= ROWS_A_BATCH:
                self._emit(batch)
                batch = Batch()
            if self._ending.is_set():
                return
        self._emit(batch)

    def _receive(self, link: Link, batch: Batch) -> None:
        try:
            for content in link.receive(BATCH_S):
                if isinstance(content, Picture):
                    batch.add(content)
                else:
                    self._take(content, batch)
                if len(batch.items) >= 1000 or self._ending.is_set():
                    break
        except (OSError, EOFError):
            self._hang_up()

    def _take(self, content: Rows | Record, batch: Batch) -> None:
        """Add what is new by its number."""
        number = content.last_number if isinstance(content, Rows) else content.number
        if number <= self._last_number:
            return
        self._last_number = number
        batch.add(to_array(content.rows) if isinstance(content, Rows) else content)

    def _try_to_connect(self) -> None:
        if time.monotonic() - self._tried < RECONNECT_S:
            return
        self._tried = time.monotonic()
        try:
            self.link = connect(self.folder, self._last_number, wait_s=2.0)
        except OSError:
            self.link = None

    def _hang_up(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None

    def _look_for_life(self, batch: Batch) -> None:
        """Every LIVENESS_S: is the worker there? Its last words are read before its end is told."""
        if time.monotonic() - self._checked < LIVENESS_S:
            return
        self._checked = time.monotonic()
        status = self.folder.read_status()
        alive = is_alive(status)
        worker = status.pid if alive else 0
        if self._worker and not alive:
            self._hang_up()
            self._emit(batch)
            batch.items, batch.num_rows = [], 0
            self._read_journal()
            status = self.folder.read_status()
        if worker != self._worker:
            batch.alive, batch.status = alive, status
        self._worker = worker

    def _emit(self, batch: Batch) -> None:
        if not batch.is_empty:
            batch.join_rows()
            self.arrived.emit(batch)


def to_array(rows: Sequence[journal.Row]) -> Floats:
    """Step rows as an array (n, WIDTH); what is not finite, and rates that are not there, as nan."""
    known = [row if len(row) == WIDTH else [*row[:WIDTH], *[None] * (WIDTH - len(row))] for row in rows]
    return np.array(known, dtype=np.float64)


def smoothed(values: Floats, weight: float) -> Floats:
    """The running mean y[i] = weight·y[i-1] + (1-weight)·x[i], begun without a bias towards zero; nan counts as missing.

    Args:
        values: (n,).
        weight: 0 (not at all) to 0.9999.

    Returns:
        (n,), in a few array operations over all of them: 100,000 values take about two milliseconds.
    """
    if not len(values) or weight <= 0:
        return values.copy()
    known = np.isfinite(values)
    sums = _decayed_sum(np.where(known, values, 0.0), weight)
    counts = _decayed_sum(known.astype(np.float64), weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)


def _decayed_sum(values: Floats, weight: float) -> Floats:
    """s[i] = weight·s[i-1] + x[i]. In blocks (so that weight**-i stays a sound number), then what each hands on."""
    block = max(1, min(256, int(200 / -np.log(weight))))
    powers = weight ** np.arange(1, block + 1)
    pieces = np.zeros((-(-len(values) // block), block))
    pieces.reshape(-1)[: len(values)] = values
    sums = np.cumsum(pieces / powers, axis=1) * powers
    handed_on, carried = np.empty((len(sums), 1)), 0.0
    for place, total in enumerate(sums[:, -1].tolist()):
        handed_on[place] = carried
        carried = carried * float(powers[-1]) + total
    sums += handed_on * powers
    result: Floats = sums.reshape(-1)[: len(values)]
    return result


def thinned(x: Floats, y: Floats, num_points: int) -> tuple[Floats, Floats]:
    """A curve of at most about `num_points` points that looks the same: the least and greatest of each stretch."""
    stretch = int(np.ceil(2 * len(x) / max(2, num_points)))
    if stretch <= 2:
        return x, y
    whole = len(x) // stretch * stretch
    pieces = y[:whole].reshape(-1, stretch)
    starts = np.arange(0, whole, stretch)
    filled = np.where(np.isfinite(pieces), pieces, np.inf), np.where(np.isfinite(pieces), pieces, -np.inf)
    picked = np.sort(np.stack([starts + filled[0].argmin(1), starts + filled[1].argmax(1)], axis=1), axis=1).ravel()
    picked = np.concatenate([picked, np.arange(whole, len(x))])
    return x[picked], y[picked]


def band(x: Floats, y: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """The least and the greatest of a curve between each two of the `edges`, where it is too dense to be drawn as a line.

    Args:
        x: (n,) rising.
        y: (n,), nan for gaps.
        edges: (c + 1,) rising.

    Returns:
        (c,) and (c,); nan where the curve has nothing.
    """
    places = np.searchsorted(x, edges)
    filled = places[:-1] < places[1:]
    least, greatest = np.full(len(filled), np.nan), np.full(len(filled), np.nan)
    if filled.any():
        starts, y = places[:-1][filled], y[: places[-1]]
        least[filled], greatest[filled] = np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)
    return least, greatest


def epoch_at(step: float, epoch_ends: Sequence[int]) -> int:
    """The epoch (from 1) that a step lies in."""
    return bisect.bisect_left(epoch_ends, step) + 1
