"""Models that a run names by their id on the hub: brought onto this disk before anything else begins, and kept to.

The run file then says which version it was, so that a run that goes on finds the same one, without the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.config.fields import settings_of
from trainer.config.run import RunFile
from trainer.errors import BadRunFile
from trainer.ipc import events
from trainer.models import hub

SECTIONS = ("model", "network")  # those whose files are models
_MB = 1_000_000

Report = Callable[[events.Event], None]
Places = dict[str, dict[str, str]]  # section -> setting -> value


def with_local_models(run: RunFile, report: Report, leave_if_ending: Callable[[], None]) -> tuple[RunFile, RunFile]:
    """Fetch what is named by an id and not on this disk yet.

    Args:
        run: with absolute paths.
        report: gets the stage "downloading", done and total in MB.
        leave_if_ending: called often; what it raises ends the download, which goes on from there the next time.

    Returns:
        the run with files and folders of this disk in place of ids, and the run with the ids' versions fixed, for the
        run file. Both are the run itself where there is no id.

    Raises:
        AthanorError: a model can not be fetched.
        BadRunFile: what was fetched can not be trained on.
    """
    local: Places = {}
    fixed: Places = {}
    for section, key, hub_id in _ids(run):
        path = _fetched(hub_id, report, leave_if_ending)
        local.setdefault(section, {})[key] = str(path)
        fixed.setdefault(section, {})[key] = hub.pinned(hub.look_up(hub_id))
    if not local:
        return run, run
    here = _changed(run, local)
    _check(here)
    return here, _changed(run, fixed)


def _ids(run: RunFile) -> Iterator[tuple[str, str, hub.HubId]]:
    """The settings that hold an id."""
    for name in SECTIONS:
        section = getattr(run, name)
        for key, _, info in settings_of(type(section)):
            value = getattr(section, key)
            if info.widget == "file" and value and (hub_id := hub.parse(value)) is not None:
                yield name, key, hub_id


def _fetched(hub_id: hub.HubId, report: Report, leave_if_ending: Callable[[], None]) -> Path:
    found = hub.look_up(hub_id).path
    if found is not None:
        return found
    from trainer.models.hub_download import fetch

    shown = -1

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if done // _MB != shown:
            shown = done // _MB
            report(events.Stage("downloading", shown, max(1, total // _MB)))
        leave_if_ending()

    report(events.Stage("downloading"))
    return fetch(hub_id, tell)


def _changed(run: RunFile, places: Places) -> RunFile:
    sections: dict[str, Any] = {name: getattr(run, name).model_copy(update=values) for name, values in places.items()}
    return run.model_copy(update=sections)


def _check(run: RunFile) -> None:
    """What `check` could not know of a model that was not here. Raises BadRunFile."""
    from trainer.check import model_problems

    problems = [problem for problem in model_problems(run) if problem.severity == "error"]
    if problems:
        raise BadRunFile(problems)
