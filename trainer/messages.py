"""Sentences for the user as data: an English template and its values, so that the window can say them in Chinese.

Every sentence that a user may read is made by `say("… {name} …", name=value)`: the templates are found in the source
by the translation script (tests/test_translations.py says when one has no Chinese), and travel over the pipe and in the
journal as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

Value = Union[str, int, float, "Message"]


@dataclass(frozen=True)
class Message:
    """A sentence: `template` with `{names}` in it, and the values for the names; a value may be a sentence itself."""

    template: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text()

    def text(self, translate: Callable[[str], str] = str) -> str:
        """The sentence with its values, the template passed through `translate` first (the window gives Qt's)."""
        values = {name: _shown(value, translate) for name, value in self.values.items()}
        return translate(self.template).format(**values) if values else translate(self.template)

    def to_json(self) -> dict[str, Any]:
        values = {name: value.to_json() if isinstance(value, Message) else value for name, value in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        """Rebuild a message; raises KeyError if `data` is not one."""
        values = dict(data.get("values", {}))
        inner = {name: cls.from_json(value) for name, value in values.items() if isinstance(value, Mapping)}
        return cls(str(data["template"]), values | inner)


def _shown(value: Value, translate: Callable[[str], str]) -> str | int | float:
    return value.text(translate) if isinstance(value, Message) else value


def say(template: str, **values: Value) -> Message:
    """Make a sentence for the user. A template without values is taken literally: braces in it need no doubling."""
    return Message(template, values)
