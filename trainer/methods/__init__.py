"""One file a training method (LoRA, ...), found by being here: `Settings`, and `build` that returns a `Trained`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Trained(Protocol):
    """What a method trains, how it acts and how it is written. Lives on the training thread."""

    parts: frozenset[str]  # "unet" and the family's text encoders, where it has weights
    text_is_constant: bool  # the same caption always gives the same text states, so they may be cached

    def parameter_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Groups for an optimiser: {"params": [...], "lr": rate, "name": part}, one for each trained part."""
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """All trained weights, float32, in a fixed order."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trained weights for a snapshot; `load_state_dict` of an equally built one takes them bit for bit."""
        ...

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...

    def train(self, on: bool = True) -> None:
        """Switch what acts in training only (dropout)."""
        ...

    def off(self) -> AbstractContextManager[None]:
        """Within the block the base model is as it was before."""
        ...

    def after_step(self) -> dict[str, float]:
        """What the method does to its weights after each optimiser step; figures for the log."""
        ...

    def metadata(self) -> dict[str, str]:
        """Its entries for the file's header (`ss_network_*`)."""
        ...

    def export(self, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
        """Write the file that other programs load, atomically. Raises OSError; an older file then stays."""
        ...

    def remove(self) -> None:
        """Take it off the base model for good."""
        ...
