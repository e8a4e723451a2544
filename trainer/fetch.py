"""`python -m trainer fetch ID`: bring a model from the hub onto this disk, with progress for people or for programs."""

from __future__ import annotations

import argparse
import json
import sys
import time

from trainer.errors import EXIT_DONE, BadInput
from trainer.files import free_bytes
from trainer.messages import say
from trainer.models.hub import HubId, look_up, parse
from trainer.terminal import Screen, bar

TICK_S, PLAIN_S = 0.2, 10.0  # between two lines of progress; where they stay, one below the other


def fetch(chosen: argparse.Namespace) -> int:
    """The command. Ended at any moment (Ctrl+C, or its process), it goes on from there the next time.

    With --json each line on stdout is an object: {"event": "plan", "files", "done", "total", "free"}, then
    {"event": "progress", "done", "total"} a few times a second, at last {"event": "done", "path"}; all in bytes.
    """
    hub_id = parse(chosen.id)
    if hub_id is None:
        raise BadInput(
            say("{text} is no model's id on the hub.", text=chosen.id),
            say("An id is owner/name, owner/name@revision or owner/name/file.safetensors."),
        )
    return _fetch(hub_id, chosen.full, chosen.plan, chosen.json)


def _fetch(hub_id: HubId, full: bool, only_plan: bool, as_json: bool) -> int:
    from trainer.models.hub_download import download, make_plan

    tell = _Teller(as_json)
    found = look_up(hub_id, full)
    if found.path is not None:
        tell.done(str(found.path))
        return EXIT_DONE
    plan = make_plan(hub_id, full)
    tell.plan(str(hub_id), len(plan.files), plan.num_here, plan.num_bytes, free_bytes(plan.cache))
    if not only_plan:
        download(plan, tell.progress)
        tell.done(str(plan.path))
    return EXIT_DONE


class _Teller:
    """Says how far a download is, in sentences or in JSON."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._screen = Screen(sys.stdout, sys.stdout.isatty())
        self._last = 0.0

    def plan(self, name: str, num_files: int, done: int, total: int, free: int) -> None:
        if self._as_json:
            self._line(event="plan", id=name, files=num_files, done=done, total=total, free=free)
        else:
            here = f", {done / 1e9:.2f} GB of it here already" if done else ""
            self._screen.say(f"{name}: {num_files} files, {total / 1e9:.2f} GB{here}.")

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        patience = TICK_S if self._as_json or self._screen.is_live else PLAIN_S
        if now - self._last < patience and done < total:
            return
        self._last = now
        text = f"{bar(done, total)}  {done / 1e9:.2f} of {total / 1e9:.2f} GB"
        if self._as_json:
            self._line(event="progress", done=done, total=total)
        elif self._screen.is_live:
            self._screen.renew(text, final=done == total)
        else:
            self._screen.say(text)

    def done(self, path: str) -> None:
        if self._as_json:
            self._line(event="done", path=path)
        else:
            self._screen.say(f"It is here: {path}")

    def _line(self, **fields: str | int) -> None:
        print(json.dumps(fields, ensure_ascii=False), flush=True)  # noqa: T201
