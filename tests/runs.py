"""Little real runs for tests: a tiny model, a few drawn pictures, and what a run reports."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainer.build import build_run
from trainer.config.run import Folder, Prompt, RunFile
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.loop import train
from trainer.models.tensor_file import read_file
from trainer.orders import Orders


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def report(self, event: events.Event, picture: bytes = b"") -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.of(events.Step)]

    @property
    def files(self) -> list[str]:
        return [saved.file for saved in self.of(events.Saved) if saved.what != "state"]


class Script:
    """Commands that arrive at given polls (counted from 1)."""

    def __init__(self, commands: Mapping[int, Iterable[Command]] | None = None) -> None:
        self._commands = {number: list(those) for number, those in (commands or {}).items()}
        self.polls = 0

    def poll(self) -> list[Command]:
        self.polls += 1
        return self._commands.pop(self.polls, [])


class AfterStep:
    """Sends commands when that many steps have been reported."""

    def __init__(self, recorder: Recorder, step: int, *commands: Command) -> None:
        self._recorder, self._step, self._commands = recorder, step, list(commands)

    def poll(self) -> list[Command]:
        if len(self._recorder.of(events.Step)) < self._step:
            return []
        commands, self._commands = self._commands, []
        return commands


def draw_pictures(folder: Path, sizes: Iterable[tuple[int, int]], repeats: int = 1) -> Path:
    """A kohya folder with noisy pictures of these sizes and a caption each; returns its parent."""
    inner = folder / f"{repeats}_zork emblem"
    inner.mkdir(parents=True)
    dice = random.Random(0)
    for number, size in enumerate(sizes):
        picture = Image.new("RGB", size, tuple(dice.randrange(256) for _ in range(3)))
        picture.paste(tuple(dice.randrange(256) for _ in range(3)), (8, 8, 40, 40))
        picture.save(inner / f"{number}.png")
        (inner / f"{number}.txt").write_text(f"a zork, number {number}", encoding="utf-8")
    return folder


def tiny_run(model: Path, pictures: Path, **changes: Mapping[str, Any]) -> RunFile:
    """A run of four steps or so on the CPU; `changes` are tables of the run file."""
    tables: dict[str, dict[str, Any]] = {
        "model": {"path": str(model)},
        "images": {
            "folders": (Folder(path=str(pictures)),), "resolution": (64, 64), "bucket_min": 64, "bucket_max": 128,
        },
        "network": {"rank": 4, "alpha": 2.0},
        "optimizer": {"name": "AdamW", "learning_rate": 1e-2, "text_encoder_rate": 5e-3},
        "training": {"epochs": 2},
        "speed": {"precision": "fp32", "device": "cpu"},
        "samples": {"every_epochs": 0, "at_start": False, "at_end": False},
        "output": {"name": "tiny", "precision": "fp32", "save_every_epochs": 0},
    }  # fmt: skip
    for table, values in changes.items():
        tables.setdefault(table, {}).update(values)
    sections = {name: RunFile.model_fields[name].get_default(call_default_factory=True) for name in tables}
    return RunFile(**{name: type(section)(**tables[name]) for name, section in sections.items()})


def go(run: RunFile, folder: Path, commands: Any = None, recorder: Recorder | None = None) -> tuple[events.Done, Recorder]:
    """Train `run` in `folder` (from its snapshot if there is one) in this process."""
    recorder = recorder or Recorder()
    orders = Orders(commands or Script())
    built = build_run(run, folder, recorder, orders)
    try:
        return train(built.parts, recorder, orders), recorder
    finally:
        built.close()


def weights(folder: Path, name: str = "tiny") -> dict[str, torch.Tensor]:
    """The tensors of a LoRA that a run has saved."""
    return dict(read_file(folder / "checkpoints" / f"{name}.safetensors"))


def assert_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, for example {different[0]}"


PROMPT = Prompt(prompt="a zork", negative="ugly", width=64, height=64, steps=2, cfg=3.0, seed=5)
