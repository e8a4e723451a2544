"""What is placed: a LoRA, an embedding, a picture; and a WebUI that takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.targets.fakes import a1111, found
from trainer.export_targets import Target
from trainer.models.safetensors_file import header_bytes

NAME = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture
def webui(awkward: Path) -> Target:
    return found(a1111(awkward / "webui"))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA of 2 MiB, longer than where the legacy hash looks."""
    shapes = {f"{NAME}.lora_down.weight": ("F16", (8, 65536)), f"{NAME}.lora_up.weight": ("F16", (65536, 8))}
    metadata = {
        "ss_output_name": "run-000003", "sshs_model_hash": "old", "sshs_legacy_hash": "old", "ss_seed": "1",
        "modelspec.title": "run",
    }  # fmt: skip
    path = tmp_path / "run-000003.safetensors"
    path.write_bytes(header_bytes(shapes, metadata) + bytes(range(256)) * (2 * 1024 * 1024 // 256))
    return path


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    path = tmp_path / "rufus.safetensors"
    path.write_bytes(header_bytes({"emb_params": ("F32", (2, 768))}, {}) + bytes(2 * 768 * 4))
    return path


@pytest.fixture
def preview(tmp_path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 1")
    path = tmp_path / "sample.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path
