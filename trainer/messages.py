"""Sentences for the user as data: an English template and its values, so that the window can say them in Chinese.

Every sentence that a user may read is made by `say("… {name} …", name=value)`: the templates are found in the source
by the translation script (tests/test_translations.py says when one has no Chinese), and travel over the pipe and in the
journal as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | int | float


@dataclass(frozen=True)
class Message:
    """A sentence: `template` with `{names}` in it, and the values for the names."""

    template: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text()

    def text(self, translate: Callable[[str], str] = str) -> str:
        """The sentence with its values, the template passed through `translate` first (the window gives Qt's)."""
        return translate(self.template).format(**self.values) if self.values else translate(self.template)

    def to_json(self) -> dict[str, Any]:
        return {"template": self.template, "values": dict(self.values)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        """Rebuild a message; raises KeyError if `data` is not one."""
        return cls(str(data["template"]), dict(data.get("values", {})))


def say(template: str, **values: Value) -> Message:
    """Make a sentence for the user. A template without values is taken literally: braces in it need no doubling."""
    return Message(template, values)
