"""A process that looks at thousands of damaged files while an audit hook watches what it does; prints what it found as JSON.

`python -m tests.models.fuzz_child FOLDER COUNT SEED`: the files of FOLDER are the seeds of the mutations.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
import traceback
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from trainer.messages import Message
from trainer.models import header
from trainer.models.opening import NotWeights
from trainer.models.weights_file import read_header

MAX_SECONDS = 2.0
ALLOWED = {  # all else is a finding; a file may be opened for reading
    "open", "os.listdir", "os.scandir", "glob.glob", "glob.glob/2", "pathlib.Path.glob", "object.__getattr__",
    "sys._getframe", "builtins.id", "code.__new__", "array.__new__", "gc.collect", "time.sleep",
}  # fmt: skip
EDGES = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFE, 0xFF)


class Watch:
    """Notes every event that reading a header has no business to cause, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.events: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            mode, flags = str(arguments[1] or "r"), arguments[2] or 0
            if not set(mode) & set("wax+") and not flags & 0o3:  # O_WRONLY, O_RDWR
                return
        if event not in ALLOWED or event == "open":
            self.events.append(f"{event} {str(arguments)[:200]}")


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Some bytes changed, removed, doubled, swapped for another file's, cut, or numbers made extreme."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        size = len(changed)
        if not size:
            break
        near = chance.choice((64, 512, 4096, size))  # headers come first, zip directories last
        place = (
            chance.randrange(min(near, size)) if chance.random() < 0.8 else size - 1 - chance.randrange(min(near, size))
        )
        kind = chance.randrange(8)
        if kind <= 1:
            changed[place] = chance.randrange(256)
        elif kind == 2:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 3:
            changed[place : place + chance.choice((1, 4, 8))] = bytes([chance.choice(EDGES)]) * chance.choice((1, 4, 8))
        elif kind == 4:
            del changed[place : place + chance.randrange(1, 64)]
        elif kind == 5:
            changed[place:place] = changed[place : place + chance.randrange(1, 256)] * chance.choice((1, 1, 2, 50))
        elif kind == 6:
            other = chance.choice(others)
            start = chance.randrange(max(1, len(other)))
            changed[place : place + chance.randrange(64)] = other[start : start + chance.randrange(1, 256)]
        else:
            del changed[place:]
    return bytes(changed)


def mutate_inside(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """As `mutate`; of a safetensors file with its length word set right, of a zip in its pickle, else as it is."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        out = BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, mutate(content, others, chance) if name.endswith("data.pkl") else content)
        return out.getvalue()
    if data[8:9] == b"{":
        (size,) = struct.unpack("<Q", data[:8])
        text = mutate(data[8 : 8 + size], others, chance)
        return struct.pack("<Q", len(text)) + text + data[8 + size :]
    return mutate(data, others, chance)


def look(path: Path, watch: Watch) -> dict[str, Any]:
    """What is wrong with how a file was looked at; empty if nothing is."""
    wrong: dict[str, Any] = {}
    watch.armed = True
    start = time.process_time()  # of this process: a busy machine is no hang
    try:
        facts = header.inspect_file(path)
        if not isinstance(facts.summary, Message) or not str(facts.summary).strip() or len(str(facts.problem)) > 2000:
            wrong["sentence"] = repr(facts)[:500]
        json.dumps(facts.summary.to_json(), ensure_ascii=False).encode("utf-8")
        with suppress(NotWeights, OSError):
            read_header(path)
    except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
        wrong["traceback"] = traceback.format_exc()[-2000:]
    finally:
        seconds = time.process_time() - start
        watch.armed = False
    if seconds > MAX_SECONDS:
        wrong["seconds"] = seconds
    if watch.events:
        wrong["events"] = watch.events[:5]
        watch.events.clear()
    return wrong


def high_water() -> int:
    """Peak memory of this process in MB; 0 where the system doesn't tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def main(folder: Path, count: int, seed: int) -> dict[str, Any]:
    seeds = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    watch, chance = Watch(), random.Random(seed)
    for path in seeds:
        look(path, watch)  # what is imported late is imported now
    watch.events.clear()
    before, slowest = high_water(), 0.0
    findings = []
    kinds: dict[str, int] = {}
    for number in range(count):
        original, data = chance.choice(list(seeds.items()))
        change = mutate_inside if chance.random() < 0.6 else mutate
        goal = folder / "work" / f"m{original.suffix}"
        goal.write_bytes(change(data, list(seeds.values()), chance))
        start = time.process_time()
        wrong = look(goal, watch)
        slowest = max(slowest, time.process_time() - start)
        kind = header.inspect_file(goal).kind
        kinds[kind] = kinds.get(kind, 0) + 1
        if wrong:
            findings.append({"number": number, "seed_file": original.name, **wrong})
            (folder / "work" / f"found-{number}{original.suffix}").write_bytes(goal.read_bytes())
    left = sorted(path.name for path in (folder / "work").iterdir() if not path.name.startswith(("m.", "found-")))
    return {"count": count, "findings": findings[:20], "num_findings": len(findings), "grown_mb": high_water() - before,
            "slowest_s": slowest, "kinds": kinds, "left": left}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
