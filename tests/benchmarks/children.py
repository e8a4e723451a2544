"""What is measured in a process of its own: `python -m tests.benchmarks.children NAME RESULT.json ARGUMENT…`.

Each function returns plain data, which is written to RESULT.json.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.families import load_family, write_family
from tests.benchmarks.tools import run_tool

ROUNDS = 5  # steps of each kind that count
WARM_UP = 2


def training(run: str) -> dict[str, Any]:
    """The ordinary command with a watch on the first forward pass: when, how much memory, how long each stage."""
    import psutil

    started = psutil.Process().create_time()
    from trainer.models.stable_diffusion import StableDiffusion

    stamps: dict[str, float] = {}
    predict = StableDiffusion.predict

    def watched(*arguments: Any) -> Any:
        stamps.setdefault("begins", time.time() - started)
        result = predict(*arguments)
        if "ends" not in stamps:
            result.sum().item()  # a card works in the background: wait for it
            stamps["ends"] = time.time() - started
        return result

    StableDiffusion.predict = watched  # type: ignore[method-assign]
    from trainer.__main__ import main

    code = main([run, "--json"])
    folders = sorted(Path(_output_folder(run)).iterdir(), key=lambda path: path.stat().st_mtime)
    events = [json.loads(line) for line in (folders[-1] / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    stages: list[tuple[str, float]] = [("start of the process", 0.0)]
    for event in events:
        if isinstance(event, dict) and event["event"] == "stage" and event["name"] != stages[-1][0]:
            stages.append((event["name"], event["time"] - started))
    ends = [moment for _, moment in stages[1:]] + [stamps.get("begins", 0.0)]
    phases = [[name, round(end - begin, 2)] for (name, begin), end in zip(stages, ends, strict=True) if end >= begin]
    return {"exit_code": code, **stamps, "phases": phases, "peak_bytes": peak_memory(), "peak_vram": peak_vram()}


def loading(model: str, device: str) -> dict[str, Any]:
    """Peak memory of loading the whole model, over that of a process that has loaded a tiny one: the imports."""
    import torch

    from tests.tiny import save_tiny_file
    from trainer.models.sd1 import FAMILY

    with tempfile.TemporaryDirectory() as folder:
        FAMILY.load(save_tiny_file(Path(folder)))
    before = peak_memory()
    began = time.perf_counter()
    components = FAMILY.load(Path(model), device=device)
    seconds = time.perf_counter() - began
    parameters = [weight for module in components.modules().values() for weight in module.parameters()]
    weights = sum(weight.numel() * weight.element_size() for weight in parameters)
    assert all(weight.dtype == torch.float32 for weight in components.unet.parameters())
    return {"seconds": seconds, "weights": weights, "over_imports": peak_memory() - before, "peak_vram": peak_vram()}


def steps(run: str, device: str) -> dict[str, Any]:
    """Seconds a step of our loop and of a plain diffusers + peft loop, turn by turn on the same batches."""
    import torch

    from trainer.build import build_run
    from trainer.config.files import read_run
    from trainer.export import BaseHash
    from trainer.loop import train
    from trainer.orders import Orders

    settings, orders = read_run(Path(run)), Orders(_NoCommands())
    BaseHash(Path(settings.model.path)).result()  # so that it doesn't compute beside what is measured
    plain = PlainLoop(Path(settings.model.path), settings.network.rank, device)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        built = build_run(settings, Path(folder), _Silence(), orders)
        mine = sum(part.numel() for group in built.parts.stepper.optimizer.param_groups for part in group["params"])
        assert mine == plain.num_trained, "the comparison is only fair over equal LoRAs"
        original = built.parts.steps

        def in_turn(start: int) -> Iterator[Any]:
            began = None
            for step in original(start):
                synchronize(device)
                if began is not None:
                    ours.append(time.perf_counter() - began)
                (batch,) = step.batches
                plain_began = time.perf_counter()
                plain.step(batch)
                synchronize(device)
                theirs.append(time.perf_counter() - plain_began)
                began = time.perf_counter()
                yield step

        try:
            train(dataclasses.replace(built.parts, steps=in_turn), _Silence(), orders)
        finally:
            built.close()
    assert len(ours) >= WARM_UP + ROUNDS, "the run file has too few steps"
    return {"ours": ours[WARM_UP:], "plain": theirs[WARM_UP : len(ours)], "threads": torch.get_num_threads()}


class PlainLoop:
    """The loop of diffusers' LoRA example without its frills: UNet with peft's LoRA, AdamW, MSE on epsilon, fp32."""

    TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")

    def __init__(self, model: Path, rank: int, device: str) -> None:
        import torch
        from diffusers import DDPMScheduler
        from peft import LoraConfig

        from trainer.models.sd1 import FAMILY

        self.device = torch.device(device)
        self.unet = FAMILY.load(model, parts={"unet"}, device=device).unet
        self.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(self.TARGETS)))
        self.unet.train()
        self.weights = [weight for weight in self.unet.parameters() if weight.requires_grad]
        self.num_trained = sum(weight.numel() for weight in self.weights)
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4)
        self.schedule = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
        )

    def step(self, batch: Any) -> float:
        """One optimiser step on a batch of cached latents and text states."""
        import torch
        from torch.nn import functional

        mean, std, cond = (part.to(self.device) for part in (batch.mean, batch.std, batch.cond.states))
        latents = mean + std * torch.randn_like(std)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=self.device)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        loss = functional.mse_loss(self.unet(noisy, timesteps, cond).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def throughput(pictures: str, side: str) -> dict[str, Any]:
    """Pictures a second: listing and measuring, hashing, decoding to their bucket and storing, reading back."""
    import torch

    from trainer.data.buckets import Bucketing
    from trainer.data.cache import Latents, latent_jobs
    from trainer.data.index import hash_files, index_folders
    from trainer.data.memo import Memo
    from trainer.data.store import Store

    with tempfile.TemporaryDirectory() as folder:
        memo = Memo(Path(folder) / "memo.sqlite")
        index, indexing = _timed(lambda: index_folders([_Entry(pictures)], memo=memo))
        facts = [item.facts for item in index.items]
        (hashes, _), hashing = _timed(lambda: hash_files(facts, memo))
        jobs = latent_jobs(index.items, Bucketing(resolution=(int(side), int(side))), hashes)
        store = Store(Path(folder) / "store", limit_bytes=10**10, warn=print)
        latents = Latents(store, "no model")
        missing = latents.find(jobs)

        def shrink(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """In the VAE's place: its shapes without its work, which would hide what is measured."""
            small = pixels[:, :, ::8, ::8]
            mean = torch.cat([small, small[:, :1]], 1)
            return mean, torch.ones_like(mean)

        _, storing = _timed(lambda: latents.encode(missing, shrink))
        _, reading = _timed(lambda: [latents.moments(item.id) for item in index.items])
        store.close()
    count = len(index.items)
    seconds = {"index": indexing, "hash": hashing, "decode, bucket, store": storing, "read from the cache": reading}
    rates = {name: count / duration for name, duration in seconds.items()}
    return {"count": count, "buckets": len({job.bucket for job in jobs}), "a_second": rates}


@dataclasses.dataclass(frozen=True)
class _Entry:
    path: str
    enabled: bool = True
    repeats: int | None = None
    caption: str = ""


class _Silence:
    """A reporter that listens to nothing."""

    def report(self, event: Any, picture: bytes = b"") -> None: ...


class _NoCommands:
    """Nobody asks for anything."""

    def poll(self) -> list[Any]:
        return []


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def synchronize(device: str) -> None:
    """Wait until a card has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def peak_memory() -> int:
    """The most physical memory that this process ever held, in bytes (VmHWM)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import psutil

    return int(psutil.Process().memory_info().peak_wset)


def peak_vram() -> int:
    """The most memory of the card that tensors of this process ever took, in bytes; 0 without a card."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def _output_folder(run: str) -> str:
    from trainer.config.files import read_run

    return read_run(Path(run)).output.folder


CHILDREN = {
    "training": training, "loading": loading, "steps": steps, "throughput": throughput, "tool": run_tool,
    "write_family": write_family, "load_family": load_family,
}  # fmt: skip

if __name__ == "__main__":
    name, result, *given = sys.argv[1:]
    Path(result).write_text(json.dumps(CHILDREN[name](*given)), encoding="utf-8")
