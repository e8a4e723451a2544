"""Telling a running program of a new file: it is asked rightly, and whatever it answers is a note."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from trainer.paths import user_folder
from trainer.targets.base import Kind
from trainer.targets.refresh import bare, refresh
from trainer.targets.wishes import MOST, Wish, remember, wish_of


class WebUI(BaseHTTPRequestHandler):
    """Answers `code` and `answers[path]`, after `delay` seconds, and asks for `secret` if there is one."""

    code: ClassVar[int] = 200
    delay: ClassVar[float] = 0.0
    secret: ClassVar[str] = ""
    asked: ClassVar[list[str]] = []
    contents: ClassVar[list[object]] = []
    answers: ClassVar[dict[str, object]] = {}
    slow: ClassVar[str] = ""  # the only path that is delayed, if there is one

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).asked.append(self.path)
        type(self).contents.append(json.loads(content))
        time.sleep(self.delay if self.slow in ("", self.path) else 0)
        given = self.headers.get("Authorization", "")
        right = not self.secret or given == "Basic " + base64.b64encode(self.secret.encode()).decode()
        self.send_response(self.code if right else 401)
        answer = json.dumps(self.answers.get(self.path)).encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def webui() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WebUI)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    WebUI.code, WebUI.delay, WebUI.secret, WebUI.slow = 200, 0.0, "", ""
    for kept in (WebUI.asked, WebUI.contents, WebUI.answers):
        kept.clear()
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
    assert refresh("webui", f"http://{webui}/", kind) is None
    assert refresh("webui", webui, kind) is None  # as people type it
    assert WebUI.asked == [f"/sdapi/v1/{route}"] * 2


def test_sdnext_is_asked_where_it_has_a_call(webui: str) -> None:
    assert refresh("sdnext", webui, "lora") is None and refresh("sdnext", webui, "checkpoint") is None
    assert WebUI.asked == ["/sdapi/v1/refresh-loras", "/sdapi/v1/refresh-checkpoints"]
    assert "no way to read its list" in str(refresh("sdnext", webui, "embedding"))
    WebUI.code = 404
    assert "SD.Next answered with error 404" in str(refresh("sdnext", webui, "lora"))
    WebUI.code = 401
    assert "user and password" in str(refresh("sdnext", webui, "lora"))


SESSION, REFRESH = "/API/GetNewSession", "/API/TriggerRefresh"


def test_swarmui_is_asked_with_a_session(webui: str) -> None:
    WebUI.answers.update({SESSION: {"session_id": "AB12"}, REFRESH: {"list": [], "models": {}}})
    assert refresh("swarm", webui, "lora") is None
    assert WebUI.asked == [SESSION, REFRESH] and WebUI.contents == [{}, {"session_id": "AB12", "strong": True}]


def test_swarmui_may_look_through_its_models_for_long(webui: str) -> None:
    WebUI.answers[SESSION] = {"session_id": "AB12"}
    WebUI.slow, WebUI.delay = REFRESH, 1.0
    assert refresh("swarm", webui, "lora", timeout_s=0.6) is None and WebUI.asked == [SESSION, REFRESH]


@pytest.mark.parametrize(
    ("code", "answer", "said"),
    [
        (200, {"error": "Invalid or unauthorized."}, "wants a login"),
        (200, ["no table"], "wants a login"),
        (401, None, "wants a login"),
        (500, None, "SwarmUI answered with error 500"),
    ],
)
def test_a_refusal_of_swarmui_is_a_note(webui: str, code: int, answer: object, said: str) -> None:
    WebUI.code, WebUI.answers[SESSION] = code, answer
    assert said in str(refresh("swarm", webui, "lora")) and WebUI.asked == [SESSION]


def test_a_program_answers_where_it_usually_does(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def nobody(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        called.append(f"{address[0]}:{address[1]}")
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", nobody)
    notes = [str(refresh(name, "", "lora")) for name in ("webui", "sdnext", "swarm")]
    assert called == ["127.0.0.1:7860", "127.0.0.1:7860", "127.0.0.1:7801"]
    assert [note.startswith(f"No {name} answers") for note, name in zip(notes, ("WebUI", "SD.Next", "SwarmUI"), strict=True)]
    assert ["--api" in note for note in notes] == [True, False, False]


def test_what_is_wanted_belongs_to_the_program(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert wish_of(one) == Wish()
    remember(one, Wish(True, "http://me:geheim@127.0.0.1:7861"))
    remember(other, Wish(False, ""))
    assert wish_of(one) == Wish(True, "http://127.0.0.1:7861") and wish_of(other) == Wish()
    file = user_folder() / "programs.json"
    assert "geheim" not in file.read_text(encoding="utf-8")
    for number in range(MOST):
        remember(tmp_path / str(number), Wish(True))
    assert wish_of(one) == Wish() and wish_of(tmp_path / "0") == Wish(True)
    for damaged in ("", "[]", "{", json.dumps({str(one): 3}), json.dumps({str(one): {"refresh": "yes", "address": 3}})):
        file.write_text(damaged, encoding="utf-8")
        assert wish_of(one) == Wish()
    remember(one, Wish(True))
    assert wish_of(one) == Wish(True)


def test_the_environments_proxy_is_not_asked_for_a_program_on_this_machine(
    webui: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert refresh("webui", webui, "lora") is None


def test_user_and_password(webui: str) -> None:
    WebUI.secret = "me:geheim@1"
    note = refresh("webui", f"http://{webui}", "lora")
    assert note is not None and "user and password" in str(note)
    assert refresh("webui", f"http://me:geheim%401@{webui}", "lora") is None
    assert bare(f"http://me:geheim%401@{webui}/x") == f"http://{webui}/x"


@pytest.mark.parametrize(("code", "said"), [(404, "--api"), (405, "--api"), (500, "error 500"), (403, "user and password")])
def test_a_refusal_is_a_note(webui: str, code: int, said: str) -> None:
    WebUI.code = code
    assert said in str(refresh("webui", webui, "lora"))


def test_a_webui_that_is_busy_holds_nobody_up(webui: str) -> None:
    WebUI.delay = 2.0
    start = time.monotonic()
    assert "No WebUI answers" in str(refresh("webui", webui, "lora", timeout_s=0.2))
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
        assert "No WebUI answers" in str(refresh("webui", f"127.0.0.1:{listener.getsockname()[1]}", "lora", timeout_s=0.5))
        assert time.monotonic() - start < 1.5
        ended.set()
        thread.join()


def test_nobody_there_and_nonsense() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "No WebUI answers" in str(refresh("webui", f"http://me:secret@127.0.0.1:{port}", "lora"))
    assert "secret" not in str(refresh("webui", f"http://me:secret@127.0.0.1:{port}", "lora"))
    for nonsense in ("ftp://127.0.0.1", "http://", "http://127.0.0.1:notaport", "http://127.0.0.1:99999"):
        assert "is not an address" in str(refresh("webui", nonsense, "lora")), nonsense
    assert "start it again" in str(refresh("webui", "http://127.0.0.1:1", "hypernetwork"))


def test_something_else_that_answers() -> None:
    """A program that speaks no HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-x\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert "No WebUI answers" in str(refresh("webui", f"127.0.0.1:{listener.getsockname()[1]}", "lora", timeout_s=1))
    thread.join()
    listener.close()
