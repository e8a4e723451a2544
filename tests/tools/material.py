"""Models and LoRAs for the tools' tests: tiny, random but fixed, of every kind that a tool has to tell apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.tiny import save_tiny_file
from trainer.config.fields import Section
from trainer.export import save_adapter
from trainer.models.protocol import Components
from trainer.models.safetensors_file import read_header
from trainer.models.sd1 import FAMILY
from trainer.models.tensor_file import TORCH_NAMES, read_file, write_file
from trainer.nets.lora import LoraNetwork
from trainer.tools.catalog import TOOLS
from trainer.tools.watch import Result, Watch

Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."
_DTYPES = {f"torch.{name}": short for short, name in TORCH_NAMES.items()}


def use(name: str, watch: Watch | None = None, **settings: Any) -> Result:
    """Run a tool as the window and the command line do; paths may be given as such."""
    tool = TOOLS[name]
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    made: Section = tool.settings(**plain)
    assert not tool.missing(made)
    return tool.run(made, watch or Watch())


def save(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file of these tensors, each in its dtype."""
    rows = [
        (name, tuple(tensor.shape), _DTYPES[str(tensor.dtype)], lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    ]
    write_file(path, rows, metadata or {})
    return path


def base_file(folder: Path, name: str = "base", seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    return save_tiny_file(folder, name, dtype, seed)


def changed(path: Path, target: Path, change: Callable[[Tensors], None], **metadata: str) -> Path:
    """A copy of a model with some tensors (and entries) changed, and its config beside it."""
    tensors = read_file(path)
    change(tensors)
    save(target, tensors, {**read_header(path).metadata, **metadata})
    config = path.with_suffix(".json")
    if config.exists():
        target.with_suffix(".json").write_bytes(config.read_bytes())
    return target


def network(
    model: Path, rank: int = 4, alpha: float = 2.0, seed: int = 0, size: float = 0.1
) -> tuple[Components, LoraNetwork]:
    """A freshly loaded tiny model and a LoRA that acts in it, with random weights in both factors."""
    components = FAMILY.load(model)
    targets = {part: FAMILY.adapter_modules(components, part) for part in ("unet", "text_encoder")}
    made = LoraNetwork(targets, rank, alpha, seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * size)
    return components, made


def lora_file(
    path: Path,
    model: Path,
    rank: int = 4,
    alpha: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **more: str,
) -> Path:
    """A LoRA for a tiny model, as training writes it."""
    _, made = network(model, rank, alpha, seed)
    metadata = {"ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_network_dim": str(rank), **more}
    save_adapter(path, made.state_tensors(), metadata, dtype)
    return path


def change_of(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """What a plain layer of a LoRA adds, in float64: up · down · alpha ÷ rank, (out, n)."""
    up, down = tensors[f"{name}.lora_up.weight"].double(), tensors[f"{name}.lora_down.weight"].double()
    return up.flatten(1) @ down.flatten(1) * float(tensors[f"{name}.alpha"]) / down.shape[0]


def layers_of(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name.removesuffix(".lora_down.weight") for name in tensors if name.endswith(".lora_down.weight")]


def unet_output(model: Path | Any, seed: int = 3) -> torch.Tensor:
    """What the whole model predicts for fixed latents and a fixed caption."""
    components = FAMILY.load(model) if isinstance(model, Path) else model
    draw = torch.Generator().manual_seed(seed)
    noisy = torch.randn(1, 4, 8, 8, generator=draw)
    cond = FAMILY.encode_text(components, ["a red cat"])
    with torch.no_grad():
        return FAMILY.predict(components, noisy, torch.tensor([500]), cond)
