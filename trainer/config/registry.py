"""Finds plug-ins by folder: the settings of every method in `trainer/methods`, joined into one type."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from operator import or_
from types import ModuleType
from typing import Annotated, Any

from pydantic import Discriminator

import trainer.methods


def method_modules() -> dict[str, ModuleType]:
    """Every module of `trainer/methods` by name. They are torch-free until something is built."""
    names = sorted(module.name for module in pkgutil.iter_modules(trainer.methods.__path__))
    return {name: importlib.import_module(f"trainer.methods.{name}") for name in names}


def method_settings() -> Any:
    """The type of [network]: the one method's `Settings`, or the union of all, told apart by `kind`."""
    kinds = [module.Settings for module in method_modules().values()]
    return kinds[0] if len(kinds) == 1 else Annotated[reduce(or_, kinds), Discriminator("kind")]
