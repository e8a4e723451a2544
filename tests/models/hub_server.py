"""A small server that speaks as much of the hub's API as a download needs, and breaks off where a test wants it to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 1000  # larger files are stored as the hub stores weights: named by SHA-256, behind a redirect


@dataclass
class Hub:
    """What the server has and how it behaves; `asked` are the requests it got (method, path, range, has a token)."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commit: str = "c" * 40
    revisions: tuple[str, ...] = ("main", "v2")
    gated: bool = False
    gated_files: bool = False  # as the hub does it: everybody may see the list
    token: str = ""  # wanted for everything
    error: int = 0  # answered to everything
    page: str = ""  # an HTML page answered to everything
    cut_after: int = 0  # weights: the connection ends after so many bytes …
    cuts: int = 0  # … so many times
    busy: int = 0  # weights: so many answers 503 first
    ranges: bool = True
    sizes: bool = True  # in the list of files
    damage: int = 0  # so many times weights arrive with a wrong byte
    extra_names: tuple[str, ...] = ()  # in the list, and nowhere else
    asked: list[tuple[str, str, str, bool]] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, part: str) -> list[str]:
        """The ranges asked for of the files whose place has `part` in its path ("" for all of it)."""
        return [given for method, path, given, _ in self.asked if method == "GET" and part in path]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Run the server for a block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.handle_error = lambda *about: None  # type: ignore[method-assign]  # a client that leaves in the middle
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        has_token = "Authorization" in self.headers
        hub.asked.append((self.command, path, self.headers.get("Range", ""), has_token))
        if path.startswith("/cdn/"):
            return self._weights(path.removeprefix("/cdn/"))
        if hub.page:
            return self._send(200, hub.page.encode(), {"Content-Type": "text/html"})
        if hub.error:
            return self._send(hub.error, b"{}", {})
        if hub.gated:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        given = self.headers.get("Authorization", "")
        if hub.token and given != f"Bearer {hub.token}":
            return self._send(401, b"{}", {} if given else {"X-Error-Code": "RepoNotFound"})
        if path == "/api/whoami-v2":
            access = {"type": "access_token", "accessToken": {"displayName": "reading", "role": "read"}}
            return self._json({"type": "user", "name": "someone", "auth": access})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(match[1], match[2] or "main")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            return self._json([self._entry(name, data) for name, data in hub.repos[match[1]].items()])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], with_body)
        self._send(404, b"{}", {})

    def _info(self, repo: str, revision: str) -> None:
        hub = self.hub
        if repo not in hub.repos:
            return self._send(401, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if revision not in (*hub.revisions, hub.commit):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [self._sibling(name, data) for name, data in hub.repos[repo].items()]
        siblings += [{"rfilename": name, "size": 1, "blobId": "b" * 40} for name in hub.extra_names]
        self._json({"id": repo, "modelId": repo, "sha": hub.commit, "siblings": siblings, "tags": [], "private": False})

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        if not self.hub.sizes:
            return {"rfilename": name}
        lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 135} if len(data) > LFS_BYTES else None
        return {"rfilename": name, "size": len(data), "blobId": git_sha(data), **({"lfs": lfs} if lfs else {})}

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        lfs = {"oid": sha256(data), "size": len(data), "pointerSize": 135} if len(data) > LFS_BYTES else None
        return {"type": "file", "path": name, "size": len(data), "oid": git_sha(data), **({"lfs": lfs} if lfs else {})}

    def _resolve(self, repo: str, revision: str, name: str, with_body: bool) -> None:
        hub = self.hub
        data = hub.repos.get(repo, {}).get(name)
        if hub.gated_files:
            return self._send(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Please log in."})
        if data is None or revision not in (*hub.revisions, hub.commit):
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": hub.commit}
        if len(data) <= LFS_BYTES:
            return self._send(200, data if with_body else b"", {**headers, "ETag": f'"{git_sha(data)}"'}, len(data))
        headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "X-Xet-Hash": "f" * 64}
        # another host, as the hub's own storage is
        self._send(302, b"", {**headers, "Location": f"http://localhost:{hub.port}/cdn/{sha256(data)}"})

    def _weights(self, digest: str) -> None:
        """A large file, from a byte on."""
        hub = self.hub
        data = next(data for files in hub.repos.values() for data in files.values() if sha256(data) == digest)
        if hub.busy:
            hub.busy -= 1
            return self._send(503, b"", {})
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match and hub.ranges else 0
        if start >= len(data):
            return self._send(416, b"", {})
        body = data[start:]
        if hub.damage:
            hub.damage -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.command == "HEAD":
            body, length = b"", len(body)
        else:
            length = len(body)
        if hub.cuts and hub.cut_after < length:
            hub.cuts -= 1
            self._send(206 if start else 200, body[: hub.cut_after], {}, length)
            self.close_connection = True
            return None
        self._send(206 if match and hub.ranges else 200, body, {}, length)

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None: ...
