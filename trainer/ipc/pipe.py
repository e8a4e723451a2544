"""The pipe between a worker and its windows: quick, and never the truth (that is the run folder).

Frames are bytes. From the worker: a line of the journal as it stands there, or `PICTURE`, the number of a sample event in
8 bytes, and its image. From a window: JSON, first `{"since": number}`, then commands. The address and key lie in the run
folder's `pipe.json`, which only its owner may read.

The training thread only puts frames into queues. One thread accepts; each client has a thread that shakes hands (with a
deadline) and then listens to it, and one that writes to it from a bounded queue. A client that can not keep up is cut off:
it comes back and gets what it missed from the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from trainer.ipc import journal
from trainer.ipc.events import COMMANDS, Command
from trainer.ipc.runfolder import RunFolder
from trainer.temporary import TemporaryFolder

PICTURE = b"\x89picture\n"
HANDSHAKE_S = 5.0
HEARD = b'{"event":"heard"}'  # the answer to a command that asked for one; no event of the journal
QUEUE_FRAMES = 2000
MAX_COMMAND_BYTES = 1 << 20

_CONNECTION_ERRORS = (OSError, EOFError, AuthenticationError, ValueError, AssertionError)
# ValueError: bytes that are no JSON. AssertionError: how multiprocessing answers an overlong first message.


class Server:
    """The worker's end. `publish` and `close` may be called from any thread and never wait for a client."""

    def __init__(self, folder: RunFolder, on_command: Callable[[Command], None]) -> None:
        """Listen for windows; `on_command` is called in a client's thread.

        Raises:
            OSError: if the system has no pipe to give, or `pipe.json` can not be written.
        """
        self._folder = folder
        self._on_command = on_command
        self._key = secrets.token_bytes(32)
        self._clients: list[_Served] = []
        self._lock = threading.Lock()
        self._closed = False
        self._private = TemporaryFolder()
        try:
            address = None if os.name == "nt" else str(self._private.path / "pipe")
            self._listener = Listener(address, "AF_PIPE" if os.name == "nt" else "AF_UNIX", backlog=16)
            _write_private(folder.pipe, {"address": self._listener.address, "key": self._key.hex()})
        except OSError:
            self._private.close()
            raise
        threading.Thread(target=self._accept, name="pipe-accept", daemon=True).start()

    def publish(self, number: int, line: bytes, picture: bytes = b"") -> None:
        """Give every window a line of the journal, and the picture that belongs to it."""
        with self._lock:
            for client in self._clients:
                client.put(number, line, picture)

    def close(self, patience_s: float = 2.0) -> None:
        """Let the writers finish for `patience_s` together, then cut every client and remove the address."""
        with self._lock:
            self._closed = True
            clients = list(self._clients)
        for client in clients:
            client.finish()
        for client in clients:
            client.writer.join(patience_s / max(1, len(clients)))
            _cut(client.connection)
        with contextlib.suppress(OSError):
            Client(self._listener.address, authkey=None).close()  # wakes the thread that accepts
        with contextlib.suppress(OSError):
            self._listener.close()
        with contextlib.suppress(OSError):
            self._folder.pipe.unlink()
        self._private.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # the listener is closed, or a client hung up while it was let in
                if self._closed:
                    return
                continue
            if self._closed:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), name="pipe-client", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """Shake hands, start the writer, then listen for commands until the client goes."""
        try:
            with _deadline(connection, HANDSHAKE_S):
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                since = int(_received(connection)["since"])
        except (*_CONNECTION_ERRORS, KeyError, TypeError):
            connection.close()
            return
        client = _Served(connection, self._folder.journal, since)
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._clients.append(client)
        client.writer.start()
        try:
            self._listen(client)
        finally:
            with self._lock:
                self._clients.remove(client)
            client.finish()
            client.writer.join()
            connection.close()

    def _listen(self, client: _Served) -> None:
        with contextlib.suppress(*_CONNECTION_ERRORS):
            while True:
                data = _received(client.connection)
                command = _command(data)
                if command is not None:
                    self._on_command(command)
                if data.get("answer"):
                    client.put(0, HEARD, b"")


class _Served:
    """A window as the worker sees it: a connection, a bounded queue, and the thread that writes."""

    def __init__(self, connection: Connection, journal_path: Path, since: int) -> None:
        self.connection = connection
        self.writer = threading.Thread(target=self._write, name="pipe-writer", daemon=True)
        self._journal_path = journal_path
        self._last = since
        self._frames: queue.Queue[tuple[int, bytes, bytes] | None] = queue.Queue(QUEUE_FRAMES)
        self._behind = False

    def put(self, number: int, line: bytes, picture: bytes) -> None:
        try:
            self._frames.put_nowait((number, line, picture))
        except queue.Full:
            if not self._behind:
                self._behind = True
                _cut(self.connection)

    def finish(self) -> None:
        """Tell the writer that nothing more comes."""
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait(None)

    def _write(self) -> None:
        """First what the journal has since the client's number, then what the queue brings; duplicates are left out."""
        with contextlib.suppress(*_CONNECTION_ERRORS):
            for number, line in journal.raw_lines(self._journal_path, self._last):
                self.connection.send_bytes(line)
                self._last = number
            while (frame := self._frames.get()) is not None:
                self._send(*frame)

    def _send(self, number: int, line: bytes, picture: bytes) -> None:
        if line == HEARD:
            self.connection.send_bytes(line)
        elif number > self._last:
            self.connection.send_bytes(line)
            self._last = number
        if picture:
            self.connection.send_bytes(PICTURE + number.to_bytes(8) + picture)


