"""Fetches models from the Hugging Face hub into its cache: only the files that are needed, and on from where it broke off.

The hub's own library speaks to it (addresses, tokens, proxies, errors) and other programs find what was fetched; the
transfer is ours, because the library starts a broken file from its beginning. Plain HTTP is all it needs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainer.errors import AthanorError, BadInput
from trainer.files import free_bytes, replace, write_text
from trainer.messages import say
from trainer.models.folders import recognise_folder
from trainer.models.header import FAMILY_TITLES, TRAINABLE
from trainer.models.hub import MAIN, HubId, cache_folders, look_up, remember_size
from trainer.models.hub_errors import as_error, is_transient, network_errors
from trainer.models.hub_files import Needed, Unusable, is_model_file, needed_files

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

# The library would ask the hub first which other programs may have started it, and tell it of them.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

Progress = Callable[[int, int], None]
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # between attempts that brought nothing; after the last one it is given up
TIMEOUT_S = 20.0  # without a byte
SPARE_BYTES = 64 << 20  # left on the disk
_LOOK_S = 0.1
_WRITE_BYTES = 1 << 20


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub: its name in the repository, its size, and its hash, which is its name in the cache."""

    name: str
    num_bytes: int
    etag: str
    is_sha256: bool  # else git's SHA-1

    def hasher(self) -> _Hash:
        if self.is_sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.num_bytes, usedforsecurity=False)


@dataclass(frozen=True)
class Plan:
    """What a download will bring, and what of it is here already."""

    hub_id: HubId
    commit: str
    files: tuple[RemoteFile, ...]
    model: str
    cache: Path

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    @property
    def num_here(self) -> int:
        """Bytes that need not come any more, those of broken-off files among them."""
        return sum(min(_here(self, file), file.num_bytes) for file in self.files)

    @property
    def path(self) -> Path:
        """Where the model will be."""
        return self.snapshot / self.model if self.model else self.snapshot

    @property
    def repo(self) -> Path:
        return self.cache / self.hub_id.folder_name

    @property
    def snapshot(self) -> Path:
        return self.repo / "snapshots" / self.commit

    def blob(self, file: RemoteFile) -> Path:
        return self.repo / "blobs" / file.etag

    def part(self, file: RemoteFile) -> Path:
        """The beginning of a file that broke off."""
        return self.repo / "blobs" / f"{file.etag}.part"


def fetch(hub_id: HubId, on_progress: Progress, full: bool = False) -> Path:
    """Where a model lies on this disk; what is missing is fetched first, and a cached one is used with no call.

    Args:
        hub_id: from `hub.parse`.
        on_progress: called a few times a second with bytes done and in all; what it raises stops the download, and the
            next one goes on from there.
        full: take full-precision weights where there are both (twice the size).

    Raises:
        AthanorError: with a sentence for every way in which it can fail.
    """
    found = look_up(hub_id, full)
    if found.path is not None:
        return found.path
    plan = make_plan(hub_id, full)
    download(plan, on_progress)
    return plan.path


def make_plan(hub_id: HubId, full: bool = False) -> Plan:
    """Ask the hub what a model consists of. Raises AthanorError."""
    from huggingface_hub import HfApi

    with _sentences(hub_id):
        api = HfApi(endpoint=endpoint(), token=token() or False, library_name="athanor")
        try:
            info = api.model_info(hub_id.repo, revision=hub_id.revision or None, files_metadata=True, timeout=TIMEOUT_S)
            siblings = {sibling.rfilename: sibling for sibling in info.siblings or () if _is_safe(sibling.rfilename)}
            commit = _hex(info.sha)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(str(error)) from error
        needed = _needed(hub_id, list(siblings), full)
        files = tuple(_remote(hub_id, commit, siblings[name]) for name in dict.fromkeys(needed.files))
    plan = Plan(hub_id, commit, files, needed.model, cache_folders()[0])
    remember_size(hub_id, plan.num_bytes)
    return plan


def _is_safe(name: str) -> bool:
    """Whether a name that a server gives stays in its folder on every system."""
    return not re.search(r"[\\:\0]|(?:^|/)\.{0,2}(?:/|$)", name)


