"""`python -m trainer export FILE --to FOLDER`: a model file into the programs that draw with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.errors import EXIT_DONE, BadInput
from trainer.export_targets import KINDS, Kind, Target, export_to_all, find_target, known_installs, refresh_wanted
from trainer.messages import Message, say
from trainer.models.header import inspect_file
from trainer.targets.refresh import refresh
from trainer.targets.wishes import Wish, remember

OFF = "off"


def export(chosen: argparse.Namespace) -> int:
    """The command. Raises BadInput and whatever placing a file raises; a program that does not answer is a note."""
    if chosen.list:
        _list(chosen.json)
        return EXIT_DONE
    if chosen.file is None or not chosen.to:
        what = say("A file and a folder are needed: FILE --to FOLDER.")
        raise BadInput(what, say("--list says which programs are found."))
    targets = [_target(folder) for folder in chosen.to]
    name = chosen.name or chosen.file.stem
    paths = export_to_all(
        targets, chosen.file, name, chosen.preview, chosen.words, chosen.weight, overwrite=chosen.overwrite
    )
    notes = list(dict.fromkeys(map(str, _refresh(targets, KINDS[inspect_file(chosen.file).kind], chosen.refresh))))
    if chosen.json:
        _print_json({"ok": True, "files": [str(path) for path in paths], "note": " ".join(notes) or None})
    else:
        _say("\n".join([*(str(path) for path in paths), *(f"Note: {note}" for note in notes)]))
    return EXIT_DONE


def _target(folder: Path) -> Target:
    target = find_target(folder)
    if target is None:
        what = say("There is no folder {path}.", path=str(folder))
        raise BadInput(what, say("Choose the folder of the program that draws, or a plain folder."))
    return target


def _refresh(targets: Sequence[Target], kind: Kind, address: str | None) -> Iterator[Message]:
    """Ask the programs to show what was placed; why they do not. An address is of the first that can be asked, and kept."""
    able = [target for target in targets if target.api]
    if address is not None and able:
        remember(able[0].root, Wish() if address == OFF else Wish(True, address))
    for target in targets:
        named = address not in (None, OFF) and target is (able or targets)[0]
        # a plain folder may be one that a WebUI reads too
        note = refresh(target.api or "webui", address or "", kind) if named else refresh_wanted(target, kind)
        if note is not None:
            yield note


def _list(as_json: bool) -> None:
    installs = known_installs()
    if as_json:
        rows = [{"program": target.program, "root": str(target.root), "folders": _folders(target)} for target in installs]
        _print_json({"ok": True, "installs": rows})
    elif not installs:
        _say("None is found in the usual places; name its folder with --to.")
    else:
        _say("\n".join(f"{target.program}: {target.root}" for target in installs))


def _folders(target: Target) -> dict[str, list[str]]:
    return {kind: [str(place) for place in places] for kind, places in target.folders.items()}


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _print_json(data: object) -> None:
    print(json.dumps(data, ensure_ascii=False))  # noqa: T201
