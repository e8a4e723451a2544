"""What both halves of Ember's training share: optimisers, rate, checkpoints, the log, and two processes of one thread.

Two processes with half the batch each are faster on two busy cores than one process with two threads: they wait for
each other once a step, not once an operation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from trainer.demo.muon import Muon
from trainer.files import atomic_path

SAVE_EVERY = 200


def make_optimizers(modules: Iterable[nn.Module], peak_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices and convolutions, AdamW for the rest: ends of the net, vectors, embeddings."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            at_an_end = any(word in name for word in ("conv_in", "conv_out", "quant_conv", "embedding"))
            (matrices if parameter.ndim >= 2 and not at_an_end else others).append(parameter)
    return [
        Muon(matrices, lr=peak_rate),
        torch.optim.AdamW(others, lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.0, foreach=True),
    ]


def rate_at(step: int, total_steps: int, peak: float, warmup: int = 60) -> float:
    """Linear warm-up, then a cosine that ends at 1 % of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total_steps - warmup)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


@dataclass
class Progress:
    """The state of one half of the training, saved every 200 steps so that a crash costs minutes, not the run."""

    path: Path
    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    total_steps: int
    peak_rate: float
    step: int = 0
    averages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def resume(self) -> None:
        """Load the last checkpoint where there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True)
        self.step = state["step"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        print(f"{self.path.name}: going on from step {self.step}", flush=True)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state: dict[str, Any] = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def apply(self, loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        """Backward pass, clipping, and one step of every optimiser at the rate of this step."""
        loss.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(self.step, self.total_steps, self.peak_rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        self.step += 1

    def report(self, every: int = 20, **values: float) -> None:
        """Keep running means; print them and save now and then."""
        for name, value in values.items():
            self.averages[name] = value + 0.95 * (self.averages.get(name, value) - value)
        if rank() > 0:
            return
        if self.step % every == 0:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in self.averages.items())
            minutes = (time.monotonic() - self.started) / 60
            print(f"{self.path.stem} {self.step}/{self.total_steps}  {minutes:.1f} min  {shown}", flush=True)
        if self.step % SAVE_EVERY == 0 or self.step == self.total_steps:
            self.save()


def rank() -> int:
    """The number of this process, 0 where there is only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one transfer."""
    if num_processes() == 1:
        return
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    flat /= num_processes()
    parts = [part.view(grad.shape) for part, grad in zip(flat.split([g.numel() for g in grads]), grads, strict=True)]
    torch._foreach_copy_(grads, parts)


def generator_for(seed: int, purpose: str, step: int) -> torch.Generator:
    """A generator that depends on the step and the process alone, so that a resumed training draws the same numbers."""
    keys = {"vae": 1, "unet": 2}
    return torch.Generator().manual_seed(seed * 1_000_003 + keys[purpose] * 100_000_007 + step * 16 + rank())