def _hex(text: str | None) -> str:
    """A hash that becomes a file's name. Raises ValueError for anything else."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text):
        raise ValueError(f"{text!r:.80} is no hash")
    return text


def _needed(hub_id: HubId, names: list[str], full: bool) -> Needed:
    try:
        return needed_files(names, hub_id.file, full)
    except Unusable as error:
        what = say("{id} cannot be used: {reason}", id=str(hub_id), reason=error.why)
        raise BadInput(what, error.todo) from error


def _remote(hub_id: HubId, commit: str, sibling: RepoSibling) -> RemoteFile:
    """A file's size and hash; asked for singly where a mirror leaves them out of the list."""
    lfs = sibling.lfs
    if lfs is not None and lfs.sha256 and lfs.size is not None:
        return RemoteFile(sibling.rfilename, lfs.size, _hex(lfs.sha256), True)
    if sibling.blob_id and sibling.size is not None and lfs is None:
        return RemoteFile(sibling.rfilename, sibling.size, _hex(sibling.blob_id), False)
    from huggingface_hub import get_hf_file_metadata

    facts = get_hf_file_metadata(_address(hub_id, commit, sibling.rfilename), token=token() or False, timeout=TIMEOUT_S)
    if facts.size is None:
        raise ValueError(f"no size of {sibling.rfilename}")
    return RemoteFile(sibling.rfilename, facts.size, _hex(facts.etag), len(facts.etag or "") == 64)


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT's (a mirror), else its own. No slash at the end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT", "").strip() or constants.ENDPOINT).rstrip("/")


