"""Shows and changes what a safetensors file says about itself, without touching its weights. No torch."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from trainer.errors import BadInput
from trainer.files import atomic_path
from trainer.hashes import model_hashes
from trainer.messages import Message, say
from trainer.metadata import PRIVATE
from trainer.models import foreign_json
from trainer.models.opening import open_plain
from trainer.models.safetensors_file import MAX_HEADER_BYTES, Header, NotSafetensors, copied_header, read_header
from trainer.tools.catalog import MetadataSettings
from trainer.tools.hashes import PIECE_BYTES
from trainer.tools.output import check_output, check_space
from trainer.tools.watch import Result, Watch

MORE_PRIVATE = (  # what other programs write of the same kind
    "ss_datasets",
    "ss_training_comment",
    "ss_tag_occurrence*",
    "ss_output_dir",
    "ss_train_data_dir",
    "ot_config",
    "training_info",
    "workflow",
    "prompt",
)
_SHOWN_CHARACTERS = 2000  # of one entry, in the terminal; --json has all


def run(settings: MetadataSettings, watch: Watch) -> Result:
    """Show the entries, or write the file with changed ones. Raises BadInput if it is no safetensors file."""
    path = Path(settings.file)
    header = _header(path)
    path = path.resolve()  # of a link the file is changed that it leads to
    if not (settings.set or settings.remove or settings.strip_private):
        return Result(Message(_shown(header.metadata)), facts={"metadata": dict(header.metadata)})
    changed = change(header.metadata, settings)
    target = Path(settings.output) if settings.output else path
    if settings.output:
        check_output(target, [path], (".safetensors", ".sft"), settings.overwrite)
    write(path, header, target, changed, watch)
    added = sorted(name for name in changed if changed[name] != header.metadata.get(name))
    removed = sorted(set(header.metadata) - set(changed))
    summary = say(
        "{path}: {written} entries written, {removed} taken out.",
        path=str(target), written=len(added), removed=len(removed),
    )  # fmt: skip
    return Result(summary, (target,), facts={"written": added, "removed": removed, "metadata": changed})


def _header(path: Path) -> Header:
    if path.is_dir():
        raise BadInput(say("{path} is a folder; metadata is in the header of a .safetensors file.", path=str(path)))
    if not path.exists():
        raise BadInput(say("There is no file {path}.", path=str(path)))
    try:
        return read_header(path)
    except NotSafetensors as error:
        if error.cut_short:
            raise
        raise BadInput(
            say("{path} is no safetensors file, and only these have metadata.", path=str(path)),
            say("The tool convert makes one of a .ckpt or .pt file."),
        ) from error


def change(metadata: Mapping[str, str], settings: MetadataSettings) -> dict[str, str]:
    """The entries after the changes asked for. Raises BadInput for an entry without a name or one that is not there."""
    kept = dict(metadata)
    if settings.strip_private:
        for name in [name for name in kept if _matches(name, (*PRIVATE, *MORE_PRIVATE))]:
            del kept[name]
    for pattern in settings.remove:
        names = [pattern] if pattern in kept else [name for name in kept if _matches(name, (pattern,))]
        if not names and pattern not in metadata:
            raise BadInput(say("There is no entry {name} in the file.", name=pattern))
        for name in names:
            del kept[name]
    for entry in settings.set:
        name, sign, value = entry.partition("=")
        if not sign or not name.strip():
            raise BadInput(say("{entry} is not of the form key=value.", entry=entry))
        if name.strip() == "__metadata__":
            raise BadInput(say("An entry cannot be called {name}.", name=name.strip()))
        kept[name.strip()] = value
    return kept


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def write(path: Path, header: Header, target: Path, metadata: Mapping[str, str], watch: Watch) -> None:
    """Write a copy of a file with other entries, atomically; `target` may be the file itself.

    A LoRA's `sshs_…` hashes are computed anew: one of them depends on the header's length.
    """
    meter = watch.meter(say("Copying"), header.file_bytes * (2 if "sshs_model_hash" in metadata else 1))
    final = dict(metadata)
    if "sshs_model_hash" in metadata:
        trained = {name: value for name, value in final.items() if name.startswith("ss_")}
        final |= model_hashes(copied_header(header, trained), _pieces(path, header, meter.advance))
    head = copied_header(header, final)
    if len(head) > MAX_HEADER_BYTES:
        raise BadInput(say("So much metadata ({size} MB) is not read by programs.", size=len(head) // 1_000_000))
    check_space(target.parent, header.file_bytes)
    with atomic_path(target) as temporary, temporary.open("wb") as copy:
        copy.write(head)
        for piece in _pieces(path, header, meter.advance):
            copy.write(piece)


def _pieces(path: Path, header: Header, tell: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes after the header."""
    with open_plain(path) as handle:
        handle.seek(header.data_start)
        while piece := handle.read(PIECE_BYTES):
            yield piece
            tell(len(piece))


def _shown(metadata: Mapping[str, str]) -> str:
    """The entries as text, tables indented, what is endless cut."""
    if not metadata:
        return str(say("There are no entries."))
    return "\n".join(f"{name}: {_value(text)}" for name, text in sorted(metadata.items()))


def _value(text: str) -> str:
    if text[:1] in "{[":
        with suppress(ValueError, RecursionError):
            text = json.dumps(foreign_json.parse(text), ensure_ascii=False, indent=2)
    plain = "".join(
        letter if letter.isprintable() or letter == "\n" else "�" for letter in text[: _SHOWN_CHARACTERS + 1]
    )
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
