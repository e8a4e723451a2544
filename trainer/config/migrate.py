"""Old run files brought up to date: one pure function from each format number to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainer.config.run import FORMAT
from trainer.errors import BadRunFile, Problem
from trainer.messages import say

Values = dict[str, Any]


def _from_1(values: Values) -> Values:
    """Whether a program is asked to show new files belongs to the program since (`trainer.targets.wishes`)."""
    output = values.get("output")
    if not isinstance(output, Mapping):
        return values
    gone = ("refresh_webui", "webui_address")
    return {**values, "output": {name: value for name, value in output.items() if name not in gone}}


# MIGRATIONS[n] takes the tables of format n and returns those of format n + 1; it must not change its argument.
MIGRATIONS: dict[int, Callable[[Values], Values]] = {1: _from_1}


def migrate(
    values: Mapping[str, Any], migrations: Mapping[int, Callable[[Values], Values]] = MIGRATIONS, newest: int = FORMAT
) -> Values:
    """The tables of a run file in today's format, without the `format` key.

    Raises:
        BadRunFile: if the number is missing, not a number, or of a newer Athanor.
    """
    tables = dict(values)
    number = tables.pop("format", None)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        what = say("The file does not begin with its format number.")
        raise BadRunFile([Problem("format", what, say("Write format = {newest} in its first line.", newest=newest))])
    if number > newest:
        what = say("This file was made by a newer Athanor (format {number}, this one reads {newest}).",
                   number=number, newest=newest)  # fmt: skip
        raise BadRunFile([Problem("format", what, say("Update Athanor."), number)])
    for step in range(number, newest):
        tables = migrations[step](tables)
    return tables
