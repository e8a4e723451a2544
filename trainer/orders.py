"""What the user has asked of a run so far, folded together from the commands that arrive. No torch."""

from __future__ import annotations

import time
from typing import Any, Protocol

from trainer.ipc.events import Command

PAUSE_LOOK_S = 0.1


class Commands(Protocol):
    """Where commands come from; `trainer.ipc.station.Station` is one."""

    def poll(self) -> list[Command]:
        """The commands since the last call, in order. Does not wait."""
        ...


class Ending(Exception):
    """Raised out of work that can be left at once (loading, caching, drawing) when the user ends the run."""


class Orders:
    """The wishes that stand: `stop` and `abort` for good, `paused` until resumed, the rest until they are taken."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self.stop = self.abort = self.paused = False
        self._save = self._sample = False
        self._prompts: tuple[dict[str, Any], ...] | None = None

    @property
    def ending(self) -> bool:
        return self.stop or self.abort

    def look(self) -> None:
        """Take in what has arrived."""
        for command in self._commands.poll():
            match command.name:
                case "stop":
                    self.stop, self.paused = True, False
                case "abort":
                    self.abort, self.paused = True, False
                case "pause":
                    self.paused = not self.ending
                case "resume":
                    self.paused = False
                case "save":
                    self._save = True
                case "sample":
                    self._sample = True
                case "prompts":
                    self._prompts = command.prompts

    def leave_if_ending(self) -> None:
        """Raises Ending if the user has asked to stop or abort."""
        self.look()
        if self.ending:
            raise Ending

    def leave_if_aborting(self) -> None:
        """Raises Ending if the user has asked to abort."""
        self.look()
        if self.abort:
            raise Ending

    def take_save(self) -> bool:
        """Whether to save now; asking again needs a new command."""
        wanted, self._save = self._save, False
        return wanted

    def take_sample(self) -> bool:
        """Whether to draw now; asking again needs a new command."""
        wanted, self._sample = self._sample, False
        return wanted

    def take_prompts(self) -> tuple[dict[str, Any], ...] | None:
        """The new list of preview prompts, None where there is none."""
        prompts, self._prompts = self._prompts, None
        return prompts

    def wait(self) -> None:
        """A moment of a pause."""
        time.sleep(PAUSE_LOOK_S)
        self.look()
