"""Asks a running program to read its list of models anew. A failure is a note, not an error.

The modules for it are imported when somebody asks: the window knows all targets, and seldom asks.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from trainer.messages import Message, say
from trainer.targets.base import ApiName, Kind

TIMEOUT_S = 5.0
_LISTS: Mapping[Kind, str] = {
    "lora": "refresh-loras",
    "checkpoint": "refresh-checkpoints",
    "embedding": "refresh-embeddings",
    "vae": "refresh-vae",
}
_SESSION, _REFRESH = "GetNewSession", "TriggerRefresh"  # SwarmUI's
MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class Api:
    """How a program is asked: its name for people, where it answers unless it was told otherwise, and what it can read anew.

    Attributes:
        ask: called as `ask(place, kind, timeout_s)`; why it did not work, or None. Raises OSError, HTTPException and
            ValueError.
        switch: what it must be started with to be asked at all.
    """

    name: str
    address: str
    kinds: frozenset[Kind]
    ask: Callable[[SplitResult, Kind, float], Message | None]
    switch: str = ""


def refresh(name: ApiName, address: str, kind: Kind, timeout_s: float = TIMEOUT_S) -> Message | None:
    """Ask the program at `address` to read its list of this kind anew.

    Args:
        name: a `Target.api`.
        address: `http://host:port`, "" for the program's usual one; user and password (a WebUI's `--api-auth`) as
            `http://user:password@host:port`.
        timeout_s: how long all of it may take.

    Returns:
        None if it has done so, else why not, to be shown as a note. Never raises. May take `timeout_s`, and no longer,
        however slowly anything answers: not for the window's thread.
    """
    from http.client import HTTPException

    api = APIS[name]
    address = address.strip() or api.address
    if kind not in api.kinds:
        return say("{program} has no way to read its list of this kind anew; start it again.", program=api.name)
    try:
        place = urlsplit(address if "://" in address else f"http://{address}")
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError
        return _within(timeout_s, lambda: api.ask(place, kind, timeout_s))
    except ValueError:
        return say("{address} is not an address such as {usual}.", address=bare(address), usual=api.address)
    except (OSError, HTTPException):
        shown = bare(address)
        if api.switch:
            return say(
                "No {program} answers at {address}. Press its own refresh button, or start it with {switch}.",
                program=api.name, address=shown, switch=api.switch,
            )  # fmt: skip
        return say("No {program} answers at {address}. Press its own refresh button.", program=api.name, address=shown)


def bare(address: str) -> str:
    """An address without user and password: what may be shown and remembered."""
    scheme, separator, rest = address.strip().rpartition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def _within(seconds: float, call: Callable[[], Message | None]) -> Message | None:
    """What `call` returns or raises; it runs in a thread that is left behind with a TimeoutError when it takes too long:
    looking up a name has no limit of its own, and a socket's holds for each piece."""
    answers: Queue[Message | Exception | None] = Queue()

    def work() -> None:
        try:
            answers.put(call())
        except Exception as error:  # noqa: BLE001  (raised again where it was called from)
            answers.put(error)

    Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if not isinstance(answer, Exception):
        return answer
    try:
        raise answer
    finally:
        del answer  # else it would hold itself, by way of this frame


def _ask_webui(place: SplitResult, kind: Kind, timeout_s: float) -> Message | None:
    code, _ = _post(place, f"sdapi/v1/{_LISTS[kind]}", {}, timeout_s)
    if code in (401, 403):
        return say("The WebUI asks for a user and password: write the address as http://user:password@host:port.")
    if code in (404, 405):
        return say("The WebUI runs without its API, so it can not be told of the new file: start it with --api.")
    return _unless_good("WebUI", code)


def _ask_sdnext(place: SplitResult, kind: Kind, timeout_s: float) -> Message | None:
    code, _ = _post(place, f"sdapi/v1/{_LISTS[kind]}", {}, timeout_s)
    if code in (401, 403):
        return say("The WebUI asks for a user and password: write the address as http://user:password@host:port.")
    return _unless_good("SD.Next", code)


def _ask_swarm(place: SplitResult, kind: Kind, timeout_s: float) -> Message | None:
    """One call gives a session, another reads all lists anew; who is not logged in gets no session."""
    code, answer = _post(place, f"API/{_SESSION}", {}, timeout_s / 2)
    session = answer.get("session_id")
    if code in (401, 403) or (code < 400 and not session):
        return say("SwarmUI wants a login; press its own refresh button.")
    if code < 400:
        try:
            code, answer = _post(place, f"API/{_REFRESH}", {"session_id": session, "strong": True}, timeout_s / 2)
        except TimeoutError:
            return None  # it looks through many models, and answers when it has seen them all
    return _unless_good("SwarmUI", code)


def _unless_good(program: str, code: int) -> Message | None:
    if code < 400:
        return None
    return say("{program} answered with error {code}; press its own refresh button.", program=program, code=code)


def _post(place: SplitResult, path: str, content: Mapping[str, Any], timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Ask, and return the answer's code and table (empty where it is none, or longer than one that matters here)."""
    import json
    import urllib.error
    import urllib.request

    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    port = f":{place.port}" if place.port else ""
    url = f"{place.scheme}://{host}{port}{place.path.rstrip('/')}/{path}"
    data = json.dumps(content).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method="POST")
    if place.username is not None:
        secret = f"{unquote(place.username)}:{unquote(place.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    # no proxy: the program is on this machine or in the house
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return int(answer.status), _table(answer.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}


def _table(text: bytes) -> dict[str, Any]:
    import json

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


_ALL: frozenset[Kind] = frozenset(_LISTS)
APIS: Mapping[ApiName, Api] = {
    "webui": Api("WebUI", "http://127.0.0.1:7860", _ALL, _ask_webui, "--api"),
    "sdnext": Api("SD.Next", "http://127.0.0.1:7860", _ALL - {"embedding"}, _ask_sdnext),
    "swarm": Api("SwarmUI", "http://127.0.0.1:7801", _ALL, _ask_swarm),
}
