"""Makes the optimiser of a table row, and turns gradients into steps: rates, scaling, clipping, and what to keep of it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput, RunFailed
from trainer.messages import say
from trainer.optim.table import OPTIMIZERS

if TYPE_CHECKING:
    import torch

SMALLEST_SCALE = 2.0**-14  # of the fp16 loss: below it every step would be skipped for good


def build_optimizer(name: str, groups: Sequence[dict[str, Any]], arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser of a row of the table over parameter groups ({"params", "lr", "name"}).

    Raises BadInput if its library is missing, or refuses a value of `arguments`.
    """
    row = OPTIMIZERS[name]
    module_name, _, class_name = row.class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        what = say("{optimizer} is not installed ({reason}).", optimizer=name, reason=str(error))
        raise BadInput(what, say("Run the launcher's doctor, or choose another optimiser.")) from error
    values = {key: _plain(value) for key, value in {**row.arguments, **arguments}.items()}
    relative = row.relative_rate and bool(values.get("relative_step"))
    prepared = [{**group, "lr": None if relative else group["lr"]} for group in groups]
    if class_name in ("AdamW", "SGD") and module_name == "torch.optim":
        values.setdefault("fused", True)  # one kernel for all weights; a LoRA has hundreds of small ones
    try:
        optimizer: torch.optim.Optimizer = kind(prepared, lr=None if relative else groups[0]["lr"], **values)
    except (TypeError, ValueError, AssertionError) as error:
        what = say("{optimizer} refuses its arguments: {reason}.", optimizer=name, reason=str(error).rstrip("."))
        raise BadInput(what, say("Mend optimizer.arguments.")) from error
    return optimizer


def _plain(value: Any) -> Any:
    """TOML's lists as the tuples that optimisers unpack."""
    return tuple(value) if isinstance(value, list) else value


class Updater:
    """Backward passes in, steps out. `state_dict` holds all that a resumed run needs to go on bit for bit.

    Args:
        optimizer: its groups carry the full rates.
        multiplier: optimiser step (from 0) → factor on the rates.
        max_grad_norm: clipping; 0 is off.
        scaler: for fp16, else None.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: Callable[[int], float],
        max_grad_norm: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.optimizer, self.scaler = optimizer, scaler
        self._multiplier, self._max_grad_norm = multiplier, max_grad_norm
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._parameters = [weight for group in optimizer.param_groups for weight in group["params"]]

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a share of the step's loss."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, number: int) -> None:
        """Apply the gathered gradients as optimiser step `number` (from 0) and forget them.

        Raises RunFailed, with the weights as they were, if a gradient is not finite (fp16: too often).
        """
        import torch

        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate * self._multiplier(number)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        limit = self._max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        if self.scaler is None:
            if not bool(norm.isfinite()):
                raise not_finite(number + 1)
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)  # leaves the step out if a gradient is not finite
            self.scaler.update()
            if self.scaler.get_scale() < SMALLEST_SCALE:
                raise not_finite(number + 1)
        self.optimizer.zero_grad(set_to_none=True)

    def rates(self) -> dict[str, float]:
        """The effective learning rate of each group by its name, after the last step."""
        return {group["name"]: _effective_rate(self.optimizer, group) for group in self.optimizer.param_groups}

    def state_dict(self) -> dict[str, Any]:
        scaler = {} if self.scaler is None else self.scaler.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "scaler": scaler}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def not_finite(step: int) -> RunFailed:
    """The error for a loss or gradient that is not a number."""
    return RunFailed(
        say("At step {step} the loss was no longer a number.", step=step),
        say("What was saved before is whole. Lower the learning rate, or use bf16 or fp32 in place of fp16."),
    )


def _effective_rate(optimizer: Any, group: dict[str, Any]) -> float:
    """What a step multiplies with: Prodigy scales by its own estimate, Adafactor by its relative step."""
    if "d" in group:
        return float(group["d"] * group["lr"])
    if group.get("relative_step") and hasattr(optimizer, "_get_lr"):
        states = [optimizer.state[weight] for weight in group["params"] if optimizer.state.get(weight)]
        return float(optimizer._get_lr(group, states[0])) if states else 0.0
    return float(group["lr"] or 0.0)
