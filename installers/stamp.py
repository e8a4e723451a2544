"""The stamp in venv/: what the environment was made of. It is written last, so a half-made environment has none."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

NAME = "athanor-setup.json"
ALWAYS = ("tensorboard",)  # extras that are small and make an option of the window work


@dataclass(frozen=True)
class Stamp:
    """What the environment holds. `requirements` maps a set of packages ("app", "test") to the hash of its list."""

    torch_table: str  # the PyTorch version that the set-up wanted
    torch_installed: str
    tag: str  # the build chosen for this machine
    driver: str  # driver_mark() at that time
    python: str  # python_mark() at that time
    requirements: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""  # the user's own choice of build
    retry: bool = False  # a CPU build on an NVIDIA machine: look again at each start
    reason: str = ""  # why

    @classmethod
    def read(cls, venv: Path) -> Stamp | None:
        """The stamp of an environment; None where there is none or it cannot be understood."""
        try:
            data = json.loads((venv / NAME).read_text(encoding="utf-8"))
            return cls(**{name.name: data[name.name] for name in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, venv: Path) -> None:
        """Write beside and rename: a stamp is whole or absent."""
        temporary = venv / f".{NAME}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, venv / NAME)

    @staticmethod
    def remove(venv: Path) -> None:
        (venv / NAME).unlink(missing_ok=True)


def requirement_lists(pyproject: Path) -> dict[str, list[str]]:
    """The packages of pyproject.toml by purpose: "app" (all that the program needs), "cuda", "test"."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    app = [*project["dependencies"], *(line for name in ALWAYS for line in extras.get(name, []))]
    return {"app": app, "cuda": list(extras.get("cuda", [])), "test": list(extras.get("test", []))}


def list_hash(lines: Iterable[str]) -> str:
    """A hash of a requirement list that its order does not change."""
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8")).hexdigest()[:16]
