"""The pipe: several windows, strangers, silent and slow ones, commands, pictures, and what was missed."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from trainer.ipc import events, pipe
from trainer.ipc.events import COMMANDS, Command
from trainer.ipc.journal import Record, Rows
from trainer.ipc.pipe import Link, Picture, connect, send
from trainer.ipc.runfolder import RunFolder, create
from trainer.ipc.station import Station

STEP = events.Step(1, 1, 0.5, (1e-4,), 0.1)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(create(tmp_path, "a"))
    yield made
    made.close()


def numbers(link: Link, until: int, seconds: float = 10.0) -> list[int]:
    """The numbers of the events that come, until the one numbered `until`."""
    found: list[int] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (not found or found[-1] < until):
        for content in link.receive(0.1):
            if isinstance(content, Rows):
                found += [int(row[0] or 0) for row in content.rows]
            elif isinstance(content, Record):
                found.append(content.number)
            if found and found[-1] >= until:  # the worker may hang up right behind it
                return found
    return found


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_window_gets_what_it_missed_and_then_live_events_each_once(station: Station) -> None:
    for _ in range(50):
        station.report(STEP)
    link = connect(station.folder, since=20)
    for _ in range(50):
        station.report(STEP)
    assert numbers(link, 100) == list(range(21, 101))
    link.close()


def test_two_windows_see_the_same(station: Station) -> None:
    links = [connect(station.folder, 0), connect(station.folder, 0)]
    for _ in range(30):
        station.report(STEP)
    assert [numbers(link, 30) for link in links] == [list(range(1, 31))] * 2
    for link in links:
        link.close()


def test_commands_arrive_in_order_and_nonsense_is_left_out(station: Station) -> None:
    link = connect(station.folder, 0)
    link.send(Command("pause"))
    link._send({"command": "explode"})
    link._send({"command": "prompts", "prompts": "text"})
    link.send(Command("prompts", ({"prompt": "猫"},)))
    got: list[Command] = []
    wait_for(lambda: got.extend(station.poll()) or len(got) >= 2)
    assert got == [Command("pause"), Command("prompts", ({"prompt": "猫"},))]
    link.close()


def test_one_command_can_be_sent_without_watching(station: Station) -> None:
    pipe.send(station.folder, Command("stop"))
    wait_for(lambda: station.poll() == [Command("stop")])


def test_a_picture_follows_its_sample(station: Station) -> None:
    link = connect(station.folder, 0)
    wait_for(lambda: station._server is not None and station._server._clients)
    station.report(STEP)
    station.report(events.Sample(1, 0, "a", 7, "samples/a.png"), picture=b"\xff\xd8 jpeg")
    got: list[object] = []
    wait_for(lambda: got.extend(link.receive(0.1)) or len(got) == 3)
    assert got[2] == Picture(2, b"\xff\xd8 jpeg")
    link.close()


@pytest.mark.skipif(os.name == "nt", reason="a Windows pipe has no file")
def test_address_and_key_are_the_owners_alone(station: Station) -> None:
    folder = station.folder
    assert stat.S_IMODE(folder.pipe.stat().st_mode) == 0o600
    address = Path(_address(folder))
    assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700 and len(str(address)) < 100


def test_a_wrong_key_is_refused(station: Station) -> None:
    wrong = station.folder.pipe.read_text(encoding="utf-8")
    start = wrong.index('"key": "') + 8
    station.folder.pipe.write_text(wrong[:start] + "00" * 32 + wrong[start + 64 :], encoding="utf-8")
    with pytest.raises(OSError, match="no worker answers"):
        connect(station.folder, 0)


def test_one_that_says_nothing_or_nonsense_blocks_nobody(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "HANDSHAKE_S", 0.3)
    silent = [Client(_address(station.folder)) for _ in range(5)]
    half = socket.socket(socket.AF_UNIX)
    half.connect(_address(station.folder))
    half.sendall(b"\x00\x00")  # the beginning of a frame, and no more
    link = connect(station.folder, 0)
    station.report(STEP)
    assert numbers(link, 1) == [1]
    link.close()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "pipe-client"])
    for client in silent:
        client.close()
    half.close()


def test_a_slow_window_is_cut_off_stops_nobody_and_catches_up(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    server = station._server
    assert server is not None
    monkeypatch.setattr(pipe, "QUEUE_FRAMES", 50)
    slow = connect(station.folder, 0)
    wait_for(lambda: len(server._clients) == 1)
    monkeypatch.setattr(pipe, "QUEUE_FRAMES", 1 << 20)
    quick = connect(station.folder, 0)
    wait_for(lambda: len(server._clients) == 2)
    longest = 0.0
    for _ in range(5_000):
        began = time.perf_counter()
        station.report(STEP)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 2.0  # it did not wait for the slow one, which never reads
    assert numbers(quick, 5_000, 60) == list(range(1, 5_001))
    with pytest.raises((OSError, EOFError)):
        numbers(slow, 5_000, 60)
    again = connect(station.folder, since=1000)
    assert numbers(again, 5_000, 60) == list(range(1001, 5_001))
    for link in (slow, quick, again):
        link.close()


def test_closing_lets_windows_have_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    station = Station(create(tmp_path, "a"))
    private = Path(_address(station.folder)).parent
    link = connect(station.folder, 0)
    station.report(STEP)
    assert numbers(link, 1) == [1]  # the worker has let it in
    for _ in range(99):
        station.report(STEP)
    closing = threading.Thread(target=station.close)
    closing.start()
    assert numbers(link, 100) == list(range(2, 101))
    with pytest.raises((OSError, EOFError)):
        numbers(link, 101)
    closing.join(10)
    assert not closing.is_alive()
    assert not private.exists() and not station.folder.pipe.exists()
    with pytest.raises(OSError, match="no worker answers"):
        connect(station.folder, 0)
    link.close()


def test_commands_of_one_sender_keep_their_order(tmp_path: Path) -> None:
    station = Station(create(tmp_path, "a"))
    names = [COMMANDS[number % len(COMMANDS)] for number in range(40)]
    for name in names:
        send(station.folder, Command(name))
    assert [command.name for command in station.poll()] == names
    station.close()


def test_a_pipe_of_a_dead_worker_answers_at_once(tmp_path: Path) -> None:
    folder = create(tmp_path, "a")
    folder.pipe.write_text('{"address": "/nowhere/pipe", "key": "00"}', encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(OSError, match="no worker answers"):
        connect(folder, 0)
    assert time.monotonic() - began < 1


def _address(folder: RunFolder) -> str:
    import json

    return str(json.loads(folder.pipe.read_text(encoding="utf-8"))["address"])


