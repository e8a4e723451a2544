"""Which runs there are, read from their folders. Neither Qt nor numpy is imported here, so that the start can ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.ipc.runfolder import RunFolder, Status, find_runs, is_alive
from trainer.paths import default_runs_folder

PLACES = "run_folders"  # preference: output folders that runs were started in
LATEST = 20  # runs of a place, among which the newest of all is looked for


@dataclass(frozen=True)
class Summary:
    """A line in the list of runs."""

    folder: RunFolder
    status: Status
    alive: bool


def run_places(preferences: Any) -> list[Path]:
    """Every folder that runs were started in."""
    known = preferences.get(PLACES, []) if preferences is not None else []
    return [default_runs_folder(), *(Path(place) for place in known)]


def all_runs(places: list[Path]) -> list[Summary]:
    """The runs in these places, the newest first. Any thread."""
    folders = {folder.path.resolve(): folder for place in places for folder in find_runs(place)}
    return sorted(
        map(_summary, folders.values()),
        key=lambda summary: (summary.status.created, summary.folder.path.name),
        reverse=True,
    )


def newest_runs(places: list[Path]) -> list[Summary]:
    """The last few runs of each place, the newest first. Any thread."""
    folders = [folder for place in places for folder in find_runs(place)[:LATEST]]
    return sorted(map(_summary, folders), key=lambda summary: summary.status.created, reverse=True)


def _summary(folder: RunFolder) -> Summary:
    status = folder.read_status()
    return Summary(folder, status, is_alive(status))
