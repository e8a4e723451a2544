"""Models named by their id on the Hugging Face hub: what an id is, and what of it lies on this disk. Never a network call.

An id stands where a path is expected: `owner/name`, `owner/name@revision`, `owner/name/file.safetensors`, or the address
of its page. What any program has put into the hub's cache on this machine is found. Torch-free and quick to import;
`trainer.models.hub_download` fetches what is missing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trainer.files import write_json
from trainer.models.hub_files import Unusable, is_model_file, is_whole, needed_files
from trainer.paths import user_folder

_NAME = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[\w-])?", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]{0,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAGES = ("blob", "resolve", "tree", "raw")
MAIN = "main"


@dataclass(frozen=True)
class HubId:
    """A model on the hub: `repo` is "owner/name", `file` one file in it ("" for the model as a whole)."""

    repo: str
    file: str = ""
    revision: str = ""  # "" is the newest

    def __str__(self) -> str:
        path = f"{self.repo}/{self.file}" if self.file else self.repo
        return f"{path}@{self.revision}" if self.revision else path

    @property
    def folder_name(self) -> str:
        """Its folder in a cache."""
        return "models--" + self.repo.replace("/", "--")


@dataclass(frozen=True)
class Found:
    """What this disk knows of an id.

    Attributes:
        hub_id: the id.
        path: the model's file or folder in a cache; None while something of it is missing.
        commit: of the version that lies there, "" if none does.
        num_bytes: how much there is to download, as the hub said when it was last asked; None if it never was.
    """

    hub_id: HubId
    path: Path | None
    commit: str = ""
    num_bytes: int | None = None


def parse(text: str | Path, folder: Path | None = None) -> HubId | None:
    """The id that a text is; None if it is a path (every text that names something on this disk is).

    Args:
        text: as the user gave it.
        folder: what a relative path counts from; None for the current folder.
    """
    text = (text.as_posix() if isinstance(text, Path) else text).strip()
    if match := re.match(r"(https?):/+", text):  # a Path has one slash left
        return _from_address(f"{match[1]}://{text[match.end() :]}")
    if not text or "\\" in text or "\0" in text or text[0] in "/.~" or re.match(r"[A-Za-z]:", text):
        return None
    path, _, revision = text.partition("@")
    parts = path.split("/")
    if len(parts) < 2 or text.endswith("@"):
        return None
    if _is_there(folder, text) or (is_model_file(path) and (len(parts) == 2 or _is_there(folder, parts[0]))):
        return None
    return _made(parts[0], parts[1], "/".join(parts[2:]), revision)


def _is_there(folder: Path | None, text: str) -> bool:
    try:
        return ((folder or Path()) / text).exists()
    except (OSError, ValueError):
        return False


def _from_address(text: str) -> HubId | None:
    """The id in the address of a model's page, of one of its versions, or of a file (of any host: mirrors have theirs)."""
    parts = [unquote(part) for part in urlsplit(text).path.split("/") if part]
    if len(parts) == 2 and _is_hub(text):
        return _made(parts[0], parts[1])
    if len(parts) < 4 or parts[2] not in _PAGES:
        return None
    revision = "" if parts[3] == MAIN else parts[3]
    return _made(parts[0], parts[1], "/".join(parts[4:]), revision)


def _is_hub(address: str) -> bool:
    """Whether an address is of the hub itself or of the mirror in use: of others the path says nothing."""
    host = (urlsplit(address).hostname or "").removeprefix("www.")
    mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname
    return host == mirror or host.split(".")[0] in ("huggingface", "hf")


def _made(owner: str, name: str, file: str = "", revision: str = "") -> HubId | None:
    whole = all(_NAME.fullmatch(part) and "--" not in part and ".." not in part for part in (owner, name))
    inner = PurePosixPath(file).parts
    if not whole or name.endswith(".git") or ".." in inner or (file and not is_model_file(file)):
        return None
    if revision and not _REVISION.fullmatch(revision):
        return None
    return HubId(f"{owner}/{name}", "/".join(inner), revision)


