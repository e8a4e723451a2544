"""Telling a running WebUI of a new file: it is asked rightly, and whatever it answers is a note."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from trainer.targets.base import Kind
from trainer.targets.refresh import bare, refresh


class WebUI(BaseHTTPRequestHandler):
    """Answers with `code`, after `delay` seconds, and asks for `secret` if there is one."""

    code: ClassVar[int] = 200
    delay: ClassVar[float] = 0.0
    secret: ClassVar[str] = ""
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).asked.append(self.path)
        time.sleep(self.delay)
        given = self.headers.get("Authorization", "")
        right = not self.secret or given == "Basic " + base64.b64encode(self.secret.encode()).decode()
        self.send_response(self.code if right else 401)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"null")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def webui() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WebUI)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    WebUI.code, WebUI.delay, WebUI.secret = 200, 0.0, ""
    WebUI.asked.clear()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "route"),
    [
        ("lora", "refresh-loras"),
        ("checkpoint", "refresh-checkpoints"),
        ("embedding", "refresh-embeddings"),
        ("vae", "refresh-vae"),
    ],
)
def test_each_kind_has_its_list(webui: str, kind: Kind, route: str) -> None:
    assert refresh(f"http://{webui}/", kind) is None
    assert refresh(webui, kind) is None  # as people type it
    assert WebUI.asked == [f"/sdapi/v1/{route}"] * 2


def test_the_environments_proxy_is_not_asked_for_a_program_on_this_machine(
    webui: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert refresh(webui, "lora") is None


def test_user_and_password(webui: str) -> None:
    WebUI.secret = "me:geheim@1"
    note = refresh(f"http://{webui}", "lora")
    assert note is not None and "user and password" in str(note)
    assert refresh(f"http://me:geheim%401@{webui}", "lora") is None
    assert bare(f"http://me:geheim%401@{webui}/x") == f"http://{webui}/x"


@pytest.mark.parametrize(("code", "said"), [(404, "--api"), (405, "--api"), (500, "error 500"), (403, "user and password")])
def test_a_refusal_is_a_note(webui: str, code: int, said: str) -> None:
    WebUI.code = code
    assert said in str(refresh(webui, "lora"))


def test_a_webui_that_is_busy_holds_nobody_up(webui: str) -> None:
    WebUI.delay = 2.0
    start = time.monotonic()
    assert "No WebUI answers" in str(refresh(webui, "lora", timeout_s=0.2))
    assert time.monotonic() - start < 1.5


def test_what_trickles_holds_nobody_up() -> None:
    """A socket's own limit holds for each piece: one letter at a time would take for ever."""
    ended = threading.Event()

    def answer() -> None:
        with listener.accept()[0] as connection, contextlib.suppress(OSError):
            connection.recv(1000)
            for letter in b"HTTP/1.0 200 OK\r\nX: " + b"x" * 1000:
                connection.sendall(bytes([letter]))
                if ended.wait(0.05):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        start = time.monotonic()
        assert "No WebUI answers" in str(refresh(f"127.0.0.1:{listener.getsockname()[1]}", "lora", timeout_s=0.5))
        assert time.monotonic() - start < 1.5
        ended.set()
        thread.join()


def test_nobody_there_and_nonsense() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "No WebUI answers" in str(refresh(f"http://me:secret@127.0.0.1:{port}", "lora"))
    assert "secret" not in str(refresh(f"http://me:secret@127.0.0.1:{port}", "lora"))
    for nonsense in ("", "ftp://127.0.0.1", "http://", "http://127.0.0.1:notaport", "http://127.0.0.1:99999"):
        assert "is not an address" in str(refresh(nonsense, "lora")), nonsense
    assert "start it again" in str(refresh("http://127.0.0.1:1", "hypernetwork"))


def test_something_else_that_answers() -> None:
    """A program that speaks no HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-x\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert "No WebUI answers" in str(refresh(f"127.0.0.1:{listener.getsockname()[1]}", "lora", timeout_s=1))
    thread.join()
    listener.close()
