"""Makes a row of the optimiser table real: the class by its path, its arguments read and checked, its groups of weights."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput, RunFailed
from trainer.messages import say
from trainer.optim.table import OptimizerRow

if TYPE_CHECKING:
    import torch

_WORDS = {"true": True, "false": False, "none": None, "yes": True, "no": False}


def build_optimizer(
    row: OptimizerRow, groups: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """The optimiser of `row` over `groups` ({"params", "lr", "name"} each), with free `arguments` over the row's own.

    Raises:
        BadInput: for an argument or a value that it does not take, or rates that it can not have.
        RunFailed: if its library is missing or broken.
    """
    values = dict(row.arguments) | read_arguments(row, arguments)
    made = [dict(group) for group in groups]
    if row.own_rate and len({group["lr"] for group in made} - {0.0}) > 1:
        rates = ", ".join(f"{group['name']} {group['lr']:g}" for group in made)
        raise BadInput(
            say(
                "{optimizer} finds one rate for all parts, and these differ: {rates}.", optimizer=row.name, rates=rates
            ),
            say("Set the learning rate to 1 and leave the rates of UNet and text encoder empty."),
        )
    if sets_own_rate(row, values):
        for group in made:
            group["lr"] = None
    else:
        values["lr"] = max(group["lr"] for group in made) or 1.0  # a rate of 0 is legal in a group, not as the default
    if row.class_path.startswith("torch."):
        values["fused"] = True  # one kernel for all weights, on the CPU too
    try:
        return _class(row)(made, **values)
    except (TypeError, ValueError, AssertionError) as error:
        reason = str(error) or "a value is out of range"
        what = say("{optimizer} does not take these arguments ({reason}).", optimizer=row.name, reason=reason)
        raise BadInput(what, say("Correct them under Optimiser, More arguments.")) from error


def sets_own_rate(row: OptimizerRow, arguments: Mapping[str, Any]) -> bool:
    """Whether it takes no learning rate at all: Adafactor with its relative step."""
    return row.relative_rate and bool(arguments.get("relative_step", row.arguments["relative_step"]))


def read_arguments(row: OptimizerRow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Free arguments as Python values. Text is read as people write it: "0.1", "true", "0.9, 0.99", "(1e-30, 1e-3)".

    Raises:
        BadInput: for a name that the optimiser does not take.
    """
    for name in given:
        if name not in row.arguments:
            near = difflib.get_close_matches(name, row.arguments, 1)
            todo = (
                say("Did you mean {name}?", name=near[0])
                if near
                else say("It takes: {known}.", known=", ".join(row.arguments))
            )
            raise BadInput(say("{optimizer} has no argument {name}.", optimizer=row.name, name=name), todo)
    return {name: _read(value) for name, value in given.items()}


def _read(value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return tuple(_read(part) for part in value) if isinstance(value, list | tuple) else value


def _class(row: OptimizerRow) -> Any:
    module, _, name = row.class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, OSError) as error:
        what = say("The library of {optimizer} can not be loaded ({reason}).", optimizer=row.name, reason=str(error))
        todo = say("Choose another optimiser, or run the doctor (gui.sh doctor, gui.bat doctor).")
        raise RunFailed(what, todo) from error
