"""Where text states come from: the encoder that trains, a frozen one that must read on, or the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch

from trainer.data.cache import Progress, TextStates
from trainer.models.protocol import Cond

Encode = Callable[[Sequence[str]], Cond]


class Texts(Protocol):
    """Turns captions into what the model is told of them."""

    def ensure(self, captions: Iterable[str], on_progress: Progress | None = None) -> None:
        """Make sure that `encode` can answer for these; may load what it takes."""
        ...

    def encode(self, captions: Sequence[str]) -> Cond: ...


class LiveTexts:
    """The text encoder stays at work: it trains, or the captions change."""

    def __init__(self, encode: Encode, trains: bool) -> None:
        self._encode, self._trains = encode, trains

    def ensure(self, captions: Iterable[str], on_progress: Progress | None = None) -> None:
        pass

    def encode(self, captions: Sequence[str]) -> Cond:
        with torch.set_grad_enabled(self._trains and torch.is_grad_enabled()):
            return self._encode(captions)


class CachedTexts:
    """A frozen encoder is loaded by `load` only while something is missing from the cache."""

    def __init__(self, states: TextStates, load: Callable[[], Encode], dropped: Callable[[], None]) -> None:
        self.states, self._load, self._dropped = states, load, dropped

    def ensure(self, captions: Iterable[str], on_progress: Progress | None = None) -> None:
        missing = self.states.find(captions)
        if missing:
            with torch.no_grad():
                self.states.encode(missing, self._load(), on_progress=on_progress)
            self._dropped()

    def encode(self, captions: Sequence[str]) -> Cond:
        return Cond.stack([self.states.cond(caption) for caption in captions])
