"""Preview pictures of a run: when they are drawn, and where they go. Drawing them never changes the training."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.files import atomic_path
from trainer.ipc import events
from trainer.ipc.events import Command, Event
from trainer.messages import say
from trainer.sampling import Artist, Interrupted, PicturePrompt, parameters_text, png_info

THUMBNAIL_SIDE = 320

Report = Callable[..., None]  # (event, picture=b"")
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class PreviewRules:
    """When pictures are drawn; numbers of 0 are off."""

    name: str
    every_steps: int = 0
    every_epochs: int = 0
    at_start: bool = False
    at_end: bool = False
    total_steps: int = 0


class Previewer:
    """Draws the prompts of the moment into `folder`.

    Args:
        studio: a context that lends the model for drawing: training state put aside, the VAE at hand.
        read_prompt: makes a prompt from a command's table; raises ValueError with a sentence for the user.
        describe: a prompt → the text for the PNG.
    """

    def __init__(
        self,
        folder: Path,
        rules: PreviewRules,
        prompts: Iterable[PicturePrompt],
        studio: Callable[[Sequence[PicturePrompt]], AbstractContextManager[Artist]],
        *,
        read_prompt: Callable[[Mapping[str, Any]], PicturePrompt],
        report: Report,
        model_name: str = "",
        clip_skip: int = 1,
    ) -> None:
        self._folder, self._rules, self.prompts = folder, rules, tuple(prompts)
        self._studio, self._read_prompt, self._report = studio, read_prompt, report
        self._model_name, self._clip_skip = model_name, clip_skip
        self._drawn_at = -1

    def prompt_tables(self) -> tuple[Mapping[str, Any], ...]:
        """The prompts as a snapshot keeps them."""
        return tuple(asdict(prompt) for prompt in self.prompts)

    def start(self, should_stop: ShouldStop) -> None:
        if self._rules.at_start:
            self.draw(0, should_stop)

    def after(self, step: int, epoch: int, ends_epoch: bool, should_stop: ShouldStop) -> None:
        rules = self._rules
        by_epoch = ends_epoch and rules.every_epochs and epoch % rules.every_epochs == 0
        by_step = rules.every_steps and step % rules.every_steps == 0
        if by_epoch or by_step:
            self.draw(step, should_stop)

    def finish(self, step: int, should_stop: ShouldStop) -> None:
        if self._rules.at_end and self._drawn_at != step:
            self.draw(step, should_stop)

    def replace(self, command: Command) -> None:
        """Take a new list of prompts; one with a mistake is refused whole, and said so."""
        try:
            self.prompts = tuple(self._read_prompt(table) for table in command.prompts)
        except ValueError as error:
            what = say("The new prompts can not be used: {reason}", reason=str(error))
            self._report(events.Warning_(what, say("The prompts before stay.")))

    def draw(self, step: int, should_stop: ShouldStop) -> None:
        """Draw every prompt; what goes wrong is a warning, for the training is worth more than its pictures."""
        prompts = self.prompts
        if not prompts:
            return
        self._report(events.Stage("sampling", 0, len(prompts)))
        try:
            with self._studio(prompts) as artist:
                for index, picture in enumerate(artist.draw(prompts, should_stop=should_stop)):
                    self._keep(step, index, prompts[index], picture)
                    self._report(events.Stage("sampling", index + 1, len(prompts)))
            self._drawn_at = step
        except Interrupted:
            pass  # the command that interrupted is obeyed by the loop
        except OSError as error:
            what = say("A preview could not be made ({reason}).", reason=error.strerror or str(error))
            self._report(events.Warning_(what, say("The training goes on.")))
        self._report(events.Stage("training"))

    def _keep(self, step: int, index: int, prompt: PicturePrompt, picture: Image.Image) -> None:
        path = self._folder / "samples" / f"{self._rules.name}_{step:08d}_{index:02d}_{prompt.seed}.png"
        info = png_info(parameters_text(prompt, self._model_name, self._clip_skip))
        with atomic_path(path) as temporary:
            picture.save(temporary, "PNG", pnginfo=info)
        file = path.relative_to(self._folder).as_posix()
        event: Event = events.Sample(step, index, prompt.prompt, prompt.seed, file)
        self._report(event, picture=_thumbnail(picture))


def _thumbnail(picture: Image.Image) -> bytes:
    """A small JPEG for windows that watch."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
