"""Asks a running WebUI (started with `--api`) to look at its folders again. A failure is a note, not an error.

The modules for it are imported when somebody asks: the window knows all targets, and seldom asks.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from queue import Empty, Queue
from threading import Thread
from urllib.parse import SplitResult, unquote, urlsplit

from trainer.messages import Message, say
from trainer.targets.base import Kind

USUAL_ADDRESS = "http://127.0.0.1:7860"
TIMEOUT_S = 5.0
_ROUTES: dict[Kind, str] = {
    "lora": "refresh-loras",
    "checkpoint": "refresh-checkpoints",
    "embedding": "refresh-embeddings",
    "vae": "refresh-vae",
}


def refresh(address: str, kind: Kind, timeout_s: float = TIMEOUT_S) -> Message | None:
    """Ask the WebUI at `address` to read its list of this kind anew.

    Args:
        address: `http://host:port`; user and password (`--api-auth`) as `http://user:password@host:port`.
        timeout_s: how long all of it may take.

    Returns:
        None if it has done so, else why not, to be shown as a note. Never raises. May take `timeout_s`, and no longer,
        however slowly anything answers: not for the window's thread.
    """
    from http.client import HTTPException

    route = _ROUTES.get(kind)
    if route is None:
        return say("The WebUI has no way to read its list of this kind anew; start it again.")
    try:
        place = urlsplit(address if "://" in address else f"http://{address}")
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError
        code = _within(timeout_s, lambda: _post(place, route, timeout_s))
    except ValueError:
        return say("{address} is not an address such as {usual}.", address=bare(address), usual=USUAL_ADDRESS)
    except (OSError, HTTPException):
        return say(
            "No WebUI answers at {address}. Press its own refresh button, or start it with --api.", address=bare(address)
        )
    return None if code < 400 else _refused(code)


def bare(address: str) -> str:
    """An address without user and password: what may be shown and remembered."""
    scheme, separator, rest = address.strip().rpartition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def _within(seconds: float, call: Callable[[], int]) -> int:
    """What `call` returns or raises; it runs in a thread that is left behind with a TimeoutError when it takes too long:
    looking up a name has no limit of its own, and a socket's holds for each piece."""
    answers: Queue[int | Exception] = Queue()

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
    if isinstance(answer, int):
        return answer
    try:
        raise answer
    finally:
        del answer  # else it would hold itself, by way of this frame


def _post(place: SplitResult, route: str, timeout_s: float) -> int:
    """Ask, and return the answer's code."""
    import urllib.error
    import urllib.request

    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    port = f":{place.port}" if place.port else ""
    url = f"{place.scheme}://{host}{port}{place.path.rstrip('/')}/sdapi/v1/{route}"
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"}, method="POST")
    if place.username is not None:
        secret = f"{unquote(place.username)}:{unquote(place.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    # no proxy: the WebUI is on this machine or in the house
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            answer.read(1)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _refused(code: int) -> Message:
    if code in (401, 403):
        return say("The WebUI asks for a user and password: write the address as http://user:password@host:port.")
    if code in (404, 405):
        return say("The WebUI runs without its API, so it can not be told of the new file: start it with --api.")
    return say("The WebUI answered with error {code}; press its own refresh button.", code=code)
