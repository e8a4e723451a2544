"""From gradients to changed weights: loss scaling, clipping, the schedule's rate, the optimiser's step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOST_SKIPPED = 50  # fp16 steps in a row that the scaler may throw away while it looks for a scale
Schedule = Callable[[int], float]


class NotFinite(Exception):
    """A loss, gradient or weight is not a number any more; the weights have not been touched since."""


class Stepper:
    """An optimiser with its schedule. The rate of step s (from 0) is the group's × schedule(s): nothing to replay.

    Args:
        optimizer: its groups carry their base rate as "lr" (None: it sets its own).
        schedule: the multiplier of a step.
        max_grad_norm: longest gradient over all weights; 0 does not clip.
        scaler: for fp16.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        max_grad_norm: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.optimizer, self._schedule, self._max_grad_norm, self._scaler = optimizer, schedule, max_grad_norm, scaler
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._parameters: Sequence[torch.nn.Parameter] = [
            weight for group in optimizer.param_groups for weight in group["params"]
        ]
        self._num_skipped = 0

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` (0-dim) to what this step has gathered."""
        (self._scaler.scale(loss) if self._scaler else loss).backward()

    def step(self, number: int) -> None:
        """Take the step of that number (from 0) with the gradients gathered, and let them go.

        Raises:
            NotFinite: if a gradient is not a number; in fp16 only if that has gone on for MOST_SKIPPED steps.
        """
        self._set_rates(number)
        if self._scaler is None:
            if not self._clip():
                raise NotFinite("gradient")
            self.optimizer.step()
        else:
            self._scaler.unscale_(self.optimizer)
            self._num_skipped = 0 if self._clip() else self._num_skipped + 1
            if self._num_skipped >= MOST_SKIPPED:
                raise NotFinite("gradient")
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def names(self) -> tuple[str, ...]:
        """What each of `rates` belongs to: the names of the groups."""
        return tuple(str(group["name"]) for group in self.optimizer.param_groups)

    def rates(self) -> tuple[float, ...]:
        """The effective rate of each group in the last step: Prodigy's d and Adafactor's own step included."""
        return tuple(self._effective(group) for group in self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """What a snapshot keeps. Tensors are the live ones: write them before the next step."""
        scaler = self._scaler.state_dict() if self._scaler else None
        return {"optimizer": self.optimizer.state_dict(), "scaler": scaler, "skipped": self._num_skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; arguments of the optimiser are as they were set for this run, not for that one.

        Raises ValueError if it is the state of another optimiser or of other weights.
        """
        known = inspect.signature(type(self.optimizer)).parameters.keys() - {"params"}
        settings = [{name: group[name] for name in known & group.keys()} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)
        if self._scaler and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self._num_skipped = state["skipped"]

    def _set_rates(self, number: int) -> None:
        factor = self._schedule(number)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            if rate is not None:
                group["lr"] = rate * factor

    def _clip(self) -> bool:
        """Shorten the gradient if it is too long; False if it is not finite. Weights without one don't count."""
        import torch

        gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if not math.isfinite(float(norm)):
            return False
        if self._max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_grad_norm, norm, foreach=True)
        return True

    def _effective(self, group: dict[str, Any]) -> float:
        if "d" in group:  # Prodigy
            return float(group["d"] * group["lr"])
        if group.get("relative_step"):  # Adafactor: of the group's first weight that has been stepped
            states = [self.optimizer.state[weight] for weight in group["params"] if self.optimizer.state.get(weight)]
            return float(self.optimizer._get_lr(group, states[0])) if states else 0.0  # type: ignore[attr-defined]
        return float(group["lr"])
