"""The tools against the obvious torch code: load both files whole, loop, save. Seconds and memory, process by process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.material import model_file, warm_file_cache

if TYPE_CHECKING:
    import torch

    from tests.benchmarks.__main__ import Bench, Figure

GB = 1e9
RANK = 32
BASE_NAME, TUNED_NAME = "random-sd15-fp16.safetensors", "random-sd15-fp16-tuned.safetensors"
Tensors = dict[str, "torch.Tensor"]


def tools(bench: Bench) -> Iterator[Figure]:
    """Merge, and extract at rank 32, on SD 1.5's real sizes in fp16 (2.1 GB each)."""
    base, tuned = model_pair(bench.folder)
    for name, plain in (("merge", "plain_merge"), ("extract", "plain_svd_lowrank"), ("extract", "plain_svd")):
        seen = {}
        for how in (name, plain):
            warm_file_cache(base)
            warm_file_cache(tuned)
            output = bench.home / f"{how}.safetensors"
            seen[how] = bench.child("tool", how, base, tuned, output)
            seen[how]["error"] = error_of(base, tuned, output) if name == "extract" else None
            output.unlink()
        yield from _compared(name, plain, seen[name], seen[plain])


def _compared(name: str, plain: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Figure]:
    from tests.benchmarks.__main__ import Figure

    words = f"{name} ÷ {plain.replace('_', ' ')}"
    detail = {who: _rounded(seen) for who, seen in (("ours", ours), ("plain", theirs))}
    yield Figure(f"{words}: seconds", ours["seconds"] / theirs["seconds"], "×", 1.0, detail)
    processor = ours["processor_seconds"] / theirs["processor_seconds"]
    yield Figure(f"{words}: processor time, which others disturb less", processor, "×")
    yield Figure(f"{words}: memory over imports", ours["over_imports"] / theirs["over_imports"], "×", 1.0)
    if ours["error"] is not None:
        yield Figure(f"{words}: what the LoRA misses", ours["error"] / theirs["error"], "×", 1.01)


def _rounded(seen: dict[str, Any]) -> dict[str, Any]:
    rounded = {name: round(seen[name], 1) for name in ("seconds", "processor_seconds")}
    rounded["gb_over_imports"] = round(seen["over_imports"] / GB, 3)
    return rounded | ({"error": round(seen["error"], 5)} if seen["error"] is not None else {})


def model_pair(folder: Path) -> tuple[Path, Path]:
    """The full-size model in fp16, and one that differs as a training makes it: few strong directions, and noise."""
    import torch

    from trainer.models.safetensors_file import read_header
    from trainer.models.tensor_file import read_tensor, write_file

    base, tuned = folder / BASE_NAME, folder / TUNED_NAME
    if tuned.exists():
        return base, tuned
    full = model_file(folder)
    header = read_header(full)
    draw = torch.Generator().manual_seed(7)
    with full.open("rb", buffering=0) as handle:
        for path, is_tuned in ((base, False), (tuned, True)):
            print(f"writing {path.name} (2.1 GB, once) ...", flush=True)

            def give(name: str, is_tuned: bool = is_tuned) -> torch.Tensor:
                tensor = read_tensor(handle, header.tensors[name])
                return tensor + training(tensor, draw) if is_tuned and tensor.dim() > 1 else tensor

            rows = (
                (
                    name,
                    info.shape,
                    "F16" if info.dtype == "F32" else info.dtype,
                    lambda name=name, give=give: give(name),
                )
                for name, info in header.tensors.items()
            )
            write_file(path, rows, header.metadata)
    return base, tuned


