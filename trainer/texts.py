"""Where text states come from: the encoders that train, frozen ones that must read on, or the cache.

Captions are read as they are trained (a fixed length); the prompts of previews as image programs read them (any length).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Protocol

import torch

from trainer.data.cache import Progress, TextStates
from trainer.models.protocol import Cond

Encode = Callable[[Sequence[str]], Cond]


@dataclass(frozen=True)
class Readers:
    """The text encoders, as captions are read and as prompts are (all to equal numbers of chunks)."""

    captions: Encode
    prompts: Encode


class Texts(Protocol):
    """Turns captions and prompts into what the model is told of them."""

    def ensure(
        self, captions: Iterable[str] = (), prompts: Iterable[str] = (), on_progress: Progress | None = None
    ) -> None:
        """Make sure that `encode` and `encode_prompts` can answer for these; may load what it takes."""
        ...

    def encode(self, captions: Sequence[str]) -> Cond: ...

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """Of equal T for all of them: whole texts stand there as often as it takes (see `text.read_texts`)."""
        ...


class LiveTexts:
    """The text encoders stay at work: one of them trains, or the captions change."""

    def __init__(self, readers: Readers, trains: bool) -> None:
        self._readers, self._trains = readers, trains

    def ensure(
        self, captions: Iterable[str] = (), prompts: Iterable[str] = (), on_progress: Progress | None = None
    ) -> None:
        pass

    def encode(self, captions: Sequence[str]) -> Cond:
        with torch.set_grad_enabled(self._trains and torch.is_grad_enabled()):
            return self._readers.captions(captions)

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        with torch.no_grad():
            return self._readers.prompts(prompts)


class CachedTexts:
    """Frozen encoders are loaded by `load` only while something is missing from the cache, and then `dropped`."""

    def __init__(
        self, states: TextStates, prompts: TextStates, load: Callable[[], Readers], dropped: Callable[[], None]
    ) -> None:
        self.states, self._prompts, self._load, self._dropped = states, prompts, load, dropped

    def ensure(
        self, captions: Iterable[str] = (), prompts: Iterable[str] = (), on_progress: Progress | None = None
    ) -> None:
        missing = self.states.find(captions), self._prompts.find(prompts)
        if any(missing):
            with torch.no_grad():
                readers = self._load()
                self.states.encode(missing[0], readers.captions, on_progress=on_progress)
                self._prompts.encode(missing[1], readers.prompts, on_progress=on_progress)
                del readers
            self._dropped()

    def encode(self, captions: Sequence[str]) -> Cond:
        return Cond.stack([self.states.cond(caption) for caption in captions])

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        conds = [self._prompts.cond(prompt) for prompt in prompts]
        length = lcm(*(cond.states.shape[1] for cond in conds))
        return Cond.stack(
            [replace(cond, states=cond.states.repeat(1, length // cond.states.shape[1], 1)) for cond in conds]
        )