def cache_folders() -> tuple[Path, ...]:
    """The hub's caches on this machine; downloads go to the first.

    The user's own settings for the hub (HF_HUB_CACHE, HF_HOME) come first, then Athanor's folder if it was moved
    (ATHANOR_HOME), else the folder that all programs share.
    """
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface/hub"
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return (_expanded(given),)
    if os.environ.get("HF_HOME"):
        return (_expanded(os.environ["HF_HOME"]) / "hub",)
    if os.environ.get("ATHANOR_HOME"):
        return (user_folder() / "hub", shared)
    return (shared,)


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def look_up(hub_id: HubId, full: bool = False) -> Found:
    """What of a model lies on this disk. Milliseconds; no call to anyone. `full`: a half-precision version won't do."""
    for cache in cache_folders():
        with suppress(OSError, ValueError):
            repo = cache / hub_id.folder_name
            commit = _commit_of(repo, hub_id.revision or MAIN)
            path = _model_in(repo / "snapshots" / commit, hub_id, full) if commit else None
            if path is not None:
                return Found(hub_id, path, commit)
    return Found(hub_id, None, num_bytes=_remembered_size(hub_id))


def _commit_of(repo: Path, revision: str) -> str:
    """The commit that a revision was when it was last asked for; "" if it never was. Raises OSError."""
    if _COMMIT.fullmatch(revision):
        return revision
    ref = repo / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""


def _model_in(snapshot: Path, hub_id: HubId, full: bool) -> Path | None:
    """The model's file or folder in a version's folder, None unless it is whole. Raises OSError."""
    if hub_id.file:
        return snapshot / hub_id.file if (snapshot / hub_id.file).is_file() else None
    names = [path.relative_to(snapshot).as_posix() for path in _files(snapshot)]
    index = snapshot / "model_index.json"
    listed = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else None
    try:
        needed = needed_files(names, full=full)
    except Unusable:
        return None
    half = any(".fp16" in name for name in needed.files)
    if not is_whole(names, listed) or (full and half):
        return None
    return snapshot / needed.model if needed.model else snapshot


def _files(folder: Path) -> Iterable[Path]:
    """The files of a version, two levels deep as models have them; a link that leads nowhere is none."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            yield from (inner for inner in sorted(path.iterdir()) if inner.is_file())
        elif path.is_file():
            yield path


def local(text: str) -> Path:
    """The path that a setting means on this disk: of an id in a cache the model there, else what it says."""
    hub_id = parse(text)
    found = look_up(hub_id).path if hub_id is not None else None
    return found or Path(text)


def shown_name(path: Path) -> str:
    """What a model is called in metadata and lists: of one in a cache its id, else the name of its file or folder."""
    for above in (path, *path.parents):
        if above.name == "snapshots" and above.parent.name.startswith("models--"):
            repo = above.parent.name.removeprefix("models--").replace("--", "/")
            inner = path.relative_to(above).parts[1:]
            return inner[-1] if inner else repo
    return path.name


def shown_stem(path: Path) -> str:
    """The same for the text in a picture: without owner and ending."""
    return shown_name(path).rpartition("/")[2] if path.is_dir() else path.stem


def pinned(found: Found) -> str:
    """The id with the version that was found, so that a run goes on with just that one."""
    return str(HubId(found.hub_id.repo, found.hub_id.file, found.commit)) if found.commit else str(found.hub_id)


def remember_size(hub_id: HubId, num_bytes: int) -> None:
    """Keep what the hub said of a download's size, so that it can be said without asking again."""
    with suppress(OSError):
        write_json(_size_file(hub_id), {"id": str(hub_id), "num_bytes": num_bytes})


def _remembered_size(hub_id: HubId) -> int | None:
    with suppress(OSError, ValueError):
        known = json.loads(_size_file(hub_id).read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.get("id") == str(hub_id) and isinstance(known.get("num_bytes"), int):
            return int(known["num_bytes"])
    return None


def _size_file(hub_id: HubId) -> Path:
    name = re.sub(r"[^\w.-]+", "--", str(hub_id))[:150]
    return user_folder() / "cache" / "hub-sizes" / f"{name}.json"