def training(weight: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """A change of 5 % of the weight's length: 64 directions whose strength falls as 1 ÷ √k, and a fifth of noise."""
    import torch

    if not weight.is_floating_point():
        return torch.zeros_like(weight)
    rows, columns = weight.flatten(1).shape
    falling = torch.arange(1, 65).float().pow(-0.5)
    change = (torch.randn(rows, 64, generator=draw) * falling) @ torch.randn(64, columns, generator=draw)
    change += 0.2 * change.std() * torch.randn(rows, columns, generator=draw)
    return (change * (0.05 * weight.norm() / change.norm())).reshape(weight.shape)


def error_of(base: Path, tuned: Path, lora: Path) -> float:
    """What a LoRA misses of the difference, over all its layers: the length of the rest as a share of the whole."""
    import torch

    from trainer.models.tensor_file import read_file
    from trainer.tools.checkpoint import open_checkpoint
    from trainer.tools.places import Files
    from trainer.tools.targets import lora_layers

    one, other, found = (
        open_checkpoint(str(base), "A"),
        open_checkpoint(str(tuned), "B"),
        read_file(lora, torch.float32),
    )
    rest = whole = 0.0
    with Files() as files:
        for name, target in lora_layers(one).items():
            if f"{name}.lora_up.weight" in found:
                places = (other.places[target.weight], one.places[target.weight])
                change = torch.sub(*(files.read(place, torch.float32).flatten(1) for place in places))
                up, down = (found[f"{name}.lora_{side}.weight"].flatten(1) for side in ("up", "down"))
                whole += float(change.square().sum())
                factor = float(found[f"{name}.alpha"]) / len(down)
                rest += float((change - up @ down * factor).square().sum())
    return (rest / whole) ** 0.5


# --- in a process of its own ---


def run_tool(how: str, base: str, tuned: str, output: str) -> dict[str, Any]:
    """One tool, or the obvious code for the same: seconds, and the peak of memory over that of the imports."""
    from tests.benchmarks.children import peak_memory

    works: dict[str, Callable[[Path, Path, Path], None]] = {
        "merge": _merge, "extract": _extract, "plain_merge": _plain_merge,
        "plain_svd": _plain_extract, "plain_svd_lowrank": _plain_extract_lowrank,
    }  # fmt: skip
    _import_all()
    before, began, worked = peak_memory(), time.perf_counter(), time.process_time()
    works[how](Path(base), Path(tuned), Path(output))
    seconds = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - worked}
    return {**seconds, "over_imports": peak_memory() - before}


def _import_all() -> None:
    """What either of them imports, warmed up by a small computation."""
    import safetensors.torch
    import torch

    import trainer.tools.extract
    import trainer.tools.low_rank
    import trainer.tools.merge

    assert safetensors.torch and trainer.tools.extract and trainer.tools.merge
    trainer.tools.low_rank.leading_svd(torch.randn(300, 200), 4)


def _merge(base: Path, tuned: Path, output: Path) -> None:
    from trainer.tools.catalog import TOOLS, MergeSettings
    from trainer.tools.watch import Watch

    settings = MergeSettings(model_a=str(base), model_b=str(tuned), output=str(output), amount=0.3, vae_from="merge")
    TOOLS["merge"].run(settings, Watch())


def _plain_merge(base: Path, tuned: Path, output: Path) -> None:
    from safetensors.torch import load_file, save_file

    one, other = load_file(base), load_file(tuned)
    merged = {}
    for name, tensor in one.items():
        if tensor.is_floating_point():
            merged[name] = (0.7 * tensor.float() + 0.3 * other[name].float()).half()
        else:
            merged[name] = tensor
    save_file(merged, output)


def _extract(base: Path, tuned: Path, output: Path) -> None:
    from trainer.tools.catalog import TOOLS, ExtractSettings
    from trainer.tools.watch import Watch

    settings = ExtractSettings(base=str(base), tuned=str(tuned), output=str(output), rank=RANK)
    TOOLS["extract"].run(settings, Watch())


def _plain_extract(base: Path, tuned: Path, output: Path) -> None:
    import torch

    def decompose(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
        return u[:, :RANK] * s[:RANK], vh[:RANK]

    _plain_loop(base, tuned, output, decompose)


def _plain_extract_lowrank(base: Path, tuned: Path, output: Path) -> None:
    import torch

    def decompose(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, v = torch.svd_lowrank(change, q=RANK, niter=2)
        return u * s, v.T

    _plain_loop(base, tuned, output, decompose)


def _plain_loop(
    base: Path, tuned: Path, output: Path, decompose: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Both files whole, the same layers as ours, one after the other."""
    import torch
    from safetensors.torch import load_file, save_file

    from trainer.tools.checkpoint import open_checkpoint
    from trainer.tools.targets import lora_layers

    targets = lora_layers(open_checkpoint(str(base), "Base model"))
    layers = {name: target.weight for name, target in targets.items() if not target.in_resnet}
    one, other = load_file(base), load_file(tuned)
    found: Tensors = {}
    for name, weight in layers.items():
        change = (other[weight].float() - one[weight].float()).flatten(1)
        up, down = decompose(change)
        tail = (1, 1) if one[weight].dim() == 4 else ()
        found[f"{name}.lora_up.weight"] = up.reshape(*up.shape, *tail).half().contiguous()
        found[f"{name}.lora_down.weight"] = down.reshape(*down.shape, *tail).half().contiguous()
        found[f"{name}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(found, output)
