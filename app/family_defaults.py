"""What a newly chosen base model wants of the settings: taken over where the user had set nothing, said, and undoable.

Lives as long as the window, so that a choice made on any page (or a page built anew) is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from app.draft import Draft, default_values
from app.places import read
from app.preferences import Preferences
from app.work import Latest
from trainer.messages import Message

if TYPE_CHECKING:
    from trainer.models.header import ModelFacts

TAKEN = "taken_over"  # preference: what families have set, place -> value, so that the next one may change it again
PATH, RESOLUTION, PROMPTS = "model.path", "images.resolution", "samples.prompts"
Wish = tuple[str, Any, Message]  # a place, the value that a model wants there, and why


@dataclass(frozen=True)
class Change:
    """A setting, what it was, what the model wants, and why."""

    place: str
    old: Any
    new: Any
    why: Message


def split_changes(wanted: Sequence[Wish], values: Any, defaults: Any, ours: Any) -> tuple[list[Change], list[Change]]:
    """What may be changed, and what stays since the user has set it.

    Args:
        wanted: places with the values that a model wants, as plain data, and why.
        values, defaults: the draft's, and those of a new run.
        ours: what earlier models have set, place -> value.
    """
    free: list[Change] = []
    kept: list[Change] = []
    for place, new, why in wanted:
        old = read(values, place)
        if old == new:
            continue
        is_free = place.startswith(PROMPTS) or old == read(defaults, place) or (place in ours and ours[place] == old)
        (free if is_free else kept).append(Change(place, old, new, why))
    return free, kept


def prompt_wishes(values: Any, wanted: Sequence[Wish]) -> list[Wish]:
    """Previews that are drawn at the resolution that is trained now are to be drawn at the one that is wanted."""
    new, why = next(((value, why) for place, value, why in wanted if place == RESOLUTION), (None, None))
    prompts = read(values, PROMPTS)
    if new is None or why is None or not isinstance(prompts, list):
        return []
    old = read(values, RESOLUTION)
    return [
        (f"{PROMPTS}[{number}].{key}", side, why)
        for number, prompt in enumerate(prompts, 1)
        if isinstance(prompt, dict) and [prompt.get("width"), prompt.get("height")] == old != new
        for key, side in zip(("width", "height"), new, strict=True)
    ]


class FamilyDefaults(QObject):
    """See the module.

    Signals:
        changed(): `taken` or `kept` are new.
    """

    changed = Signal()

    def __init__(self, draft: Draft, preferences: Preferences, parent: QObject) -> None:
        super().__init__(parent)
        self._draft, self._preferences = draft, preferences
        self.facts: ModelFacts | None = None  # of the model that wants them
        self._path = ""
        self._waiting = ""  # a model that was chosen and could not be looked into: not downloaded yet, or not whole
        self.taken: tuple[Change, ...] = ()
        self.kept: tuple[Change, ...] = ()
        self._asks = Latest(self, self._on_facts)
        draft.changed.connect(self._on_changed)
        draft.opened.connect(self._forget)

    def _on_changed(self, place: str) -> None:
        if place == PATH:
            self._waiting = self._draft.path(PATH)
            self.dismiss()
            self._ask()
        elif self.taken or self.kept:
            self._look_again()

    def _ask(self) -> None:
        if path := self._waiting:
            self._asks.ask(lambda: (path, *_look(path)))

    def _forget(self) -> None:
        """Another run is edited: its values are its own."""
        self._waiting = ""
        self.dismiss()

    def model_came(self) -> None:
        """What lies at the chosen path can be looked into now: if it could not be when it was chosen, follow it now."""
        if self._waiting == self._draft.path(PATH) and not self._asks.busy:
            self._ask()

    def _on_facts(self, answer: tuple[str, ModelFacts, list[Wish]]) -> None:
        path, facts, wanted = answer
        if facts.kind != "base" or not path == self._waiting == self._draft.path(PATH):
            return
        self._waiting = ""
        wanted = [*wanted, *prompt_wishes(self._draft.values, wanted)]
        ours = self._preferences.get(TAKEN, {})
        taken, kept = split_changes(wanted, self._draft.values, default_values(), ours)
        self._path, self.facts, self.taken, self.kept = path, facts, tuple(taken), tuple(kept)
        self._take(self.taken)
        self.changed.emit()

    def _take(self, changes: Sequence[Change]) -> None:
        """Put values into the draft as one step of undo, and remember whose they are."""
        if not changes:
            return
        new = {change.place: change.new for change in changes}
        ours = {place: value for place, value in new.items() if not place.startswith(PROMPTS)}
        self._preferences.set(TAKEN, {**self._preferences.get(TAKEN, {}), **ours})
        self._draft.set_many(new)

    def _look_again(self) -> None:
        """Something was edited or undone: what is no longer as it was taken over is no longer said."""
        if self._draft.path(PATH) != self._path:
            self.dismiss()
            return
        taken = tuple(change for change in self.taken if self._value(change.place) == change.new)
        kept = tuple(change for change in self.kept if self._value(change.place) == change.old)
        if (taken, kept) != (self.taken, self.kept):
            self.taken, self.kept = taken, kept
            self.changed.emit()

    def _value(self, place: str) -> Any:
        """The draft's value; None where there is no such place any more (a prompt that was taken out)."""
        try:
            return read(self._draft.values, place)
        except KeyError:
            return None

    def undo(self) -> None:
        """Give the settings back what they were, as one step."""
        old = {change.place: change.old for change in self.taken}
        if old:
            self._draft.set_many(old)
        self.dismiss()

    def take_rest(self) -> None:
        """Take over what had been left as the user had set it."""
        rest, self.kept = self.kept, ()
        self.taken += rest
        self._take(rest)
        self.changed.emit()

    def dismiss(self) -> None:
        """Say no more of it."""
        if self.taken or self.kept or self.facts is not None:
            self.facts, self.taken, self.kept = None, (), ()
            self.changed.emit()


def _look(path: str) -> tuple[ModelFacts, list[Wish]]:
    """What a model is and wants. For the pool, where what reads headers is imported the first time."""
    from trainer.models.header import inspect_file
    from trainer.models.suggestions import suggestions

    facts = inspect_file(path)
    return facts, [(found.place, _plain(found.value), found.why) for found in suggestions(facts)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
