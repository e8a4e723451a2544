"""Settings as options of a command line."""

from __future__ import annotations


def option_name(key: str) -> str:
    """`--learning-rate` for `learning_rate`."""
    return f"--{key.replace('_', '-')}"


def option_help(words: str) -> str:
    """A help text as argparse takes it, which fills in what follows a %."""
    return words.replace("%", "%%")