@dataclass(frozen=True)
class Picture:
    """A live thumbnail; `number` is that of its sample event. The file in `samples/` is the truth."""

    number: int
    data: bytes


Content = journal.Rows | journal.Record | Picture


class Link:
    """A window's end. Made by `connect`; one thread receives, any thread sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, command: Command, *, answer: bool = False) -> None:
        """Ask the worker for something. With `answer` it says when it has heard: see `wait_until_heard`.

        Raises:
            OSError: if it has gone.
        """
        self._send({"command": command.name, "prompts": list(command.prompts), "answer": answer})

    def wait_until_heard(self) -> None:
        """Read on until the worker has heard a command that was sent with `answer`. Raises OSError, EOFError."""
        while self._connection.recv_bytes() != HEARD:
            pass

    def receive(self, wait_s: float) -> Iterator[Content]:
        """What has come within `wait_s`, possibly nothing; ends as soon as nothing more is waiting.

        Raises:
            OSError, EOFError: if the worker has gone or cut this client off.
        """
        while self._connection.poll(wait_s):
            wait_s = 0.0
            data = self._connection.recv_bytes()
            if data.startswith(PICTURE):
                start = len(PICTURE) + 8
                yield Picture(int.from_bytes(data[len(PICTURE) : start]), data[start:])
                continue
            content = _decoded(data)
            if content is not None:
                yield content

    def close(self) -> None:
        """End the connection; a thread in `receive` gets an error or nothing more. Any thread."""
        _cut(self._connection)
        with contextlib.suppress(OSError):
            self._connection.close()

    def _send(self, data: dict[str, Any]) -> None:
        with self._sending:
            self._connection.send_bytes(json.dumps(data).encode())


def connect(folder: RunFolder, since: int, wait_s: float = HANDSHAKE_S) -> Link:
    """Attach to the worker of a run; events after number `since` will come.

    Raises:
        OSError: if no worker listens, or it does not answer within `wait_s` or with the right key.
    """
    try:
        data = json.loads(folder.pipe.read_text(encoding="utf-8"))
        address, key = str(data["address"]), bytes.fromhex(data["key"])
        connection = Client(address, authkey=None)
        with _deadline(connection, wait_s):
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            link = Link(connection)
            link._send({"since": since})
    except (*_CONNECTION_ERRORS, KeyError, TypeError) as error:
        raise ConnectionError(f"no worker answers in {folder.path}") from error
    return link


def send(folder: RunFolder, command: Command) -> None:
    """Send one command to the worker of a run, and hang up when it has been heard: commands keep their order.

    Raises as `connect`.
    """
    link = connect(folder, since=1 << 62)
    try:
        with _deadline(link._connection, HANDSHAKE_S):
            link.send(command, answer=True)
            link.wait_until_heard()
    except _CONNECTION_ERRORS as error:
        raise ConnectionError(f"no worker answers in {folder.path}") from error
    finally:
        link.close()


def _decoded(data: bytes) -> Content | None:
    """A line of the journal; None for an event of a newer version."""
    try:
        return journal.decode(data)
    except (ValueError, KeyError, TypeError):
        return None


def _received(connection: Connection) -> dict[str, Any]:
    data = json.loads(connection.recv_bytes(MAX_COMMAND_BYTES))
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data


def _command(data: dict[str, Any]) -> Command | None:
    """A command from JSON; None for one that this version does not know."""
    name, prompts = data.get("command"), data.get("prompts", [])
    if name not in COMMANDS or not isinstance(prompts, list) or not all(isinstance(item, dict) for item in prompts):
        return None
    return Command(str(name), tuple(prompts))


@contextlib.contextmanager
def _deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Cut the connection if the block takes longer, so that a read in it fails instead of waiting for ever."""
    timer = threading.Timer(seconds, _cut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Connection) -> None:
    """End a connection from another thread: a send or receive in it fails at once."""
    with contextlib.suppress(OSError, ValueError):
        if os.name == "nt":
            connection.close()  # closing a pipe's handle cancels what waits on it
            return
        with socket.socket(fileno=os.dup(connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


def _write_private(target: Path, data: dict[str, Any]) -> None:
    """Write JSON that only the owner may read, from its first moment on."""
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(json.dumps(data).encode())
