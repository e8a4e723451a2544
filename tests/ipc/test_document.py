"""docs/run-folder.md names what the code has: every event with its keys, every command, every state."""

from __future__ import annotations

import dataclasses
import re

from trainer.ipc.events import COMMANDS, EVENTS
from trainer.ipc.journal import ROW_COLUMNS
from trainer.ipc.runfolder import RUNNING_STATES, RunFolder
from trainer.paths import ROOT

TEXT = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")


def test_every_event_is_there_with_its_keys() -> None:
    table = TEXT[TEXT.index("| `event` |") :].partition("\n\n")[0].partition("\n")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", table, re.MULTILINE))
    found = {name: tuple(re.findall(r"`(\w+)`", keys)) for name, keys in rows.items()}
    kinds = {name: kind for name, kind in EVENTS.items() if name != "step"}
    assert found == {name: tuple(part.name for part in dataclasses.fields(kind)) for name, kind in kinds.items()}
    assert f"[{', '.join(ROW_COLUMNS)}, rate, …]" in TEXT


def test_every_command_state_and_file_is_there() -> None:
    for name in (*COMMANDS, *RUNNING_STATES, "finished", "stopped", "aborted", "failed"):
        assert f"`{name}`" in TEXT, name
    folder = RunFolder(ROOT)
    for path in (folder.run_file, folder.journal, folder.status, folder.log, folder.pipe):
        assert f"| `{path.name}` |" in TEXT
    for path in (folder.samples, folder.checkpoints, folder.state):
        assert f"| `{path.name}/` |" in TEXT
