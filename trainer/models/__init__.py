"""Model families, one file each, and what they share."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.models.protocol import Family


def family_named(name: str) -> Family:
    """The family of a model, by `ModelFacts.family`. Its module is imported only now; torch comes with its first use."""
    family: Family = importlib.import_module(f"trainer.models.{name}").FAMILY
    return family
