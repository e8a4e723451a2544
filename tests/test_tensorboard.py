"""TensorBoard's log, read back record by record as TensorBoard reads it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from trainer import worker
from trainer.config.files import write_run
from trainer.ipc import events
from trainer.ipc.journal import Record
from trainer.ipc.runfolder import create
from trainer.ipc.station import Station
from trainer.tensorboard import TensorBoard
from trainer.training import train

from .runs import draw_pictures, tiny_run
from .tiny import save_tiny_file

HELLO = events.Hello(1, 1, 0.0, 0, 4, 2, 2, "cpu")
PLAN = events.Plan(4, 2, 2, 2, 0, 1, 1, ("unet", "text_encoder"))


def written(file: Path) -> Iterator[Any]:
    """The events of one file: each is its length, a checksum of that, the bytes, and a checksum of those."""
    data = file.read_bytes()
    while data:
        (length, check), data = struct.unpack("<QI", data[:12]), data[12:]
        assert check == masked(struct.pack("<Q", length))
        content, (check,), data = data[:length], struct.unpack("<I", data[length : length + 4]), data[length + 4 :]
        assert check == masked(content)
        yield Event.FromString(content)


def masked(data: bytes) -> int:
    """The format's checksum: CRC-32C, turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def values(event: Any) -> dict[str, float]:
    return {value.tag: value.simple_value for value in event.summary.value}


def give(board: TensorBoard, reported: Sequence[events.Event]) -> None:
    for number, event in enumerate(reported, 1):
        board(Record(number, 100.0 + number, event))


def step(number: int, loss: float) -> events.Step:
    return events.Step(number, 1, loss, (1e-3, 5e-4), 0.25)


def test_every_step_is_a_point_of_every_curve(tmp_path: Path) -> None:
    give(TensorBoard(tmp_path / "new"), [HELLO, PLAN, step(1, 0.5), step(2, 0.25), events.Done(2, "finished")])
    (file,) = (tmp_path / "new").iterdir()
    assert ".tfevents." in file.name  # TensorBoard finds its files by that
    first, _, *points = written(file)
    assert first.file_version == "brain.Event:2"
    assert [(event.step, event.wall_time, values(event)) for event in points] == [
        (1, 103.0, pytest.approx({"loss": 0.5, "seconds": 0.25, "rate/unet": 1e-3, "rate/text_encoder": 5e-4})),
        (2, 104.0, pytest.approx({"loss": 0.25, "seconds": 0.25, "rate/unet": 1e-3, "rate/text_encoder": 5e-4})),
    ]


def test_a_resumed_run_takes_back_what_its_snapshot_did_not_have(tmp_path: Path) -> None:
    going_on = events.Hello(1, 1, 0.0, 2, 4, 2, 2, "cpu")
    give(TensorBoard(tmp_path), [going_on, PLAN, step(3, 0.5), events.Failed(going_on.device)])  # type: ignore[arg-type]
    (file,) = tmp_path.iterdir()
    start = list(written(file))[1]
    assert (start.step, start.session_log.status) == (3, SessionLog.START)


def test_a_full_disk_ends_the_log_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = create(tmp_path, "run")
    board = TensorBoard(folder.path / "tensorboard")
    station = Station(folder, [board])

    def full(event: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._file, "write_event", full)
    for event in (HELLO, PLAN, *(step(number, 0.5) for number in range(1, 5)), events.Done(4, "finished")):
        station.report(event)
    station.close()
    assert folder.read_status().step == 4
    assert capsys.readouterr().out.count("No space left on device") == 1
    board._file.close()


def test_a_run_that_asks_for_it_writes_the_losses_of_its_journal(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "img", [(64, 64)] * 2)
    run = tiny_run(save_tiny_file(tmp_path), pictures, output={"tensorboard": True}, network={"train": "unet"})
    folder = create(tmp_path, "tiny")
    write_run(folder.run_file, run)
    told: list[events.Event] = []
    ending = worker.work(folder, train, listeners=[lambda record: told.append(record.event)])
    assert isinstance(ending, events.Done)
    (file,) = (folder.path / "tensorboard").iterdir()
    losses = {event.step: values(event)["loss"] for event in written(file) if event.summary.value}
    assert losses == pytest.approx({event.step: event.loss for event in told if isinstance(event, events.Step)})
    assert len(losses) == 4
