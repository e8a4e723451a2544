"""Pictures while training: when they are due, what they are drawn with, and where they go. Training never notices them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from trainer.config.problems import read_section
from trainer.config.run import Prompt
from trainer.files import write_bytes
from trainer.ipc import events
from trainer.loop import Reporter, is_out_of_memory
from trainer.messages import say
from trainer.models.protocol import Components, Family
from trainer.sampling import Encode, Look, drawn_texts, parameters_text, png_bytes, sample, thumbnail_bytes


class Switchable(Protocol):
    """What is trained, as far as drawing concerns it."""

    def train(self, on: bool = True) -> None: ...


@dataclass(frozen=True)
class Timing:
    """When previews are due. `epoch_ends[e]` is the position at which epoch e (from 0) is over; the last ends the run."""

    epoch_ends: Sequence[int]
    every_steps: int = 0
    every_epochs: int = 0
    at_start: bool = False
    at_end: bool = False

    def due(self, position: int) -> bool:
        """Whether pictures belong to the state after `position` steps."""
        if position == 0:
            return self.at_start
        if position == self.epoch_ends[-1] and self.at_end:
            return True
        if self.every_steps and position % self.every_steps == 0:
            return True
        ended = position in self.epoch_ends
        return bool(self.every_epochs and ended and (self.epoch_ends.index(position) + 1) % self.every_epochs == 0)


@dataclass(frozen=True)
class Studio:
    """What pictures are drawn with. `load_vae` brings the VAE, which is let go after each round of pictures."""

    family: Family
    components: Components
    trained: Switchable
    encode: Encode  # prompts
    load_vae: Callable[[], Any]
    ensure: Callable[[Sequence[str]], None] = lambda prompts: None  # before `encode` is asked for them
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    model_name: str = ""
    clip_skip: int = 1


class Previews:
    """See `trainer.loop.Previews`. Files are `samples/{name}_{position}_{index}_{seed}.png` of the run folder."""

    def __init__(
        self, folder: Path, name: str, prompts: Sequence[Prompt], timing: Timing, studio: Studio, reporter: Reporter
    ) -> None:
        self._folder, self._name, self._timing, self._studio, self._reporter = folder, name, timing, studio, reporter
        self.prompts = tuple(prompts)

    def after(self, position: int, look: Look) -> None:
        """Draw what is due and not there yet (a killed run may have got that far before)."""
        if self._timing.due(position):
            self._draw(position, [n for n in range(len(self.prompts)) if not self._file(position, n).exists()], look)

    def draw(self, position: int, look: Look) -> None:
        """Draw every prompt now."""
        self._draw(position, list(range(len(self.prompts))), look)

    def forget_after(self, position: int) -> None:
        """Remove pictures of later positions, which a run that goes on from here will draw anew."""
        for file in (self._folder / "samples").glob(f"{_glob_escaped(self._name)}_????????_??_*.png"):
            digits = file.stem.removeprefix(f"{self._name}_")[:8]
            if digits.isdecimal() and int(digits) > position:
                file.unlink(missing_ok=True)

    def replace(self, prompts: Sequence[dict[str, Any]]) -> None:
        """Take a new list from now on; a list with a mistake is refused with a warning and the old one stays."""
        checked = [read_section(Prompt, prompt, "samples.prompts") for prompt in prompts]
        if problems := [problem for _, found in checked for problem in found if problem.severity == "error"]:
            what = say("The new preview prompts can not be used ({reason}).", reason=str(problems[0]))
            self._reporter.report(events.Warning_(what, say("The old ones stay.")))
            return
        self.prompts = tuple(prompt for prompt, _ in checked if isinstance(prompt, Prompt))

    def tables(self) -> list[dict[str, Any]]:
        """The prompts as they are, for a snapshot."""
        return [prompt.model_dump() for prompt in self.prompts]

    def _draw(self, position: int, numbers: Sequence[int], look: Look) -> None:
        if not numbers:
            return
        self._reporter.report(events.Stage("sampling", 0, len(numbers)))
        prompts = [self.prompts[number] for number in numbers]
        try:
            self._studio.ensure(drawn_texts(prompts))
            with self._ready() as components:
                for done, number in enumerate(numbers, 1):
                    self._draw_one(components, position, number, look)
                    self._reporter.report(events.Stage("sampling", done, len(numbers)))
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            what = say("There is not enough memory for a preview; the training goes on without it.")
            self._reporter.report(events.Warning_(what, say("Make the previews smaller.")))
        if position < self._timing.epoch_ends[-1]:
            self._reporter.report(events.Stage("training"))

    def _draw_one(self, components: Components, position: int, number: int, look: Look) -> None:
        studio, prompt = self._studio, self.prompts[number]
        picture = sample(
            components, studio.family, [prompt], encode=studio.encode, autocast=studio.autocast, look=look
        )[0]  # fmt: skip
        file = self._file(position, number)
        text = parameters_text(prompt, model=studio.model_name, clip_skip=studio.clip_skip)
        write_bytes(file, png_bytes(picture, text))
        relative = file.relative_to(self._folder).as_posix()
        event = events.Sample(position, number, prompt.prompt, prompt.seed, relative)
        self._reporter.report(event, thumbnail_bytes(picture))

    @contextmanager
    def _ready(self) -> Iterator[Components]:
        """The model with its VAE and what is trained in eval mode; after the block all is as before."""
        studio = self._studio
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        studio.trained.train(False)
        try:
            with torch.random.fork_rng(devices=devices):
                yield replace(studio.components, vae=studio.load_vae())
        finally:
            studio.trained.train(True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _file(self, position: int, number: int) -> Path:
        seed = self.prompts[number].seed
        return self._folder / "samples" / f"{self._name}_{position:08d}_{number:02d}_{seed}.png"


def _glob_escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