def token() -> str | None:
    """The user's token: HF_TOKEN's, else the one that `hf auth login` has saved; it is never stored or shown here.

    Raises BadInput for what can be no token: the errors of the library underneath would show it.
    """
    from huggingface_hub import constants, get_token

    found: str | None = (os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    if not found and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        try:
            found = get_token()
        except (OSError, ValueError):  # a file that may not be read, or is no text
            found = None
    if found and not re.fullmatch(r"[!-~]+", found):
        raise BadInput(say("The token for the hub holds characters that no token has."), say("Copy it anew."))
    return found or None


def _address(hub_id: HubId, commit: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(hub_id.repo, name, revision=commit, endpoint=endpoint())


def download(plan: Plan, on_progress: Progress) -> None:
    """Bring the files of a plan into the cache. Raises as `fetch`; whatever has come stays."""

    def tell(done: int, total: int) -> None:
        try:
            on_progress(done, total)
        except (OSError, ValueError) as error:  # the caller's, such as a closed pipe: no trouble with disk or network
            raise _Left(error) from error

    try:
        with _sentences(plan.hub_id):
            _bring_all(plan, tell)
    except _Left as left:
        raise left.error from None
    on_progress(plan.num_bytes, plan.num_bytes)


class _Left(Exception):
    """What the caller's progress raised, on its way back to the caller."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _bring_all(plan: Plan, on_progress: Progress) -> None:
    """The configs first, since they tell whether the weights are wanted."""
    _check_space(plan)
    configs = [file for file in plan.files if not is_model_file(file.name)]
    for file in configs:
        _bring(plan, file, on_progress)
    _refuse_strangers(plan)
    for file in sorted(set(plan.files) - set(configs), key=lambda file: file.num_bytes):
        _bring(plan, file, on_progress)
    revision = plan.hub_id.revision or MAIN
    if revision != plan.commit:
        write_text(plan.repo / "refs" / revision, plan.commit)


def _refuse_strangers(plan: Plan) -> None:
    """Look at the configs before gigabytes come. Raises BadInput for a model that nothing can be trained on."""
    index = plan.snapshot / "model_index.json"
    found = recognise_folder(plan.snapshot) if not plan.model and index.is_file() else None
    if found is not None and found.family not in TRAINABLE:
        name = FAMILY_TITLES.get(found.family or "", found.name)
        raise BadInput(
            say("{id} is a model of another kind: {name}.", id=str(plan.hub_id), name=name),
            say("Athanor trains Stable Diffusion 1.x, 2.x and SDXL. The weights were not downloaded."),
        )


def _bring(plan: Plan, file: RemoteFile, on_progress: Progress) -> None:
    """One file, unless it is here."""
    with _alone(plan, file, lambda: on_progress(plan.num_here, plan.num_bytes)):
        if not plan.blob(file).exists() and not (plan.snapshot / file.name).exists():
            others = plan.num_here - min(_here(plan, file), file.num_bytes)
            _transfer(plan, file, lambda here: on_progress(others + here, plan.num_bytes))
        _link(plan, file)


def _here(plan: Plan, file: RemoteFile) -> int:
    """How many bytes of a file are on the disk."""
    for path in (plan.snapshot / file.name, plan.blob(file)):
        if path.exists():
            return file.num_bytes
    part = plan.part(file)
    return part.stat().st_size if part.exists() else 0


def _check_space(plan: Plan) -> None:
    missing = plan.num_bytes - plan.num_here
    free = free_bytes(plan.cache)
    if missing and free < missing + SPARE_BYTES:
        raise AthanorError(
            say(
                "{id} needs {needed} GB more on the disk of {folder}, and {free} GB are free.",
                id=str(plan.hub_id), needed=round(missing / 1e9, 1), free=round(free / 1e9, 1), folder=str(plan.cache),
            ),
            say("Free some space, or have the hub's cache on another disk (HF_HOME)."),
        )  # fmt: skip


@contextmanager
def _alone(plan: Plan, file: RemoteFile, waiting: Callable[[], None]) -> Iterator[None]:
    """Nobody else fetches this file meanwhile: the lock is the one that the hub's library takes."""
    from filelock import FileLock, Timeout

    path = plan.cache / ".locks" / plan.hub_id.folder_name / f"{file.etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_LOOK_S)
            break
        except Timeout:
            waiting()
        except NotImplementedError:  # a disk without locks
            break
    try:
        yield
    finally:
        lock.release()


def _transfer(plan: Plan, file: RemoteFile, on_progress: Callable[[int], None]) -> None:
    """Fetch one file, through as many broken connections as bring something; check its hash; give it its place."""
    part = plan.part(file)
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(plan, file, part, on_progress) == file.etag:
                break
            part.unlink()  # what broke off belonged to something else, or was damaged on its way
            cause: Exception | None = None
        except network_errors() as error:
            if not is_transient(error):
                raise
            cause = error
        grew = part.exists() and part.stat().st_size > before
        failures = 0 if grew else failures + 1
        if failures > len(WAITS_S):
            raise cause or ValueError(f"{file.name} arrives damaged")
        _wait(WAITS_S[max(0, failures - 1)], lambda: on_progress(part.stat().st_size if part.exists() else 0))
    replace(part, plan.blob(file))


def _wait(seconds: float, look: Callable[[], None]) -> None:
    """Wait before the next attempt; the user may leave meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        look()
        time.sleep(min(_LOOK_S, seconds))


def _receive(plan: Plan, file: RemoteFile, part: Path, on_progress: Callable[[int], None]) -> str:
    """Fetch the rest of a file once; its hash if it is whole. Raises network errors with what came on the disk."""
    hasher = file.hasher()
    with part.open("ab", buffering=0) as handle:
        here = handle.tell()
        if here > file.num_bytes:
            handle.truncate(0)
            here = 0
        _feed(hasher, part)
        if here < file.num_bytes:
            with _response(_address(plan.hub_id, plan.commit, file.name), here) as response:
                if here and response.status_code != 206:  # it does not do ranges: from the beginning
                    handle.truncate(0)
                    here, hasher = 0, file.hasher()
                for piece in _pieces(response):
                    handle.write(piece)
                    hasher.update(piece)
                    here += len(piece)
                    on_progress(min(here, file.num_bytes))
                    if here > file.num_bytes:
                        break  # more than was promised: its hash will not be right
                if here < file.num_bytes:
                    raise ConnectionError(errno.ECONNRESET, "the connection ended early")
    return hasher.hexdigest()


def _pieces(response: Any) -> Iterator[bytes]:
    """What arrives, gathered for a moment, so that a slow line shows progress and a quick one isn't slowed by it."""
    gathered, since = bytearray(), time.monotonic()
    broken: Exception | None = None
    try:
        for piece in response.iter_raw():
            gathered += piece
            if len(gathered) >= _WRITE_BYTES or time.monotonic() - since > _LOOK_S:
                whole, gathered, since = bytes(gathered), bytearray(), time.monotonic()
                yield whole
    except network_errors() as error:
        broken = error
    if gathered:  # also what came before the line broke
        yield bytes(gathered)
    if broken is not None:
        raise broken


def _feed(hasher: _Hash, part: Path) -> None:
    with part.open("rb") as handle:
        while piece := handle.read(4 << 20):
            hasher.update(piece)


def _response(url: str, start: int) -> Any:
    """A stream of a file from byte `start`, with the hub's errors raised; redirects to other hosts carry no token."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers(token=token() or False, library_name="athanor")
    headers["Accept-Encoding"] = "identity"
    if start:
        headers["Range"] = f"bytes={start}-"

    @contextmanager
    def opened() -> Iterator[Any]:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
            if response.status_code == 416:  # nothing behind that byte: the file became shorter
                raise ConnectionError(errno.ECONNRESET, "the range is not there")
            hf_raise_for_status(response)
            yield response

    return opened()


def _link(plan: Plan, file: RemoteFile) -> None:
    """Give a file its name in the version's folder; where links are not allowed (Windows), by moving it there."""
    blob, named = plan.blob(file), plan.snapshot / file.name
    if named.exists():
        return
    named.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        named.unlink()  # a link that leads nowhere
    try:
        named.symlink_to(os.path.relpath(blob, named.parent))
    except OSError:
        replace(blob, named)


@contextmanager
def _sentences(hub_id: HubId) -> Iterator[None]:
    """Every failure as a sentence."""
    try:
        yield
    except AthanorError:
        raise
    except (OSError, ValueError) as error:
        raise as_error(error, hub_id, endpoint(), token() is not None) from error
    except network_errors() as error:
        raise as_error(error, hub_id, endpoint(), token() is not None) from error
